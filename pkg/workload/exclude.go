package workload

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Excludes reports whether the volume's `exclude` leaves out a name: a path below the
// volume. What is below an excluded directory is left out with it.
//
// A pattern is matched against the whole path. In each component *, ? and [a-z] have
// the meaning of path.Match, and a component ** stands for any number of components,
// none included. A pattern that ends in ** needs at least one there, so cache/** leaves
// the directory cache itself.
func (v *Volume) Excludes(name string) bool {
	if len(v.Exclude) == 0 {
		return false
	}
	parts := strings.Split(name, "/")
	return slices.ContainsFunc(v.Exclude, func(pattern string) bool { return matches(strings.Split(pattern, "/"), parts) })
}

// matches goes back only to the last ** when a component does not match, as wildcard
// matching may: whatever the names of a volume are, the time is bounded by the product
// of the two lengths.
func matches(pattern, parts []string) bool {
	if pattern[len(pattern)-1] == "**" {
		pattern = append(pattern, "*")
	}
	at, stars, tried := 0, -1, 0
	for i := 0; i < len(parts); {
		switch {
		case at < len(pattern) && pattern[at] == "**":
			stars, tried = at, i
			at++
		case at < len(pattern) && component(pattern[at], parts[i]):
			at++
			i++
		case stars >= 0:
			tried++
			at, i = stars+1, tried
		default:
			return false
		}
	}
	for at < len(pattern) && pattern[at] == "**" {
		at++
	}
	return at == len(pattern)
}

func component(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return err == nil && ok // checkPatterns has seen each error
}

// checkPatterns refuses patterns that could not match what the operator meant.
func checkPatterns(patterns []string) error {
	for _, p := range patterns {
		clean := strings.Trim(p, "/")
		if clean == "" || clean != p || path.Clean(p) != p || p == "." || p == ".." || strings.HasPrefix(p, "../") {
			return fmt.Errorf("exclude %q: write a path below the volume, without . and .. and without a / at either end", p)
		}
		for part := range strings.SplitSeq(p, "/") {
			if _, err := path.Match(part, ""); err != nil {
				return fmt.Errorf("exclude %q: %q is not a valid pattern", p, part)
			}
			if strings.Contains(part, "**") && part != "**" {
				return fmt.Errorf("exclude %q: ** must stand alone between two slashes", p)
			}
		}
	}
	return nil
}
