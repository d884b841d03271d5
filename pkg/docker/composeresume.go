package docker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tiny-forge/snap/pkg/journal"
)

// resume brings a Compose workload back: containers that still exist as they
// were, and those that Compose has replaced or that are gone by making them
// anew on the images they had.
func (a *composeApp) resume(ctx context.Context, before []journal.Container) error {
	p, err := a.config(ctx)
	if err != nil {
		return err
	}
	own, err := list(ctx, a.e, a)
	if err != nil {
		return err
	}
	var here, gone []journal.Container
	pins := map[string]journal.Pin{}
	for _, c := range before {
		if c.Also {
			continue
		}
		pins[c.Service] = journal.Pin{Image: c.Image, ImageID: c.ImageID, Digest: c.Digest}
		switch {
		case slices.ContainsFunc(own, func(b *box) bool { return b.ID == c.ID }):
			here = append(here, c)
		default:
			gone = append(gone, c)
		}
	}
	if err := a.canMake(ctx, p, gone); err != nil {
		return err
	}
	// Others go, except those that bear the name of one that is gone: Compose
	// takes them over, or replaces them where their image is another.
	for _, b := range own {
		takesOver := slices.ContainsFunc(gone, func(c journal.Container) bool { return c.Name == b.Name })
		if recorded(before, b.ID) || takesOver {
			continue
		}
		if err := a.e.discard(ctx, b, 0); err != nil {
			return err
		}
	}
	var errs []error
	for _, c := range here {
		errs = append(errs, a.bringBack(ctx, c.ID, c))
	}
	if len(gone) > 0 {
		errs = append(errs, a.makeAnew(ctx, p, gone, pins))
	}
	return errors.Join(append(errs, a.e.restoreAlso(ctx, before))...)
}

// canMake refuses when a container could not be made anew, before anything
// that might stand for it is touched.
func (a *composeApp) canMake(ctx context.Context, p *project, gone []journal.Container) error {
	for _, c := range gone {
		if _, ok := p.Services[c.Service]; !ok {
			return fmt.Errorf("workload %s: container %s is gone, and %s has no service %q any more to make it from", a.w.Name, c.Name, a.w.Compose, c.Service)
		}
		pin := journal.Pin{Image: c.Image, ImageID: c.ImageID, Digest: c.Digest}
		if err := a.e.checkPin(ctx, pin, c.Image); err != nil {
			return fmt.Errorf("workload %s: container %s is gone: %w", a.w.Name, c.Name, err)
		}
	}
	return nil
}

// makeAnew makes the containers that are gone, without starting them, and then
// brings each to its recorded state by its name, which Compose gives by rule.
func (a *composeApp) makeAnew(ctx context.Context, p *project, gone []journal.Container, pins map[string]journal.Pin) error {
	override, err := a.override(ctx, p, pins)
	if err != nil {
		return err
	}
	args := []string{"up", "--no-start", "--no-build", "--pull", "never", "--no-deps"}
	var services []string
	for _, c := range gone {
		if !slices.Contains(services, c.Service) {
			services = append(services, c.Service)
		}
	}
	if _, err := a.cli.run(ctx, override, append(args, services...)...); err != nil {
		return err
	}
	var errs []error
	for _, c := range gone {
		errs = append(errs, a.bringBack(ctx, c.Name, c))
	}
	return errors.Join(errs...)
}

func (a *composeApp) bringBack(ctx context.Context, id string, want journal.Container) error {
	b, err := a.e.inspect(ctx, id)
	if err != nil {
		return err
	}
	if b == nil {
		return fmt.Errorf("container %s is gone, and docker compose did not make it again", want.Name)
	}
	if err := a.e.rename(ctx, b, want.Name); err != nil {
		return err
	}
	return a.e.restore(ctx, b, want)
}
