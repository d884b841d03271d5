package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/swap"
)

// finish is a restore's transaction on its way to the end: see finishing.
type finish struct {
	*session
	x       *swap.Tx
	offline bool
	bad     *endsAs // where the app is to stay up, but is not as it was
	end     ended
}

// endsAs is the error with which a run ends: the outcome, and what is left to do. After
// any other error the transaction is frozen.
type endsAs struct {
	outcome
	left error
}

func (f *endsAs) Error() string { return fmt.Sprint(f.left) }

// finish brings a restore's transaction to its end, or says what is left. Only an
// outcome that is not pending has ended the transaction. It closes tx.
func (s *session) finish(ctx context.Context, tx *journal.Tx, offline bool) *ended {
	f := &finish{session: s, offline: offline, end: ended{up: time.Now(), preRestoreSID: tx.Begin.PreRestoreSID}}
	err := f.run(ctx, tx)
	var own *fault.Error
	var end *endsAs
	switch {
	case errors.As(err, &end):
		f.end.outcome, f.end.err = end.outcome, end.left
	case errors.As(err, &own):
		f.end.err = err
	default:
		f.end.err = fault.Freeze(tx.ID, "%w", err)
	}
	if row := outcomes[f.end.outcome]; row.pending || row.kind == fault.Frozen {
		tx.Close()
	}
	return &f.end
}

func (f *finish) run(ctx context.Context, tx *journal.Tx) (err error) {
	if f.x, err = f.openTxn(tx, f.vanished(ctx, tx)...); err != nil {
		return fault.Freeze(tx.ID, "its directories cannot be opened: %w", err)
	}
	defer func() {
		var err error
		if f.end.preserved, err = f.x.Preserved(); err != nil {
			f.say("warning: cannot list the preserved files: %v", err)
		}
		f.x.CloseVolumes()
	}()
	if !f.x.Decision().Staged { // nothing that is live has been touched
		return f.discardUnready(ctx)
	}
	if err := runPhases(ctx, f.session, finishing, f, false); err != nil {
		return f.withApp(err)
	}
	if f.bad != nil {
		return f.bad
	}
	return f.stopAt(rolledBack, restored, nil)
}

// withApp adds to what is left to do why the app is not as it was: once its transaction
// says that it was brought up, no later run says that again.
func (f *finish) withApp(err error) error {
	var end *endsAs
	if f.bad != nil && errors.As(err, &end) && end.left != nil {
		return &endsAs{end.outcome, fmt.Errorf("%w; and %w", f.bad.left, end.left)}
	}
	return err
}

// stopAt ends the run with one of two outcomes, for old data or for new data,
// according to the records. left is what is left to do.
func (f *finish) stopAt(ifOld, ifNew outcome, left error) *endsAs {
	if f.x.Goal().Keeps() == swap.New {
		return &endsAs{ifNew, left}
	}
	return &endsAs{ifOld, left}
}

// discardUnready ends a transaction that has no ready record.
func (f *finish) discardUnready(ctx context.Context) error {
	if err := f.untouched(f.x); err != nil {
		return err
	}
	if f.offline && f.hooks(f.x.Begin).Owed() {
		return &endsAs{cleanedOffline, nil}
	}
	err := f.after(ctx) // ends as nothing else does, so it is nil
	if sid := f.x.Begin.PreRestoreSID; sid != "" {
		err = f.discard(f.x.Tx, sid)
	}
	if err == nil {
		err = f.x.Discard()
	}
	if err != nil {
		return &endsAs{cleanedPartly, err}
	}
	f.unmake(ctx)
	if f.bad != nil {
		return &endsAs{cleanedHooked, f.bad.left}
	}
	return &endsAs{cleaned, nil}
}

// follow brings every volume to the state that the records call for, or touches
// none.
func (f *finish) follow(ctx context.Context) error {
	if err := f.resolve(ctx); err != nil {
		return err
	}
	plan, err := f.x.Plan()
	if err == nil && slices.Contains(plan, swap.Exchange) {
		err = f.stopApp(ctx)
	}
	if err == nil {
		err = f.apply(plan)
	}
	if err != nil {
		return err
	}
	f.end.up = time.Now()
	if f.offline {
		return f.stopAt(rolledBackOffline, restoredOffline, nil)
	}
	return nil
}

