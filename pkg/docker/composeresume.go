package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tiny-forge/snap/pkg/docker/engine"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// resume makes the containers that are gone, or that Compose has replaced, anew on
// the images that they had, and brings all to their recorded state.
func (a *composeApp) resume(ctx context.Context, before []runtime.Container) error {
	own, err := a.own(ctx)
	if err != nil {
		return err
	}
	var gone runtime.Containers
	for _, was := range before {
		if !was.Also && !was.OneOff && engine.ByID(own, was.ID) == nil {
			gone = append(gone, was)
		}
	}
	v := &composeView{before: before, own: own}
	if len(gone) > 0 {
		if v.project, err = a.config(ctx); err != nil {
			return err
		}
		if v.cli, err = a.command(ctx); err != nil {
			return err
		}
	}
	if err := a.canMake(ctx, v, gone); err != nil {
		return err
	}
	// The others are removed, except one with the name of a container that is
	// gone: Compose takes it over, or replaces it where its image is another. What
	// somebody runs with docker compose run is left alone.
	others := slices.DeleteFunc(own, func(c *engine.Container) bool {
		takenOver := slices.ContainsFunc(gone, func(was runtime.Container) bool { return was.Name == c.Name })
		return takenOver || c.OneOff || recorded(before, c.ID) != nil
	})
	if err := a.e.Discard(ctx, others, 0); err != nil {
		return err
	}
	if err := a.makeAnew(ctx, v, gone); err != nil {
		return err
	}
	return errors.Join(a.bringBack(ctx, v), a.e.RestoreAlso(ctx, before))
}

// canMake refuses when a container that is gone could not be made anew. It comes
// first, while whatever else may serve the app is still there.
func (a *composeApp) canMake(ctx context.Context, v *composeView, gone []runtime.Container) error {
	for _, c := range gone {
		if !v.makes(c) {
			return fmt.Errorf("workload %s: container %s is gone, and %s no longer has the service %q to make it from", a.w.Name, c.Name, strings.Join(v.cli.Files, ", "), c.Service)
		}
		if err := a.e.CheckPin(ctx, c.Pin(), c.Image); err != nil {
			return fmt.Errorf("workload %s: container %s is gone: %w", a.w.Name, c.Name, err)
		}
	}
	return nil
}

// makeAnew makes the containers that are gone, and does not start them.
func (a *composeApp) makeAnew(ctx context.Context, v *composeView, gone runtime.Containers) error {
	if len(gone) == 0 {
		return nil
	}
	fates := make([]runtime.Fate, len(gone))
	for i, was := range gone {
		fates[i] = runtime.Fate{Container: was, Then: runtime.MadeAnew, Up: gone.Pins()[was.Service]}
	}
	var err error
	if v.override, err = a.override(ctx, v, fates); err != nil {
		return err
	}
	services := slices.Sorted(maps.Keys(gone.Pins()))
	up := func() error { return a.upOnly(ctx, v, services, "--no-start") }
	made, err := a.keepingEmpty(ctx, v, services, up)
	if err == nil && !made {
		err = up()
	}
	return err
}

func (a *composeApp) upOnly(ctx context.Context, v *composeView, services []string, how ...string) error {
	args := append([]string{"up", "--no-build", "--pull", "never", "--no-deps"}, how...)
	args = append(append(args, v.scale(services)...), services...)
	_, _, err := v.profiled().Run(ctx, v.override, args...)
	return err
}

// startMade starts a container that was made anew. Compose puts configs and secrets
// that are no files into a container right before it starts it; so it must start the
// service, and what of it shall not run is stopped again.
func (a *composeApp) startMade(ctx context.Context, v *composeView, c *engine.Container, idle []*engine.Container) error {
	s := v.Services[c.Service]
	if s.Configs == nil && s.Secrets == nil {
		return nil
	}
	if err := a.upOnly(ctx, v, []string{c.Service}, "-d", "--no-recreate"); err != nil {
		return err
	}
	c.Running = true
	for _, other := range idle {
		if other.Service != c.Service {
			continue
		}
		now, err := a.e.Inspect(ctx, other.ID)
		if err == nil && now != nil {
			err = a.e.Stop(ctx, now, 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bringBack brings each container to its recorded state. What shall not run stops
// first; then the others start in the order that the Compose file asks for.
func (a *composeApp) bringBack(ctx context.Context, v *composeView) error {
	before := v.before
	own, err := a.own(ctx)
	if err != nil {
		return err
	}
	var idle, run []*engine.Container
	wants := map[string]runtime.Container{}
	var errs []error
	taken := map[string]bool{}
	for _, want := range before {
		if want.Also {
			continue
		}
		c := stands(own, want, before, taken)
		if c == nil {
			errs = append(errs, fmt.Errorf("container %s is gone, and docker compose did not make it again", want.Name))
			continue
		}
		taken[c.ID] = true
		wants[c.ID] = want
		if want.Running {
			run = append(run, c)
		} else {
			idle = append(idle, c)
		}
	}
	for _, c := range append(idle, engine.InOrder(run)...) {
		want := wants[c.ID]
		err := a.e.Rename(ctx, c, want.Name)
		if err == nil && want.Running && !c.Running {
			err = a.e.AwaitDependencies(ctx, c, run)
			if err == nil && recorded(before, c.ID) == nil {
				err = a.startMade(ctx, v, c, idle)
			}
		}
		if err == nil {
			err = a.e.Restore(ctx, c, want)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// stands returns the container that stands for a recorded one, or nil: itself, or the
// one that was made anew. That has the name that Compose always gives, or, among
// several of a service, another number.
func stands(own []*engine.Container, want runtime.Container, before []runtime.Container, taken map[string]bool) *engine.Container {
	if c := engine.ByID(own, want.ID); c != nil {
		return c
	}
	if c := engine.ByName(own, want.Name); c != nil {
		return c
	}
	i := slices.IndexFunc(own, func(c *engine.Container) bool {
		spoken := taken[c.ID] || slices.ContainsFunc(before, func(b runtime.Container) bool { return b.ID == c.ID || b.Name == c.Name })
		return c.Service == want.Service && c.OneOff == want.OneOff && !spoken
	})
	if i < 0 {
		return nil
	}
	return own[i]
}
