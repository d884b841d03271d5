package docker

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

// FenceAndStop sets every restart policy before it stops the first container: a
// reboot would otherwise start those that it has already stopped.
func (r *Runtime) FenceAndStop(ctx context.Context, timeout time.Duration) error {
	containers, err := r.inspectAll(ctx)
	if err != nil {
		return err
	}
	if err := refuseToStop(containers); err != nil {
		return err
	}
	if err := r.e.fenceAndStop(ctx, containers, timeout); err != nil {
		return err
	}
	// Look again: somebody may have started or made a container meanwhile.
	if containers, err = r.inspectAll(ctx); err != nil {
		return err
	}
	if c := first(containers, func(c *inspected) bool { return c.Running }); c != nil {
		return fmt.Errorf("container %s runs again after it was stopped: something else starts it", c.Name)
	}
	return nil
}

func (e *engine) fenceAndStop(ctx context.Context, containers []*inspected, timeout time.Duration) error {
	for _, c := range containers {
		if err := e.setPolicy(ctx, c, never); err != nil {
			return err
		}
	}
	return each(containers, func(c *inspected) error { return e.stop(ctx, c, timeout) })
}

// each calls f for all containers at once and joins the errors. If a call panics,
// each panics when all calls have ended.
func each(containers []*inspected, f func(*inspected) error) error {
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

// stop stops a container, kills it when it does not stop, and returns nil only
// when it no longer runs. A paused one is unpaused first, to hear the signal.
func (e *engine) stop(ctx context.Context, c *inspected, timeout time.Duration) error {
	if !c.Running {
		return nil
	}
	if c.Paused {
		if err := e.setPaused(ctx, c, false); err != nil && !refused(err) {
			return err
		}
	}
	started := c.raw.State.StartedAt
	err := failed(e.api.ContainerStop(ctx, c.ID, container.StopOptions{Timeout: seconds(timeout)}), "stop container %s", c.Name)
	for deadline := time.Now().Add(15 * time.Second); ; {
		now, lookErr := e.inspect(ctx, c.ID)
		if lookErr != nil {
			return errors.Join(err, lookErr)
		}
		if now == nil || !now.Running {
			c.Running, c.Paused = false, false
			return nil
		}
		if time.Now().After(deadline) {
			if now.raw.State.StartedAt != started {
				return fmt.Errorf("stop container %s: it was stopped, and something else started it again at %s", c.Name, now.raw.State.StartedAt)
			}
			return cmp.Or(err, fmt.Errorf("stop container %s: it still runs after a kill", c.Name))
		}
		if killErr := e.api.ContainerKill(ctx, c.ID, "SIGKILL"); err == nil {
			err = failed(killErr, "kill container %s", c.Name)
		}
		if waitErr := sleep(ctx, 200*time.Millisecond); waitErr != nil {
			return errors.Join(err, waitErr)
		}
	}
}

// discard stops and removes containers that are in the way.
func (e *engine) discard(ctx context.Context, containers []*inspected, timeout time.Duration) error {
	if err := e.fenceAndStop(ctx, containers, timeout); err != nil {
		return err
	}
	for _, c := range containers {
		if err := e.remove(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// seconds is a timeout in the engine's unit, rounded up; nil for none.
func seconds(d time.Duration) *int {
	if d <= 0 {
		return nil
	}
	s := int((d + time.Second - 1) / time.Second)
	return &s
}

// restore brings one container from any state to the recorded one. It sets the policy
// before the start: if the container exits at once, the engine restarts it as before.
func (e *engine) restore(ctx context.Context, c *inspected, want runtime.Container) error {
	if !want.Running {
		if err := e.stop(ctx, c, 0); err != nil {
			return err
		}
		return e.setPolicy(ctx, c, want.Policy)
	}
	if err := e.setPolicy(ctx, c, want.Policy); err != nil {
		return err
	}
	if !c.Running {
		if err := e.startAgain(ctx, c); err != nil {
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
	if err := e.calm(ctx, []*inspected{c}); err != nil {
		return err
	}
	return e.setPaused(ctx, c, true)
}

// restoreAlso brings the containers of also_stop back as they were recorded. One that
// is gone or does not start is only a notice: its owner may have replaced it.
func (e *engine) restoreAlso(ctx context.Context, before []runtime.Container) error {
	for _, want := range before {
		if !want.Also {
			continue
		}
		c, err := e.inspect(ctx, want.ID)
		if err != nil {
			return err
		}
		if c == nil {
			e.notice(fmt.Sprintf("container %s of also_stop is gone; snap did not start it again", want.Name))
			continue
		}
		if err = e.restore(ctx, c, want); refused(err) {
			e.notice(fmt.Sprintf("container %s of also_stop is not back as it was: %v", want.Name, err))
		} else if err != nil {
			return err
		}
	}
	return nil
}
