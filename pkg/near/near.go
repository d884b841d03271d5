// Package near finds the names that somebody may have meant with one that nobody knows:
// of a command, a workload, a volume, a snapshot, a file.
package near

import (
	"cmp"
	"slices"
	"strings"
)

// most is how many letters may differ.
const most = 2

// Resembles reports whether somebody who wrote wanted may have meant name.
func Resembles(wanted, name string) bool {
	_, like := Score(wanted, name)
	return like
}

// Score reports whether somebody who wrote wanted may have meant name: it is written in
// nearly the same way, or has the same last component in another directory. A lower
// score is nearer.
func Score(wanted, name string) (score int, like bool) {
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

// Question asks whether one of the names was meant; "" where none resembles wanted.
func Question(wanted string, names []string) string {
	const longest = 3
	like := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !Resembles(wanted, name) })
	slices.SortStableFunc(like, func(a, b string) int {
		x, _ := Score(wanted, a)
		y, _ := Score(wanted, b)
		return cmp.Compare(x, y)
	})
	return Ask(like[:min(len(like), longest)])
}

// Ask asks whether one of these was meant; "" for none.
func Ask(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "did you mean " + strings.Join(names, ", or ") + "?"
}

// base is the last component of a path.
func base(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

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