// resolve takes the steps of the operator's decision, where one is recorded.
func (f *finish) resolve(ctx context.Context) error {
	if !f.x.Decision().Operator {
		return nil
	}
	keep := f.x.Goal().Keeps()
	plan, err := f.x.PlanResolution(keep)
	if err != nil || !swap.NeedsSteps(plan) {
		return err
	}
	if err := f.stopApp(ctx); err != nil {
		return err
	}
	return f.x.Resolve(keep, plan)
}

// stopApp stops the app before directories are exchanged. With --offline the
// operator says that Docker is down.
func (f *finish) stopApp(ctx context.Context) error {
	if f.offline {
		return nil
	}
	if err := f.rt.FenceAndStop(ctx, f.x.Begin.StopTimeout); err != nil {
		return fault.New(fault.Frozen, "docker_unreachable", remedy.Of("start Docker, then ", remedy.Recover(f.w.Name), "; if Docker is meant to be down, ", remedy.Operation{Verb: remedy.DoRecoverOffline, Workload: f.w.Name}),
			"transaction %s: the volumes are partly old and partly new, and snap exchanges none while the app may run: stop %s: %w", f.x.ID, f.w.Name, err)
	}
	return nil
}

// appIsDone reports whether the app has been brought up already. Then only the guard
// and the clean-up are left; if the app has stopped since, that is the operator's
// business.
func (f *finish) appIsDone() bool { return f.x.Decision().AppUp }

// bringUp starts the app on the live data: the new data after a commit, otherwise
// the old. If the app does not become healthy on the new data, bringUp goes back.
func (f *finish) bringUp(ctx context.Context) error {
	var up time.Time
	defer func() {
		f.end.up = time.Now()
		if !up.IsZero() {
			f.end.up = up
		}
	}()
	before := f.x.Before()
	if f.x.Goal().Keeps() == swap.Old || !runtime.Containers(before).Ran() {
		return f.appDown(f.rt.Resume(ctx, f.held, before))
	}
	err := f.rt.Redeploy(ctx, f.held, runtime.Redeploy{
		Pins: f.x.ReadyRecord.Pin, Before: before, HealthTimeout: f.x.Begin.HealthTimeout, StopTimeout: f.x.Begin.StopTimeout,
		Up: func(since time.Time) { up = since },
	})
	f.at("redeployed")
	var sick *runtime.Unhealthy
	var missing *runtime.Missing
	var crashed *runtime.Crashed
	if errors.As(err, &sick) {
		f.end.quiesce = f.quiesceOf(f.x.Begin.SID)
	}
	switch {
	case err == nil:
		return nil
	case errors.As(err, &missing):
		f.bad = &endsAs{restoredMissing, err}
		return nil
	case errors.As(err, &crashed):
		f.bad = &endsAs{restoredCrashed, err}
		return nil
	case f.staysNew() && errors.As(err, &sick):
		f.bad = &endsAs{restoredUnhealthy, err}
		return f.appDown(f.rt.Settle(ctx, before))
	case f.staysNew() || errors.Is(err, runtime.ErrUnreachable) || !f.x.AllDisplaced():
		return f.appDown(err)
	}
	f.say("%v: going back to the old data", err)
	f.end.cause = err
	if err := f.revert(ctx); err != nil {
		return err
	}
	return f.appDown(f.rt.Resume(ctx, f.held, before))
}

// after runs the hooks after a restore. One that fails keeps nothing from its end.
func (f *finish) after(ctx context.Context) error {
	err := f.hooks(f.x.Begin).After(ctx, f.x.Goal().Keeps() == swap.New)
	if err != nil {
		f.warn("%v", err)
		f.bad = cmp.Or(f.bad, f.stopAt(rolledBackHooked, restoredHooked, err))
	}
	return nil
}

// quiesceOf is how a snapshot was taken, "" where that cannot be read.
func (f *finish) quiesceOf(sid string) string {
	if f.Store == nil {
		return ""
	}
	m, err := f.Store.Load(f.w.Name, sid)
	if err != nil {
		return ""
	}
	return m.Quiesce
}

// appDown ends the run where the app could not be brought up.
func (f *finish) appDown(err error) error {
	if err == nil {
		return nil
	}
	return f.stopAt(rolledBackAppDown, restoredAppDown, err)
}

