package docker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tiny-forge/snap/pkg/docker/engine"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// The redeploy of an image workload. The engine shows how far a redeploy got, so
// another one can go on where it was cut short:
//
//	old (in before)            new (the workload's, not in before)
//	fenced, stopped, aside     -
//	fenced, stopped, aside     created; the next redeploy removes it
//	fenced, stopped, aside     runs; the next one adopts it if it is as wanted
//	fenced, stopped, aside     healthy, has its restart policy
//	removed                    healthy, has its restart policy
//
// "Aside" means renamed, where the old one had the name that the new one gets.

func (a *imageApp) redeploy(ctx context.Context, r runtime.Redeploy) error {
	old, others, err := a.split(ctx, r.Before)
	if err != nil {
		return err
	}
	want, err := a.want(ctx, r.Pins[""], r.Pull)
	if errors.Is(err, runtime.ErrImageMissing) {
		hash, hashErr := hashOf(a.w)
		if c := startable(old, r.Pins[""], hash); hashErr == nil && c != nil {
			return a.startOld(ctx, c, others, r)
		}
	}
	if err != nil {
		// The old containers are as the caller left them. What an earlier redeploy
		// has made must not run beside them.
		return errors.Join(err, a.e.Discard(ctx, others, r.StopTimeout))
	}
	fresh, err := a.bringUp(ctx, r, want, old, others)
	again, crashed := errors.AsType[*runtime.Crashed](err)
	if crashed { // as before the redeploy: it is not the new data
		err = nil
	}
	if _, sick := errors.AsType[*runtime.Unhealthy](err); sick {
		return err
	}
	if err == nil {
		err = a.e.Unfence(ctx, fresh, restartOf(a.w))
	}
	if err == nil {
		err = a.e.RestoreAlso(ctx, r.Before)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("workload %s: %w", a.w.Name, err), a.undo(ctx, r.Before, r.StopTimeout))
	}
	if err := a.removeOld(ctx, old); err != nil || !crashed {
		return err
	}
	return again
}

// startOld starts an old container whose image is gone.
func (a *imageApp) startOld(ctx context.Context, c *engine.Container, others []*engine.Container, r runtime.Redeploy) error {
	was := recorded(r.Before, c.ID)
	err := a.e.Discard(ctx, others, r.StopTimeout)
	if err == nil {
		err = a.e.Rename(ctx, c, was.Name)
	}
	if err == nil && !c.Running {
		err = a.e.Start(ctx, c)
	}
	if err == nil {
		err = a.e.WaitHealthy(ctx, &engine.Watch{ID: c.ID}, r.HealthTimeout)
	}
	if _, sick := errors.AsType[*runtime.Unhealthy](err); sick {
		return err
	}
	if err == nil {
		err = a.e.SetPolicy(ctx, c, was.Policy)
	}
	if err == nil {
		err = a.e.RestoreAlso(ctx, r.Before)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("workload %s: %w", a.w.Name, err), a.undo(ctx, r.Before, r.StopTimeout))
	}
	return nil
}

// split returns the workload's containers that are in before, and the others.
func (a *imageApp) split(ctx context.Context, before []runtime.Container) (old, others []*engine.Container, err error) {
	own, err := a.own(ctx)
	for _, c := range own {
		if recorded(before, c.ID) != nil {
			old = append(old, c)
		} else {
			others = append(others, c)
		}
	}
	return old, others, err
}

// recorded returns what before has of the workload's container of that id, or nil.
func recorded(before []runtime.Container, id string) *runtime.Container {
	i := slices.IndexFunc(before, func(c runtime.Container) bool { return c.ID == id && !c.Also })
	if i < 0 {
		return nil
	}
	return &before[i]
}

// bringUp stops the old containers, then makes and starts the new one, or goes on
// with the one that an earlier redeploy has made.
func (a *imageApp) bringUp(ctx context.Context, r runtime.Redeploy, want wanted, old, others []*engine.Container) (*engine.Container, error) {
	// An interruption ends the wait for health, but not a request: the engine may
	// carry out a request that was cut off, after the undo has looked.
	waiting := ctx
	ctx = context.WithoutCancel(ctx)
	if err := a.e.FenceAndStop(ctx, old, r.StopTimeout); err != nil {
		return nil, err
	}
	if len(others) == 1 && others[0].Active() && want.is(others[0]) && others[0].Name == a.w.ContainerName {
		return others[0], a.await(waiting, others[0], r)
	}
	if err := a.e.Discard(ctx, others, r.StopTimeout); err != nil {
		return nil, err
	}
	if c := engine.ByName(old, a.w.ContainerName); c != nil {
		if err := a.e.Rename(ctx, c, fmt.Sprintf("%s.snap-%.12s", c.Name, c.ID)); err != nil {
			return nil, err
		}
	}
	fresh, err := a.create(ctx, a.w.ContainerName, want, old)
	if err != nil {
		return nil, err
	}
	if err := a.e.Start(ctx, fresh); err != nil {
		return nil, err
	}
	return fresh, a.await(waiting, fresh, r)
}

