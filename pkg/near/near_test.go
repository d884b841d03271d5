package near_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/near"
)

func FuzzResembles(f *testing.F) {
	f.Add("abc", "abd")
	f.Add("", "a")
	f.Fuzz(func(t *testing.T, a, b string) {
		if len(a) > 40 || len(b) > 40 {
			return
		}
		got := near.Resembles(a, b)
		base := func(s string) string { return s[strings.LastIndexByte(s, '/')+1:] }
		d := levenshtein(a, b)
		want := strings.EqualFold(a, b) || d <= 2 && d < len(base(a)) || base(a) == base(b)
		if got != want {
			t.Errorf("%q and %q: %v, their distance is %d", a, b, got, d)
		}
	})
}

func TestResemblesCountsLetters(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	word := func() string {
		b := make([]byte, r.IntN(9))
		for i := range b {
			b[i] = "abc"[r.IntN(3)]
		}
		return string(b)
	}
	for range 20_000 {
		a, b := word(), word()
		d := levenshtein(a, b)
		if want := a == b || d <= 2 && d < len(a); near.Resembles(a, b) != want {
			t.Fatalf("%q and %q: %v, their distance is %d", a, b, !want, d)
		}
	}
}

// levenshtein is the plain way to count.
func levenshtein(a, b string) int {
	table := make([][]int, len(a)+1)
	for i := range table {
		table[i] = make([]int, len(b)+1)
		for j := range table[i] {
			switch {
			case i == 0:
				table[i][j] = j
			case j == 0:
				table[i][j] = i
			default:
				step := table[i-1][j-1]
				if a[i-1] != b[j-1] {
					step++
				}
				table[i][j] = min(step, table[i-1][j]+1, table[i][j-1]+1)
			}
		}
	}
	return table[len(a)][len(b)]
}
