package docker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/tiny-forge/snap/pkg/crew"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// FenceAndStop sets every restart policy to "no" before it stops the first
// container: between the two a reboot would otherwise start some of them. A
// paused container is unpaused to be stopped, as it could not hear the signal.
func (r *Runtime) FenceAndStop(ctx context.Context, timeout time.Duration) error {
	boxes, err := r.boxes(ctx)
	if err != nil {
		return err
	}
	if err := refuseAutoRemove(boxes); err != nil {
		return err
	}
	if err := r.e.fenceAndStop(ctx, boxes, timeout); err != nil {
		return err
	}
	// Asked anew: somebody may have started one, or made another, meanwhile.
	if boxes, err = r.boxes(ctx); err != nil {
		return err
	}
	for _, b := range boxes {
		if b.Running {
			return fmt.Errorf("container %s runs again after it was stopped: something else starts it", b.Name)
		}
	}
	return nil
}

func (e *engine) fenceAndStop(ctx context.Context, boxes []*box, timeout time.Duration) error {
	for _, b := range boxes {
		if err := e.setPolicy(ctx, b, never); err != nil {
			return err
		}
	}
	return each(boxes, func(_ int, b *box) error { return e.stop(ctx, b, timeout) })
}

// each calls f for all boxes at once and joins what fails. If a call panics, each
// panics when all calls have ended.
func each(boxes []*box, f func(int, *box) error) error {
	errs := make([]error, len(boxes))
	var wg sync.WaitGroup
	for i, b := range boxes {
		wg.Go(func() { errs[i] = crew.Catch(func() error { return f(i, b) }) })
	}
	wg.Wait()
	err := errors.Join(errs...)
	crew.Raise(err)
	return err
}

// stop stops a container, kills it when it does not, and returns nil only when
// it does not run.
func (e *engine) stop(ctx context.Context, b *box, timeout time.Duration) error {
	if !b.Running {
		return nil
	}
	if b.Paused {
		if err := e.unpause(ctx, b); err != nil && !refused(err) {
			return err
		}
	}
	err := failed(e.api.ContainerStop(ctx, b.ID, container.StopOptions{Timeout: seconds(timeout)}), "stop container %s", b.Name)
	for deadline := time.Now().Add(15 * time.Second); ; {
		now, lookErr := e.inspect(ctx, b.ID)
		if lookErr != nil {
			return errors.Join(err, lookErr)
		}
		if now == nil || !now.Running {
			b.Running, b.Paused = false, false
			return nil
		}
		if time.Now().After(deadline) {
			if err == nil {
				err = fmt.Errorf("stop container %s: it still runs after a kill", b.Name)
			}
			return err
		}
		if killErr := e.api.ContainerKill(ctx, b.ID, "SIGKILL"); err == nil {
			err = failed(killErr, "kill container %s", b.Name)
		}
		if waitErr := sleep(ctx, 200*time.Millisecond); waitErr != nil {
			return errors.Join(err, waitErr)
		}
	}
}

// discard removes a container that is in the way, after it had its time to
// stop.
func (e *engine) discard(ctx context.Context, b *box, timeout time.Duration) error {
	if err := e.setPolicy(ctx, b, never); err != nil {
		return err
	}
	if err := e.stop(ctx, b, timeout); err != nil {
		return err
	}
	return e.remove(ctx, b)
}

func (e *engine) discardAll(ctx context.Context, boxes []*box, timeout time.Duration) error {
	for _, b := range boxes {
		if err := e.discard(ctx, b, timeout); err != nil {
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

// refuseAutoRemove refuses containers that the engine removes when they stop:
// nobody could bring them back.
func refuseAutoRemove(boxes []*box) error {
	var names []string
	for _, b := range boxes {
		if b.raw.HostConfig.AutoRemove {
			names = append(names, b.Name)
		}
	}
	if names == nil {
		return nil
	}
	return fmt.Errorf("container %s was started with --rm: stopping it would remove it; stop it yourself, or start it without --rm",
		strings.Join(names, ", "))
}

// restore brings one container to the state that was recorded, whatever it is
// in now. One that shall run gets its policy before it starts: if it exits at
// once the engine takes it from there, as it did before.
func (e *engine) restore(ctx context.Context, b *box, want runtime.Container) error {
	if !want.Running {
		if err := e.stop(ctx, b, 0); err != nil {
			return err
		}
		return e.setPolicy(ctx, b, want.Policy)
	}
	if err := e.setPolicy(ctx, b, want.Policy); err != nil {
		return err
	}
	switch {
	case !b.Running:
		if err := e.start(ctx, b); err != nil {
			return err
		}
	case b.Paused && !want.Paused:
		_, err := e.unfreeze(ctx, b.ID)
		return err
	}
	if !want.Paused || b.Paused {
		return nil
	}
	if err := e.calm(ctx, []*box{b}); err != nil {
		return err
	}
	return e.pause(ctx, b)
}

// restoreAlso brings the containers of also_stop back as they were recorded.
// One that is gone was removed or made anew by whoever it belongs to, and one
// that does not start is no fault of the workload: both are notices.
func (e *engine) restoreAlso(ctx context.Context, before []runtime.Container) error {
	for _, want := range before {
		if !want.Also {
			continue
		}
		b, err := e.inspect(ctx, want.ID)
		if err != nil {
			return err
		}
		if b == nil {
			e.notice(fmt.Sprintf("container %s of also_stop is gone; snap did not start it again", want.Name))
			continue
		}
		if err := e.restore(ctx, b, want); err != nil {
			if !refused(err) {
				return err
			}
			e.notice(fmt.Sprintf("container %s of also_stop is not back as it was: %v", want.Name, err))
		}
	}
	return nil
}