// staysNew reports whether an app that does not come up is to stay on the new data:
// the restore was asked for that, or an operator has decided so.
func (f *finish) staysNew() bool {
	return f.x.Begin.OnUnhealthy == KeepUnhealthy || f.x.Decision().Operator
}

// revert takes a committed restore back.
func (f *finish) revert(ctx context.Context) error {
	f.at("before revert")
	if err := f.x.Revert(); err != nil {
		return err
	}
	f.at("revert")
	if err := f.rt.FenceAndStop(ctx, f.x.Begin.StopTimeout); err != nil {
		return fault.New(fault.Frozen, "docker_unreachable", remedy.Of(remedy.Recover(f.w.Name)), "stop %s to go back: %w", f.w.Name, err)
	}
	plan, err := f.x.Plan()
	if err != nil {
		return err
	}
	return f.apply(plan)
}

// apply takes the actions of a plan, and names the journals of SQLite that got another
// name.
func (f *finish) apply(plan []swap.Action) error {
	err := f.x.Apply(plan)
	for _, path := range f.x.Aside {
		f.warn("%s belongs to the data that goes, and SQLite would apply it to the data that is live now: it is preserved beside it, under a name with .snap-kept-%s", path, f.x.ID)
	}
	f.x.Aside = nil
	return err
}

// settle deletes the trees that are no longer needed, and the pre-restore snapshot
// where it is unfinished, and ends the transaction.
func (f *finish) settle(ctx context.Context) error {
	err := f.clearAway(ctx)
	var own *fault.Error
	if errors.As(err, &own) && own.Code == "held" {
		return f.stopAt(rolledBackHeld, restoredHeld, err)
	}
	if err != nil {
		return f.stopAt(rolledBackPartly, restoredPartly, err)
	}
	f.unmake(ctx)
	f.at("settled")
	return nil
}

func (f *finish) clearAway(ctx context.Context) error {
	f.at("before settle")
	x, decision := f.x, f.x.Decision()
	st, err := f.stored()
	if err != nil {
		return err
	}
	if err := st.Discard(f.w.Name, x.Begin.PreRestoreSID); err != nil {
		return err
	}
	if decision.Operator { // an interrupted revert may have left an unfinished snapshot
		if err := st.Discard(f.w.Name, x.Begin.RevertSID); err != nil {
			return err
		}
	}
	if err := f.letGo(ctx); err != nil {
		return err
	}
	if err := st.Clear(x.ID); err != nil {
		return err
	}
	if err := x.Discard(); err != nil {
		return fmt.Errorf("clean up after transaction %s: %w", x.ID, err)
	}
	return nil
}

// openTrees opens a tree of each volume that has one. The caller closes them, after
// an error too.
func (f *finish) openTrees(open func(i int) (*disk.Dir, error)) ([]snapshot.Source, error) {
	var list []snapshot.Source
	for i, v := range f.x.Volumes {
		configured, err := f.w.Volume(v.Name)
		if m, loadErr := f.Store.Load(f.w.Name, f.x.Begin.PreRestoreSID); err != nil && loadErr == nil {
			configured, err = snapshot.VolumeOf(m, v.Name), nil // the config no longer has it
		}
		if err != nil {
			return list, err
		}
		d, err := open(i)
		if err != nil {
			return list, err
		}
		if d != nil {
			list = append(list, snapshot.Source{Volume: configured, Live: d})
		}
	}
	return list, nil
}

func closeTrees(list []snapshot.Source) {
	for _, source := range list {
		source.Live.Close()
	}
}

// published reports whether the pre-restore snapshot exists.
func (e *Engine) published(b *journal.Begin) (bool, error) {
	st, err := e.stored()
	if err != nil {
		return false, err
	}
	_, err = st.Load(b.Workload, b.PreRestoreSID)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// untouched makes sure that a restore without a ready record has moved no live
// directory: see [swap.Tx.Untouched].
func (e *Engine) untouched(x *swap.Tx) error {
	if err := x.Untouched(); err != nil || x.Begin.Kind != journal.Restore {
		return err
	}
	published, err := e.published(x.Begin)
	if published {
		err = fmt.Errorf("the ready record is missing, though the later pre-restore snapshot %s exists: %w", x.Begin.PreRestoreSID, disk.ErrDamaged)
	}
	return err
}
