package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/tiny-forge/snap/pkg/crew"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// FenceAndStop fences all containers, and then stops them at once: a reboot would
// otherwise start those that it has already stopped. To fence is to set the restart
// policy [Never].
func (e *Engine) FenceAndStop(ctx context.Context, containers []*Container, timeout time.Duration) error {
	for _, c := range containers {
		if err := e.SetPolicy(ctx, c, Never); err != nil {
			return err
		}
	}
	return Each(containers, func(c *Container) error { return e.Stop(ctx, c, timeout) })
}

// Each calls f for all containers at once and joins the errors. If a call panics,
// Each panics when all calls have ended.
func Each(containers []*Container, f func(*Container) error) error {
	errs := make([]error, len(containers))
	var wg sync.WaitGroup
	for i, c := range containers {
		wg.Go(func() { errs[i] = crew.Catch(func() error { return f(c) }) })
	}
	wg.Wait()
	err := errors.Join(errs...)
	crew.Raise(err)
	return err
}

// Stop stops a container, kills it when it does not stop, and returns nil only
// when it no longer runs. A paused one is unpaused first, to hear the signal.
func (e *Engine) Stop(ctx context.Context, c *Container, timeout time.Duration) error {
	if !c.Running {
		return nil
	}
	if c.Paused {
		if err := e.SetPaused(ctx, c, false); err != nil && !Refused(err) {
			return err
		}
	}
	started := c.Raw.State.StartedAt
	err := Failed(e.API.ContainerStop(ctx, c.ID, container.StopOptions{Timeout: Seconds(timeout)}), "stop container %s", c.Name)
	for deadline := time.Now().Add(15 * time.Second); ; {
		now, lookErr := e.Inspect(ctx, c.ID)
		if lookErr != nil {
			return errors.Join(err, lookErr)
		}
		if now == nil || !now.Running {
			c.Running, c.Paused = false, false
			return nil
		}
		if time.Now().After(deadline) {
			if now.Raw.State.StartedAt != started {
				return fmt.Errorf("stop container %s: it was stopped, and something else started it again at %s", c.Name, now.Raw.State.StartedAt)
			}
			return cmp.Or(err, fmt.Errorf("stop container %s: it still runs after a kill", c.Name))
		}
		if killErr := e.API.ContainerKill(ctx, c.ID, "SIGKILL"); err == nil {
			err = Failed(killErr, "kill container %s", c.Name)
		}
		if waitErr := sleep(ctx, 200*time.Millisecond); waitErr != nil {
			return errors.Join(err, waitErr)
		}
	}
}

// Discard stops and removes containers that are in the way.
func (e *Engine) Discard(ctx context.Context, containers []*Container, timeout time.Duration) error {
	if err := e.FenceAndStop(ctx, containers, timeout); err != nil {
		return err
	}
	for _, c := range containers {
		if err := e.Remove(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// Seconds is a timeout in the engine's unit, rounded up; nil for none.
func Seconds(d time.Duration) *int {
	if d <= 0 {
		return nil
	}
	s := int((d + time.Second - 1) / time.Second)
	return &s
}

// Restore brings one container from any state to the recorded one. It sets the policy
// before the start: if the container exits at once, the engine restarts it as before.
func (e *Engine) Restore(ctx context.Context, c *Container, want runtime.Container) error {
	if !want.Running {
		if err := e.Stop(ctx, c, 0); err != nil {
			return err
		}
		return e.SetPolicy(ctx, c, want.Policy)
	}
	if err := e.SetPolicy(ctx, c, want.Policy); err != nil {
		return err
	}
	if !c.Running {
		if err := e.StartAgain(ctx, c); err != nil {
			return err
		}
	}
	switch {
	case c.Paused == want.Paused:
		return nil
	case c.Paused:
		_, err := e.unfreeze(ctx, c.ID)
		return err
	}
	if err := e.Calm(ctx, []*Container{c}); err != nil {
		return err
	}
	return e.SetPaused(ctx, c, true)
}

// RestoreAlso brings the containers of also_stop back as they were recorded. One that
// is gone or does not start is only a notice: its owner may have replaced it.
func (e *Engine) RestoreAlso(ctx context.Context, before []runtime.Container) error {
	for _, want := range before {
		if !want.Also {
			continue
		}
		c, err := e.Inspect(ctx, want.ID)
		if err != nil {
			return err
		}
		if c == nil {
			e.Notice(fmt.Sprintf("container %s of also_stop is gone; snap did not start it again", want.Name))
			continue
		}
		if err = e.Restore(ctx, c, want); Refused(err) {
			e.Notice(fmt.Sprintf("container %s of also_stop is not back as it was: %v", want.Name, err))
		} else if err != nil {
			return err
		}
	}
	return nil
}
