package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// Thaw returns the function that brings these containers back, each once, even after
// its context has ended.
func (e *Engine) Thaw(containers []*Container) runtime.Thaw {
	var mu sync.Mutex
	left := InOrder(containers)
	return func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		ctx, cancel := Detached(ctx)
		defer cancel()
		// First all that are frozen, at once; then those that were stopped, in
		// their order.
		err := Each(left, func(c *Container) error { _, err := e.unfreeze(ctx, c.ID); return err })
		var errs []error
		left = slices.DeleteFunc(left, func(c *Container) bool {
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
func (e *Engine) unfreeze(ctx context.Context, id string) (*Container, error) {
	deadline := time.Now().Add(15 * time.Second)
	for wait := time.Duration(0); ; wait = poll { // mostly the first unpause does it
		now, err := e.Inspect(ctx, id)
		if err != nil || now == nil || !now.Paused {
			return now, err
		}
		if err = e.SetPaused(ctx, now, false); err != nil && !Refused(err) {
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

func (e *Engine) wake(ctx context.Context, c *Container, all []*Container) error {
	now, err := e.unfreeze(ctx, c.ID)
	switch {
	case err != nil:
		return err
	case now == nil:
		return fmt.Errorf("container %s cannot be brought back: it was removed meanwhile", c.Name)
	case now.Running:
		return nil
	}
	if err := e.AwaitDependencies(ctx, now, all); err != nil {
		return err
	}
	return e.StartAgain(ctx, now)
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

// Calm waits, a few seconds at most, until no health probe is starting in any of the
// containers. `runc exec` joins the container's cgroup before it has started the
// probe. Frozen there by a pause, it never reports that it has, and the container's
// shim answers nobody until the engine gives the probe up, after 30 s unless
// configured: an unpause, an update or a stop does not get through.
func (e *Engine) Calm(ctx context.Context, containers []*Container) error {
	containers = slices.Clone(containers)
	for deadline := time.Now().Add(calmPatience); ; {
		now := time.Now()
		if now.After(deadline) || !slices.ContainsFunc(containers, func(c *Container) bool { return probed(&c.Raw, now) }) {
			return nil
		}
		if err := sleep(ctx, poll/5); err != nil {
			return err
		}
		for i, c := range containers {
			fresh, err := e.Inspect(ctx, c.ID)
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
