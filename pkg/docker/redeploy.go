package docker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// The redeploy of an image workload. Every step can be seen at the engine, so
// a redeploy that was cut short is taken over from what is there:
//
//	old (in before)            new (the workload's, not in before)
//	fenced, stopped, aside     -
//	fenced, stopped, aside     created; removed by who takes over
//	fenced, stopped, aside     runs; adopted when it is the wanted one
//	fenced, stopped, aside     healthy, has its restart policy
//	removed                    healthy, has its restart policy
//
// "Aside" is renamed, where it had the name that the new one gets.

func (a *imageApp) redeploy(ctx context.Context, r runtime.Redeploy) error {
	old, others, err := a.split(ctx, r.Before)
	if err != nil {
		return err
	}
	want, err := a.want(ctx, r.Pins[""], r.Pull)
	if err != nil {
		// The old ones are as the caller left them; what an earlier redeploy
		// left must not run beside them.
		return errors.Join(err, a.e.discardAll(ctx, others, r.StopTimeout))
	}
	fresh, err := a.bringUp(ctx, r, want, old, others)
	var sick *runtime.Unhealthy
	if errors.As(err, &sick) {
		return err
	}
	if err == nil {
		err = a.release(ctx, fresh, r.Before)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("workload %s: %w", a.w.Name, err), a.undo(ctx, r.Before, r.StopTimeout))
	}
	return a.removeOld(ctx, r.Before)
}

// split returns the workload's containers that are in before, and the others.
func (a *imageApp) split(ctx context.Context, before []runtime.Container) (old, others []*box, err error) {
	own, err := list(ctx, a.e, a)
	if err != nil {
		return nil, nil, err
	}
	for _, b := range own {
		if recorded(before, b.ID) {
			old = append(old, b)
		} else {
			others = append(others, b)
		}
	}
	return old, others, nil
}

func recorded(before []runtime.Container, id string) bool {
	return slices.ContainsFunc(before, func(c runtime.Container) bool { return c.ID == id && !c.Also })
}

// bringUp puts the old containers to rest, and makes and starts the new one.
func (a *imageApp) bringUp(ctx context.Context, r runtime.Redeploy, want wanted, old, others []*box) (*box, error) {
	// An interruption is heard while waiting for health. A request that is cut
	// may be carried out all the same, behind the back of whoever undoes it.
	waiting := ctx
	ctx = context.WithoutCancel(ctx)
	if err := a.e.fenceAndStop(ctx, old, r.StopTimeout); err != nil {
		return nil, err
	}
	fresh := a.adoptable(others, want)
	if fresh == nil {
		if err := a.e.discardAll(ctx, others, r.StopTimeout); err != nil {
			return nil, err
		}
		for _, b := range old {
			if b.Name == a.w.ContainerName {
				if err := a.e.rename(ctx, b, fmt.Sprintf("%s.snap-%.12s", b.Name, b.ID)); err != nil {
					return nil, err
				}
			}
		}
		var err error
		if fresh, err = a.create(ctx, a.w.ContainerName, want, old); err != nil {
			return nil, err
		}
		if err := a.e.start(ctx, fresh); err != nil {
			return nil, err
		}
	}
	return fresh, a.e.waitHealthy(waiting, &watch{id: fresh.ID}, r.HealthTimeout)
}

// adoptable returns the container of an earlier redeploy that this one can go
// on with, if that is the only one there is.
func (a *imageApp) adoptable(others []*box, want wanted) *box {
	if len(others) == 1 && others[0].active() && want.is(others[0]) && others[0].Name == a.w.ContainerName {
		return others[0]
	}
	return nil
}

// release gives the new container its restart policy and lets the containers
// of also_stop run again.
func (a *imageApp) release(ctx context.Context, fresh *box, before []runtime.Container) error {
	if err := a.e.setPolicy(ctx, fresh, restartOf(a.w)); err != nil {
		return err
	}
	return a.e.restoreAlso(ctx, before)
}

// removeOld removes the containers that the new one replaces. That one does not
// go does not undo the redeploy: it is stopped and fenced.
func (a *imageApp) removeOld(ctx context.Context, before []runtime.Container) error {
	old, _, err := a.split(ctx, before)
	if err != nil {
		return err
	}
	for _, b := range old {
		if err := a.e.remove(ctx, b); err != nil {
			if !refused(err) {
				return err
			}
			a.e.notice(fmt.Sprintf("the replaced container %s stays behind, stopped: %v; remove it with: docker rm %s", b.Name, err, b.Name))
		}
	}
	return nil
}

// undo takes back what a redeploy that failed has made; the old containers have
// their names again, and stay stopped and fenced. It asks the engine what there
// is: the answer to a create may have been lost.
func (a *imageApp) undo(ctx context.Context, before []runtime.Container, timeout time.Duration) error {
	ctx, cancel := detached(ctx)
	defer cancel()
	old, others, err := a.split(ctx, before)
	if err != nil {
		return err
	}
	errs := []error{a.e.discardAll(ctx, others, timeout), a.e.fenceAndStop(ctx, old, timeout)}
	for _, c := range before {
		i := slices.IndexFunc(old, func(b *box) bool { return b.ID == c.ID })
		if i >= 0 {
			errs = append(errs, a.e.rename(ctx, old[i], c.Name))
		}
	}
	return errors.Join(errs...)
}

func (a *imageApp) settle(ctx context.Context, before []runtime.Container) error {
	_, current, err := a.split(ctx, before)
	if err != nil {
		return err
	}
	if len(current) == 0 {
		return fmt.Errorf("workload %s: there is no new container to accept", a.w.Name)
	}
	for _, b := range current {
		if err := a.e.setPolicy(ctx, b, restartOf(a.w)); err != nil {
			return err
		}
	}
	return errors.Join(a.e.restoreAlso(ctx, before), a.removeOld(ctx, before))
}
