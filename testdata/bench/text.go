package main

import (
	"math/rand/v2"
	"strconv"
)

// text writes lines of JSON such as an app keeps them: the same keys again and
// again, words of which a few are frequent, numbers, times, and ids that do not
// compress. gzip makes about a quarter of it.
type text struct {
	r     *rand.Rand
	line  []byte
	rest  []byte // what of line has not been read
	count int
}

// newText is the text of a seed and a number: of a data set, and of a file in
// it, so that each file can be made, and made again, on its own.
func newText(seed, number uint64) *text {
	return &text{r: rand.New(rand.NewPCG(seed, number))}
}

var syllables = []string{"ba", "con", "der", "el", "fi", "gra", "ho", "in", "ka", "lu", "men", "nor", "o", "pra", "que", "ri", "sto", "ta", "ul", "ver", "wa", "xi", "yo", "zen"}

// words are made up, all of them, in a fixed order.
var words = func() []string {
	r := rand.New(rand.NewPCG(1, 1))
	list := make([]string, 3000)
	for i := range list {
		for range 1 + r.IntN(4) {
			list[i] += syllables[r.IntN(len(syllables))]
		}
	}
	return list
}()

// word picks the first ones more often, as languages do.
func (t *text) word() string {
	u := t.r.Float64()
	return words[int(u*u*u*float64(len(words)))]
}

const hexDigits = "0123456789abcdef"

func (t *text) hex(digits int) {
	for n := t.r.Uint64(); digits > 0; digits-- {
		t.line = append(t.line, hexDigits[n&15])
		if n >>= 4; n == 0 {
			n = t.r.Uint64()
		}
	}
}

func (t *text) add(s string) { t.line = append(t.line, s...) }

func (t *text) number(below int) { t.line = strconv.AppendInt(t.line, int64(t.r.IntN(below)), 10) }

// next makes the next line.
func (t *text) next() []byte {
	t.line = t.line[:0]
	t.count++
	t.add(`{"id":`)
	t.line = strconv.AppendInt(t.line, int64(t.count), 10)
	t.add(`,"uuid":"`)
	t.hex(32)
	t.add(`","created_at":"2024-0`)
	t.line = append(t.line, '1'+byte(t.r.IntN(9)), '-', '1', '0'+byte(t.r.IntN(10)), 'T', '1', '0'+byte(t.r.IntN(10)), ':')
	t.number(60)
	t.add(`:00Z","customer":{"name":"`)
	t.add(t.word())
	t.add(` `)
	t.add(t.word())
	t.add(`","email":"`)
	t.add(t.word())
	t.add(`@example.org","active":`)
	t.line = strconv.AppendBool(t.line, t.r.IntN(4) > 0)
	t.add(`},"total":`)
	t.number(100_000)
	t.add(`.`)
	t.number(100)
	t.add(`,"items":[`)
	for i := range 1 + t.r.IntN(3) {
		if i > 0 {
			t.add(`,`)
		}
		t.add(`{"sku":"`)
		t.hex(8)
		t.add(`","quantity":`)
		t.number(9)
		t.add(`,"price":`)
		t.number(10_000)
		t.add(`}`)
	}
	t.add(`],"note":"`)
	for i := range 6 + t.r.IntN(30) {
		if i > 0 {
			t.add(` `)
		}
		t.add(t.word())
	}
	t.add("\"}\n")
	return t.line
}

// fill fills a buffer; the last line may be cut.
func (t *text) fill(buf []byte) {
	_, _ = t.Read(buf)
}

// Read implements io.Reader, without an end.
func (t *text) Read(buf []byte) (int, error) {
	for n := 0; n < len(buf); {
		if len(t.rest) == 0 {
			t.rest = t.next()
		}
		got := copy(buf[n:], t.rest)
		n, t.rest = n+got, t.rest[got:]
	}
	return len(buf), nil
}
