package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tiny-forge/snap/pkg/docker/engine"
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
	if err := r.e.FenceAndStop(ctx, containers, timeout); err != nil {
		return err
	}
	// Look again: somebody may have started or made a container meanwhile.
	if containers, err = r.inspectAll(ctx); err != nil {
		return err
	}
	if c := engine.First(containers, func(c *engine.Container) bool { return c.Running }); c != nil {
		return fmt.Errorf("container %s runs again after it was stopped: something else starts it", c.Name)
	}
	return nil
}

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
	chosen := slices.DeleteFunc(slices.Clone(containers), func(c *engine.Container) bool { return !c.Awake() })
	if mode == runtime.Stop {
		err = refuseToStop(containers)
	} else {
		err = r.e.Calm(ctx, chosen)
	}
	if err != nil {
		return nil, err
	}
	thaw := r.e.Thaw(chosen)
	// The engine may carry out a request that was cut off after snap has looked
	// whether it did. So pausing, which takes no time, is not cut off.
	uncut, cancel := engine.Detached(ctx)
	defer cancel()
	err = engine.Each(chosen, func(c *engine.Container) error {
		if mode == runtime.Stop {
			return r.e.Stop(ctx, c, timeout)
		}
		return r.e.SetPaused(uncut, c, true)
	})
	if err = cmp.Or(err, ctx.Err()); err != nil {
		return nil, errors.Join(err, thaw(ctx))
	}
	return thaw, nil
}