// await waits until the new container is healthy.
func (a *imageApp) await(ctx context.Context, fresh *engine.Container, r runtime.Redeploy) error {
	before := slices.DeleteFunc(slices.Clone(r.Before), func(c runtime.Container) bool { return c.Also || !c.Ran() })
	crashed := len(before) > 0 && !slices.ContainsFunc(before, func(c runtime.Container) bool { return !c.Crashed })
	return a.e.WaitAll(ctx, []*engine.Watch{{ID: fresh.ID, Crashed: crashed}}, r)
}

// removeOld removes the containers that the new one replaces. One that cannot be
// removed is stopped and fenced, so it is only a notice.
func (a *imageApp) removeOld(ctx context.Context, old []*engine.Container) error {
	for _, c := range old {
		if err := a.e.Remove(ctx, c); engine.Refused(err) {
			a.e.Notice(fmt.Sprintf("the replaced container %s is still there, stopped: %v; remove it with: docker rm %s", c.Name, err, c.Name))
		} else if err != nil {
			return err
		}
	}
	return nil
}

// undo removes what a redeploy that failed has made. The old containers get their
// names back, and stay stopped and fenced. It asks the engine which containers
// exist: the answer to a create may have been lost.
func (a *imageApp) undo(ctx context.Context, before []runtime.Container, timeout time.Duration) error {
	ctx, cancel := engine.Detached(ctx)
	defer cancel()
	old, others, err := a.split(ctx, before)
	if err != nil {
		return err
	}
	errs := []error{a.e.Discard(ctx, others, timeout), a.e.FenceAndStop(ctx, old, timeout)}
	for _, c := range old {
		errs = append(errs, a.e.Rename(ctx, c, recorded(before, c.ID).Name))
	}
	return errors.Join(errs...)
}

func (a *imageApp) settle(ctx context.Context, before []runtime.Container) error {
	old, current, err := a.split(ctx, before)
	if err != nil {
		return err
	}
	if len(current) == 0 { // an old one was started, because its image is gone
		current = slices.DeleteFunc(old, func(c *engine.Container) bool { return !c.Running })
		old = nil
	}
	if len(current) == 0 {
		return fmt.Errorf("workload %s: there is no new container to accept", a.w.Name)
	}
	for _, c := range current {
		if err := a.e.Unfence(ctx, c, restartOf(a.w)); err != nil {
			return err
		}
	}
	return errors.Join(a.e.RestoreAlso(ctx, before), a.removeOld(ctx, old))
}

// match is a recorded container and the one that takes its place now.
type match struct {
	want runtime.Container
	now  *engine.Container // nil: it is gone and must be made
	anew wanted            // what to make then
}

// resume brings an image workload back as it was recorded. Whatever else a
// redeploy has made is removed only when everything recorded is there or can be
// made: until then the only container of the workload may be among it.
func (a *imageApp) resume(ctx context.Context, before []runtime.Container) error {
	old, others, err := a.split(ctx, before)
	if err != nil {
		return err
	}
	matches, rest, err := a.match(ctx, before, old, others)
	if err != nil {
		return err
	}
	if err := a.e.Discard(ctx, rest, 0); err != nil {
		return err
	}
	// Those that shall not run come first: they may hold what the others need.
	var errs []error
	for _, running := range []bool{false, true} {
		for _, m := range matches {
			if m.want.Running == running {
				errs = append(errs, a.bringBack(ctx, m, old))
			}
		}
	}
	return errors.Join(append(errs, a.e.RestoreAlso(ctx, before))...)
}

// match finds for each recorded container the one that takes its place: itself;
// where it is gone, one that an earlier redeploy or resume made from the same
// config and image; or one that is yet to be made. The rest replaces none.
func (a *imageApp) match(ctx context.Context, before []runtime.Container, old, others []*engine.Container) (matches []match, rest []*engine.Container, err error) {
	rest = others
	for _, want := range before {
		if want.Also {
			continue
		}
		m := match{want: want, now: engine.ByID(old, want.ID)}
		if m.now == nil {
			// One that neither ran nor has the workload's name was left over from an
			// earlier redeploy. Nothing is lost with it.
			if !want.Running && want.Name != a.w.ContainerName {
				continue
			}
			if m.anew, err = a.want(ctx, want.Pin(), false); err != nil {
				return nil, nil, err
			}
			m.now = engine.First(rest, m.anew.is)
			rest = slices.DeleteFunc(rest, func(c *engine.Container) bool { return c == m.now })
		}
		matches = append(matches, m)
	}
	return matches, rest, nil
}

func (a *imageApp) bringBack(ctx context.Context, m match, old []*engine.Container) error {
	c := m.now
	if c == nil {
		var err error
		if c, err = a.create(ctx, m.want.Name, m.anew, old); err != nil {
			return err
		}
	}
	if err := a.e.Rename(ctx, c, m.want.Name); err != nil {
		return err
	}
	return a.e.Restore(ctx, c, m.want)
}
