package part

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tiny-forge/snap/pkg/archive"
)

// mostNear is how many names resemble a missing one, at most.
const mostNear = 3

type candidate struct {
	name  string
	score int // less is nearer
}

// near fills in the names that resemble the missing ones.
func (c *Choice) near(index Index, missing []Missing) error {
	found := make([][]candidate, len(missing))
	_, err := each(index, func(l *archive.Line) error {
		for i := range missing {
			if score, like := resembles(missing[i].Name, l.Name); like {
				found[i] = append(found[i], candidate{strings.Clone(l.Name), score})
				slices.SortStableFunc(found[i], func(a, b candidate) int { return cmp.Compare(a.score, b.score) })
				found[i] = found[i][:min(len(found[i]), mostNear)]
			}
		}
		return nil
	})
	for i := range missing {
		for _, f := range found[i] {
			missing[i].Near = append(missing[i].Near, f.name)
		}
	}
	return err
}

// Resembles reports whether somebody who wrote wanted may have meant name.
func Resembles(wanted, name string) bool {
	_, like := resembles(wanted, name)
	return like
}

// resembles reports whether somebody who wrote wanted may have meant name: it is written
// in nearly the same way, or has the same last component in another directory.
func resembles(wanted, name string) (score int, like bool) {
	const most = 2 // letters that differ
	if strings.EqualFold(wanted, name) {
		return 0, true
	}
	if d := distance(wanted, name, most); d <= most && d < len(base(wanted)) {
		return d, true
	}
	if base(wanted) == base(name) {
		return most + 1, true
	}
	return 0, false
}

// distance is how many letters must be put in, left out or replaced to make b of a
// (Levenshtein), and more than most where it is more than most.
func distance(a, b string, most int) int {
	if max(len(a)-len(b), len(b)-len(a)) > most {
		return most + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		// Only the places near the diagonal can be reached in so few steps.
		from, to := max(i+1-most, 1), min(i+1+most, len(b))
		left := most + 1
		if from == 1 {
			left = i + 1
		}
		diagonal := row[from-1]
		row[from-1] = left
		least := left
		for j := from; j <= to; j++ {
			step := diagonal
			if a[i] != b[j-1] {
				above := row[j]
				if j == i+1+most { // not of the row before
					above = most + 1
				}
				step = min(diagonal, above, left) + 1
			}
			diagonal, row[j], left = row[j], step, step
			least = min(least, step)
		}
		if least > most {
			return most + 1
		}
	}
	return row[len(b)]
}
