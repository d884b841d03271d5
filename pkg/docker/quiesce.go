package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// Quiesce leaves containers that are paused already as they are, and so does the
// thaw. Before a pause it waits, a few seconds at most, until no health probe is
// starting; all containers still run meanwhile.
func (r *Runtime) Quiesce(ctx context.Context, mode string, timeout time.Duration) (runtime.Thaw, error) {
	switch mode {
	case runtime.None:
		return func(context.Context) error { return nil }, nil
	case runtime.Pause, runtime.Stop:
	default:
		return nil, fmt.Errorf("quiesce mode %q: must be %s, %s or %s", mode, runtime.Pause, runtime.Stop, runtime.None)
	}
	containers, err := r.inspectAll(ctx)
	if err != nil {
		return nil, err
	}
	chosen := slices.DeleteFunc(slices.Clone(containers), func(c *inspected) bool { return !c.Awake() })
	if mode == runtime.Stop {
		err = refuseToStop(containers)
	} else {
		err = r.e.calm(ctx, chosen)
	}
	if err != nil {
		return nil, err
	}
	thaw := r.e.thaw(chosen)
	// The engine may carry out a request that was cut off after snap has looked
	// whether it did. So pausing, which takes no time, is not cut off.
	uncut, cancel := detached(ctx)
	defer cancel()
	err = each(chosen, func(c *inspected) error {
		if mode == runtime.Stop {
			return r.e.stop(ctx, c, timeout)
		}
		return r.e.setPaused(uncut, c, true)
	})
	if err = cmp.Or(err, ctx.Err()); err != nil {
		return nil, errors.Join(err, thaw(ctx))
	}
	return thaw, nil
}

// thaw returns the function that brings these containers back, each once, even after
// its context has ended.
func (e *engine) thaw(containers []*inspected) runtime.Thaw {
	var mu sync.Mutex
	left := inOrder(containers)
	return func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		ctx, cancel := detached(ctx)
		defer cancel()
		// First all that are frozen, at once; then those that were stopped, in
		// their order.
		err := each(left, func(c *inspected) error { _, err := e.unfreeze(ctx, c.ID); return err })
		var errs []error
		left = slices.DeleteFunc(left, func(c *inspected) bool {
			err := e.wake(ctx, c, containers)
			errs = append(errs, err)
			return err == nil
		})
		return errors.Join(append(errs, err)...)
	}
}

// unfreeze unpauses a container and returns it, nil where it is gone, once the
// engine no longer shows it paused: an engine that learns late of a pause shows a
// container paused for a moment that is not.
func (e *engine) unfreeze(ctx context.Context, id string) (*inspected, error) {
	deadline := time.Now().Add(15 * time.Second)
	for wait := time.Duration(0); ; wait = poll { // mostly the first unpause does it
		now, err := e.inspect(ctx, id)
		if err != nil || now == nil || !now.Paused {
			return now, err
		}
		if err = e.setPaused(ctx, now, false); err != nil && !refused(err) {
			return nil, err
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("container %.12s is still paused", id), err)
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

func (e *engine) wake(ctx context.Context, c *inspected, all []*inspected) error {
	now, err := e.unfreeze(ctx, c.ID)
	switch {
	case err != nil:
		return err
	case now == nil:
		return fmt.Errorf("container %s cannot be brought back: it was removed meanwhile", c.Name)
	case now.Running:
		return nil
	}
	if err := e.awaitDependencies(ctx, now, all); err != nil {
		return err
	}
	return e.startAgain(ctx, now)
}

const (
	// probeStarts is how long a probe that is due may take to start.
	probeStarts = 2 * time.Second
	// pauseTakes is longer than it takes to pause a container after a look at it.
	pauseTakes = 250 * time.Millisecond
	// calmPatience bounds the wait for a moment without a probe: some checks run
	// one probe right after another.
	calmPatience = 4 * time.Second
)

// calm waits, a few seconds at most, until no health probe is starting in any of the
// containers. `runc exec` joins the container's cgroup before it has started the
// probe. Frozen there by a pause, it never reports that it has, and the container's
// shim answers nobody until the engine gives the probe up, after 30 s unless
// configured: an unpause, an update or a stop does not get through.
func (e *engine) calm(ctx context.Context, containers []*inspected) error {
	containers = slices.Clone(containers)
	for deadline := time.Now().Add(calmPatience); ; {
		now := time.Now()
		if now.After(deadline) || !slices.ContainsFunc(containers, func(c *inspected) bool { return probed(&c.raw, now) }) {
			return nil
		}
		if err := sleep(ctx, poll/5); err != nil {
			return err
		}
		for i, c := range containers {
			fresh, err := e.inspect(ctx, c.ID)
			if err != nil {
				return err
			}
			if fresh != nil {
				containers[i] = fresh
			}
		}
	}
}

// probed says whether the engine is about to start a probe in a container, or may
// be starting one.
func probed(c *container.InspectResponse, now time.Time) bool {
	due, ok := nextProbe(c)
	if !ok {
		return false
	}
	return now.After(due.Add(-min(pauseTakes, intervalOf(c.Config.Healthcheck)/2))) && now.Before(due.Add(probeStarts))
}
