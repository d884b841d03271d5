package docker

import (
	"context"
	"errors"
	"slices"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// match is a recorded container and the one that stands for it now.
type match struct {
	want runtime.Container
	now  *box // nil: it is gone and must be made
	make wanted
}

// resume brings an image workload back as it was recorded. What a redeploy made
// besides goes only after it is certain that everything recorded is there or
// can be made: until then the last container of the workload may be among it.
func (a *imageApp) resume(ctx context.Context, before []runtime.Container) error {
	old, others, err := a.split(ctx, before)
	if err != nil {
		return err
	}
	matches, rest, err := a.match(ctx, before, old, others)
	if err != nil {
		return err
	}
	if err := a.e.discardAll(ctx, rest, 0); err != nil {
		return err
	}
	// Those that shall not run come first: they may hold what the others need.
	slices.SortStableFunc(matches, func(x, y match) int { return rank(x) - rank(y) })
	var errs []error
	for _, m := range matches {
		errs = append(errs, a.bringBack(ctx, m, old))
	}
	return errors.Join(append(errs, a.e.restoreAlso(ctx, before))...)
}

func rank(m match) int {
	if m.want.Running {
		return 1
	}
	return 0
}

// match finds who stands for each recorded container: itself; where it is gone,
// one that an earlier redeploy or resume made from the same config and image;
// or one to be made. The rest is in nobody's place.
func (a *imageApp) match(ctx context.Context, before []runtime.Container, old, others []*box) (matches []match, rest []*box, err error) {
	rest = others
	for _, want := range before {
		if want.Also {
			continue
		}
		m := match{want: want}
		if i := slices.IndexFunc(old, func(b *box) bool { return b.ID == want.ID }); i >= 0 {
			m.now = old[i]
		} else {
			// One that neither ran nor bears the workload's name is an earlier
			// redeploy's remains: nothing is lost with it.
			if !want.Running && want.Name != a.w.ContainerName {
				continue
			}
			pin := runtime.Pin{Image: want.Image, ImageID: want.ImageID, Digest: want.Digest}
			if m.make, err = a.want(ctx, pin, false); err != nil {
				return nil, nil, err
			}
			if i := slices.IndexFunc(rest, m.make.is); i >= 0 {
				m.now = rest[i]
				rest = slices.Delete(slices.Clone(rest), i, i+1)
			}
		}
		matches = append(matches, m)
	}
	return matches, rest, nil
}

func (a *imageApp) bringBack(ctx context.Context, m match, old []*box) error {
	b := m.now
	if b == nil {
		var err error
		if b, err = a.create(ctx, m.want.Name, m.make, old); err != nil {
			return err
		}
	}
	if err := a.e.rename(ctx, b, m.want.Name); err != nil {
		return err
	}
	return a.e.restore(ctx, b, m.want)
}
