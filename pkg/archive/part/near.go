package part

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/near"
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
			if score, like := near.Score(missing[i].Name, l.Name); like {
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
