package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// resume makes the containers that are gone, or that Compose has replaced, anew on
// the images that they had, and brings all to their recorded state.
func (a *composeApp) resume(ctx context.Context, before []runtime.Container) error {
	p, err := a.config(ctx)
	if err != nil {
		return err
	}
	own, err := a.own(ctx)
	if err != nil {
		return err
	}
	var gone runtime.Containers
	for _, was := range before {
		if !was.Also && byID(own, was.ID) == nil {
			gone = append(gone, was)
		}
	}
	if err := a.canMake(ctx, p, gone); err != nil {
		return err
	}
	// The others are removed, except one with the name of a container that is
	// gone: Compose takes it over, or replaces it where its image is another.
	others := slices.DeleteFunc(own, func(c *inspected) bool {
		takenOver := slices.ContainsFunc(gone, func(was runtime.Container) bool { return was.Name == c.Name })
		return takenOver || recorded(before, c.ID) != nil
	})
	if err := a.e.discard(ctx, others, 0); err != nil {
		return err
	}
	if err := a.makeAnew(ctx, p, gone.Pins()); err != nil {
		return err
	}
	return errors.Join(a.bringBack(ctx, before), a.e.restoreAlso(ctx, before))
}

// canMake refuses when a container that is gone could not be made anew. It comes
// first, while whatever else may serve the app is still there.
func (a *composeApp) canMake(ctx context.Context, p *project, gone []runtime.Container) error {
	for _, c := range gone {
		if _, ok := p.Services[c.Service]; !ok {
			return fmt.Errorf("workload %s: container %s is gone, and %s no longer has the service %q to make it from", a.w.Name, c.Name, a.w.Compose, c.Service)
		}
		if err := a.e.checkPin(ctx, c.Pin(), c.Image); err != nil {
			return fmt.Errorf("workload %s: container %s is gone: %w", a.w.Name, c.Name, err)
		}
	}
	return nil
}

// makeAnew makes the missing containers of these services, and does not start them.
func (a *composeApp) makeAnew(ctx context.Context, p *project, pins map[string]runtime.Pin) error {
	if len(pins) == 0 {
		return nil
	}
	override, err := a.override(ctx, p, pins)
	if err != nil {
		return err
	}
	args := []string{"up", "--no-start", "--no-build", "--pull", "never", "--no-deps"}
	_, err = a.compose(ctx, override, append(args, slices.Sorted(maps.Keys(pins))...)...)
	return err
}

// bringBack brings each container to its recorded state. One that was made anew has
// the name that Compose always gives. What shall not run stops first; then the others
// start in the order that the Compose file asks for.
func (a *composeApp) bringBack(ctx context.Context, before []runtime.Container) error {
	own, err := a.own(ctx)
	if err != nil {
		return err
	}
	var idle, run []*inspected
	wants := map[string]runtime.Container{}
	var errs []error
	for _, want := range before {
		if want.Also {
			continue
		}
		c := cmp.Or(byID(own, want.ID), byName(own, want.Name))
		if c == nil {
			errs = append(errs, fmt.Errorf("container %s is gone, and docker compose did not make it again", want.Name))
			continue
		}
		wants[c.ID] = want
		if want.Running {
			run = append(run, c)
		} else {
			idle = append(idle, c)
		}
	}
	for _, c := range append(idle, inOrder(run)...) {
		want := wants[c.ID]
		err := a.e.rename(ctx, c, want.Name)
		if err == nil && want.Running && !c.Running {
			err = a.e.awaitDependencies(ctx, c, run)
		}
		if err == nil {
			err = a.e.restore(ctx, c, want)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// composeDepends lists what a container of Compose waits for:
// "db:service_healthy:false,job:service_completed_successfully:false".
const composeDepends = "com.docker.compose.depends_on"

// dependencies returns the services that c starts after, each with its condition.
func dependencies(c *inspected) map[string]string {
	out := map[string]string{}
	for item := range strings.SplitSeq(c.raw.Config.Labels[composeDepends], ",") {
		if parts := strings.Split(item, ":"); len(parts) > 1 {
			out[parts[0]] = parts[1]
		}
	}
	return out
}

// inOrder sorts containers so that each comes after those it depends on. Those
// that depend on nothing, or on one another, keep their order.
func inOrder(containers []*inspected) []*inspected {
	var out []*inspected
	visiting := map[string]bool{}
	var visit func(c *inspected)
	visit = func(c *inspected) {
		if visiting[c.ID] {
			return
		}
		visiting[c.ID] = true
		deps := dependencies(c)
		for _, other := range containers {
			if deps[other.Service] != "" {
				visit(other)
			}
		}
		out = append(out, c)
	}
	for _, c := range containers {
		visit(c)
	}
	return out
}

// awaitDependencies waits until the containers that c wants healthy are so, or say
// that they are not, each for 30 s at most: c is started in any case.
func (e *engine) awaitDependencies(ctx context.Context, c *inspected, containers []*inspected) error {
	for service, condition := range dependencies(c) {
		other := first(containers, func(o *inspected) bool { return o.Service == service })
		if condition != "service_healthy" || other == nil {
			continue
		}
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
			now, err := e.inspect(ctx, other.ID)
			if err != nil {
				return err
			}
			if now == nil || !now.active() || now.health() != container.Starting {
				break
			}
			if err := sleep(ctx, poll); err != nil {
				return err
			}
		}
	}
	return nil
}
