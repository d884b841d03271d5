package docker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// resume brings a Compose workload back: containers that still exist as they
// were, and those that Compose has replaced or that are gone by making them
// anew on the images they had.
func (a *composeApp) resume(ctx context.Context, before []runtime.Container) error {
	p, err := a.config(ctx)
	if err != nil {
		return err
	}
	own, err := list(ctx, a.e, a)
	if err != nil {
		return err
	}
	var here, gone []runtime.Container
	pins := map[string]runtime.Pin{}
	for _, c := range before {
		if c.Also {
			continue
		}
		pins[c.Service] = runtime.Pin{Image: c.Image, ImageID: c.ImageID, Digest: c.Digest}
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
		takesOver := slices.ContainsFunc(gone, func(c runtime.Container) bool { return c.Name == b.Name })
		if recorded(before, b.ID) || takesOver {
			continue
		}
		if err := a.e.discard(ctx, b, 0); err != nil {
			return err
		}
	}
	if len(gone) > 0 {
		if err := a.makeAnew(ctx, p, gone, pins); err != nil {
			return err
		}
	}
	return errors.Join(a.bringBack(ctx, here, gone), a.e.restoreAlso(ctx, before))
}

// canMake refuses when a container could not be made anew, before anything
// that might stand for it is touched.
func (a *composeApp) canMake(ctx context.Context, p *project, gone []runtime.Container) error {
	for _, c := range gone {
		if _, ok := p.Services[c.Service]; !ok {
			return fmt.Errorf("workload %s: container %s is gone, and %s has no service %q any more to make it from", a.w.Name, c.Name, a.w.Compose, c.Service)
		}
		pin := runtime.Pin{Image: c.Image, ImageID: c.ImageID, Digest: c.Digest}
		if err := a.e.checkPin(ctx, pin, c.Image); err != nil {
			return fmt.Errorf("workload %s: container %s is gone: %w", a.w.Name, c.Name, err)
		}
	}
	return nil
}

// makeAnew makes the containers that are gone, and does not start them.
func (a *composeApp) makeAnew(ctx context.Context, p *project, gone []runtime.Container, pins map[string]runtime.Pin) error {
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
	_, err = a.cli.run(ctx, override, append(args, services...)...)
	return err
}

// bringBack brings each container to its recorded state: those that are here,
// and, by the name that Compose gives by rule, those that were made anew. What
// shall not run is stopped first, then the others start in the order that the
// Compose file asks for.
func (a *composeApp) bringBack(ctx context.Context, here, gone []runtime.Container) error {
	var idle, run []*box
	wants := map[string]runtime.Container{}
	var errs []error
	for i, want := range slices.Concat(here, gone) {
		id := want.ID
		if i >= len(here) {
			id = want.Name
		}
		b, err := a.e.inspect(ctx, id)
		switch {
		case err != nil:
			return err
		case b == nil:
			errs = append(errs, fmt.Errorf("container %s is gone, and docker compose did not make it again", want.Name))
			continue
		}
		wants[b.ID] = want
		if want.Running {
			run = append(run, b)
		} else {
			idle = append(idle, b)
		}
	}
	for _, b := range append(idle, inOrder(run)...) {
		want := wants[b.ID]
		err := a.e.rename(ctx, b, want.Name)
		if err == nil && want.Running && !b.Running {
			err = a.e.awaitDependencies(ctx, b, run)
		}
		if err == nil {
			err = a.e.restore(ctx, b, want)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
