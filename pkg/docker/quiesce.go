package docker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// Quiesce pauses or stops the containers that run, those of also_stop too.
// Containers that are paused already stay as they are, now and at the thaw. A
// pause keeps clear of health probes, for which it waits up to some seconds
// while all containers still run.
func (r *Runtime) Quiesce(ctx context.Context, mode string, timeout time.Duration) (runtime.Thaw, error) {
	var rest func(context.Context, *box) error
	switch mode {
	case runtime.None:
		return func(context.Context) error { return nil }, nil
	case runtime.Pause:
		rest = r.e.pause
	case runtime.Stop:
		rest = func(ctx context.Context, b *box) error { return r.e.stop(ctx, b, timeout) }
	default:
		return nil, fmt.Errorf("quiesce mode %q: must be %s, %s or %s", mode, runtime.Pause, runtime.Stop, runtime.None)
	}
	boxes, err := r.boxes(ctx)
	if err != nil {
		return nil, err
	}
	if mode == runtime.Stop {
		if err := refuseAutoRemove(boxes); err != nil {
			return nil, err
		}
	}
	var chosen []*box
	for _, b := range boxes {
		if b.Running && !b.Paused {
			chosen = append(chosen, b)
		}
	}
	thaw := r.e.thaw(chosen)
	work := ctx
	if mode == runtime.Pause {
		if err := r.e.calm(ctx, chosen); err != nil {
			return nil, err
		}
		// A request that is cut off may still be carried out after the look that
		// would have told; so pausing, which takes no time, is not cut off.
		var cancel context.CancelFunc
		work, cancel = detached(ctx)
		defer cancel()
	}
	err = each(chosen, func(_ int, b *box) error { return rest(work, b) })
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		back, cancel := detached(ctx)
		defer cancel()
		return nil, errors.Join(err, thaw(back))
	}
	return thaw, nil
}

// thaw returns what brings these containers back, once: what it has brought
// back it leaves alone when called again.
func (e *engine) thaw(boxes []*box) runtime.Thaw {
	var mu sync.Mutex
	left := inOrder(boxes)
	return func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		ctx, cancel := detached(ctx)
		defer cancel()
		// First all that are frozen, at once; then those that were stopped, in
		// their order.
		err := each(left, func(_ int, b *box) error { _, err := e.unfreeze(ctx, b.ID); return err })
		var errs []error
		left = slices.DeleteFunc(left, func(b *box) bool {
			err := e.wake(ctx, b, boxes)
			errs = append(errs, err)
			return err == nil
		})
		return errors.Join(append(errs, err)...)
	}
}

// unfreeze returns a container, nil where it is gone, once the engine does not
// show it paused: when the pause has just been, its late news may cover that of
// its end for a moment.
func (e *engine) unfreeze(ctx context.Context, id string) (*box, error) {
	for deadline := time.Now().Add(15 * time.Second); ; {
		now, err := e.inspect(ctx, id)
		if err != nil || now == nil || !now.Paused {
			return now, err
		}
		if err = e.unpause(ctx, now); err == nil {
			if now, err = e.inspect(ctx, id); err != nil || now == nil || !now.Paused {
				return now, err
			}
		} else if !refused(err) {
			return nil, err
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("container %.12s is still paused", id), err)
		}
		if err := sleep(ctx, poll); err != nil {
			return nil, err
		}
	}
}

func (e *engine) wake(ctx context.Context, b *box, all []*box) error {
	now, err := e.unfreeze(ctx, b.ID)
	switch {
	case err != nil:
		return err
	case now == nil:
		return fmt.Errorf("container %s cannot be brought back: it was removed meanwhile", b.Name)
	case now.Running:
		return nil
	}
	if err := e.awaitDependencies(ctx, now, all); err != nil {
		return err
	}
	return e.start(ctx, now)
}
