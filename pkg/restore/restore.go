package restore

import (
	"context"
	"errors"
	"fmt"
	goruntime "runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/catalog"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/preflight"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// The outcomes of a restore that changed something.
const (
	Restored = "restored"
	Reverted = "reverted"
)

// RestoreResult is what a restore did.
type RestoreResult struct {
	Workload        string
	SID             string
	PreRestoreSID   string // "" while it does not exist, and where none was made: guard after
	Guard           string // workload.GuardBefore or GuardAfter
	Outcome         string
	DowntimeSeconds float64 // from the fence until the app was healthy again
	Seconds         float64
	Volumes         []*preflight.Volume
	Phases          Seconds
	Warnings        []string
	Tx              string
	PassOne         Cost
	NotKept         []snapshot.NotKept // what the snapshot has and the restore did not bring back
}

// Restore puts a snapshot back: see phase.go for the order. When it returns
// nil all volumes are new, durably, and the app is up if it was before. A result
// comes with an error when the restore got as far as the commit. Until then ctx may
// end it, with all volumes old and the app as before.
func (e *Engine) Restore(ctx context.Context, req RestoreRequest) (*RestoreResult, error) {
	// One thread makes all effects of the critical section, so that a trace of the
	// process, as the crash tests take it, shows them in one order.
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()

	if err := catalog.ValidSID(req.Workload, req.SID); err != nil {
		return nil, err
	}
	command := remedy.Of(remedy.Operation{Verb: remedy.DoRestore, Workload: req.Workload, ID: req.SID, Confirmed: true})
	if err := fault.Confirmed(req.Confirm, "snapshot", req.SID, command, "a restore replaces the live data of "+req.Workload); err != nil {
		return nil, err
	}
	s, err := e.begin(ctx, "restore", req.Workload)
	if err != nil {
		return nil, err
	}
	defer s.close()
	r := &restoration{session: s, req: req, result: &RestoreResult{Workload: req.Workload, SID: req.SID, Phases: s.seconds}, release: func() {}, ran: journal.Run{Verb: "restore"}}
	err = r.run(ctx)
	r.result.Seconds = time.Since(s.when).Seconds()
	s.audit(req.SID, r.result.Tx, err)
	r.ran.SID, r.ran.Downtime = req.SID, r.result.DowntimeSeconds
	e.remember(ctx, req.Workload, s.when, r.ran, err)
	if r.result.Outcome == "" {
		return nil, err
	}
	return r.result, err
}

type restoration struct {
	*session
	req     RestoreRequest
	plan    *preflight.Plan
	tx      *journal.Tx // nil before the begin record
	x       *swap.Tx
	sums    []string // of the staged trees: see swap.Tx.AsStaged
	capture *snapshot.Capture
	result  *RestoreResult
	down    time.Time // when the fence began; zero before
	release func()    // of the watchdog
	ran     journal.Run
}

func (r *restoration) run(ctx context.Context) error {
	defer func() {
		r.plan.Close()
		r.x.CloseVolumes()
	}()
	err := runPhases(ctx, r.session, forward, r, true)
	if r.capture != nil {
		r.capture.Close()
	}
	if r.tx == nil { // nothing was recorded, and nothing changed
		return fault.Classify(err)
	}
	// From here on no signal ends the work.
	err = r.conclude(context.WithoutCancel(ctx), err)
	r.release() // not deferred: when this process panics the watchdog has to recover
	return err
}

func (r *restoration) preflight(ctx context.Context) (err error) {
	if r.plan, err = r.session.plan(ctx, r.req); err != nil {
		return err
	}
	r.result.Guard, r.result.Volumes, r.result.Warnings = r.plan.Guard, r.plan.Volumes, r.plan.Warnings
	for _, warning := range r.plan.Warnings {
		r.say("warning: %s", warning)
	}
	return nil
}

func (r *restoration) guardsAfter() bool { return r.plan.Guard == workload.GuardAfter }

func (r *restoration) begin(context.Context) error {
	begin := &journal.Begin{
		Kind: journal.Restore, SID: r.req.SID, PreRestoreSID: disk.NewID(time.Now()), RevertSID: disk.NewID(time.Now()),
		OnUnhealthy: r.req.OnUnhealthy, HealthTimeout: r.req.HealthTimeout, StopTimeout: r.req.StopTimeout,
	}
	if r.guardsAfter() {
		begin.Guard = journal.GuardAfter
	}
	for i, v := range r.plan.Opened() {
		record, err := v.Begin(strconv.Itoa(i), r.guardsAfter())
		if err != nil {
			return err
		}
		begin.Volumes = append(begin.Volumes, record)
	}
	r.at("before begin")
	var err error
	if r.tx, err = r.open(begin); err != nil {
		return err
	}
	if r.result.Tx = r.tx.ID; !r.guardsAfter() {
		r.result.PreRestoreSID = begin.PreRestoreSID
	}
	return nil
}

// stage extracts every volume beside its live directory and makes it durable.
func (r *restoration) stage(ctx context.Context) error {
	for _, v := range r.plan.Opened() {
		var err error
		if v.EngineVolume != "" {
			err = r.rt.MakeVolume(ctx, v.EngineVolume, r.tx.ID)
			r.at("made " + v.Name)
		}
		if err == nil {
			err = v.Create()
		}
		if err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	if err := r.host().SamePlaces(ctx, r.plan.Chosen()); err != nil {
		return err
	}
	if err := r.lockVolumes(); err != nil { // a directory that was missing now has a handle to lock
		return err
	}
	// Opened before the first byte is staged, so that each later syncfs on it
	// reports every failed write-back (syncfs(2)).
	var err error
	if r.x, err = r.openTxn(r.tx); err != nil {
		return err
	}
	// A named volume may have been removed and made anew since the record was written.
	if err := r.x.Untouched(); err != nil {
		return err
	}
	for i, live := range r.sources(r.plan.Opened()) {
		v, stored := r.x.Volumes[i], r.plan.Volumes[i].Stored
		if err := r.stageOne(ctx, v, stored, live); err != nil {
			return fmt.Errorf("stage volume %s: %w", v.Name, v.Parent().WhenFull(err, stored.Tar()))
		}
	}
	return nil
}

func (r *restoration) stageOne(ctx context.Context, v *swap.Volume, m *store.Volume, live snapshot.Source) error {
	r.say("staging volume %s: %d files, %d bytes", v.Name, m.Files, m.Bytes)
	into, err := v.MakeStaged()
	if err != nil {
		return err
	}
	defer into.Close()
	r.at("staging " + v.Name)
	tar := archive.NewReader(ctx, r.Store, m.Members)
	defer tar.Close()
	opt := snapshot.ExtractOptions(live.Volume)
	opt.MaxEntries, opt.MaxBytes, opt.MaxDepth, opt.Lost = m.Entries(), m.Bytes, m.Depth, &archive.Losses{}
	p, err := live.Live.Properties()
	if err != nil {
		return err
	}
	opt.Label = p.Label
	unchanged, err := snapshot.UnchangedSince(r.Store, r.plan.Manifest(), m.Name, live, r.req.TrustIndex)
	if err != nil {
		return fmt.Errorf("the index of snapshot %s: %w", r.req.SID, err)
	}
	if unchanged.Any() {
		opt.Supply = unchanged.Supply
	}
	back, err := into.StartWriteBack()
	if err != nil {
		return err
	}
	var done atomic.Int64
	opt.Wrote = func(n int64) {
		back.Wrote(n)
		r.observer.Progress(v.Name, done.Add(n), m.Bytes)
	}
	got, err := archive.Extract(ctx, tar, into, opt)
	back.End()
	if err != nil {
		return err
	}
	if got != m.Stats {
		return fmt.Errorf("%w: it holds %+v, its manifest says %+v", archive.ErrRefused, got, m.Stats)
	}
	if err := v.Holds(into); err != nil {
		return fmt.Errorf("%w: %w", archive.ErrRefused, err)
	}
	list, warnings := snapshot.NotKeptOf(v.Name, opt.Lost.List())
	for _, warning := range warnings {
		if !slices.Contains(r.result.Warnings, warning) { // the plan may have said it of the live data
			r.say("warning: %s", warning)
			r.result.Warnings = append(r.result.Warnings, warning)
		}
	}
	r.result.NotKept = append(r.result.NotKept, list...)
	if err := into.SyncFS(); err != nil {
		return err
	}
	sum, _, err := archive.StatSum(ctx, into)
	r.sums = append(r.sums, sum)
	return err
}

func (r *restoration) passOne(ctx context.Context) (err error) {
	if r.capture, err = r.newCapture(ctx, r.tx, r.sources(r.plan.Opened()), snapshot.Options{Verify: true}); err != nil {
		return err
	}
	r.say("first pass of the pre-restore snapshot %s", r.result.PreRestoreSID)
	if err := r.capture.PassOne(ctx); err != nil {
		return r.storeFull(err)
	}
	r.result.PassOne = r.capture.Cost()
	return nil
}

// before runs the hooks that prepare the app.
func (r *restoration) before(ctx context.Context) error {
	hooks := r.hooks(r.tx.Begin)
	if len(r.plan.Containers) > 0 || hooks.Any() {
		r.release = r.watched(r.tx.ID)
	}
	return hooks.Before(ctx)
}

// ready records the handles, which must be those of the directories that the
// pre-flight looked at and the first pass has read.
func (r *restoration) ready(context.Context) error {
	ready := &journal.Ready{Containers: r.plan.Containers, Pin: r.plan.Pins}
	return r.x.RecordReady(ready, func() error {
		for i, v := range ready.Volumes {
			if err := r.plan.Opened()[i].Is(v.Live); err != nil {
				return err
			}
			if err := r.held.Directories([]disk.Handle{v.Live, v.Staged}); err != nil {
				return err
			}
		}
		return nil
	})
}

// fence stops the app and makes sure that nobody writes.
func (r *restoration) fence(ctx context.Context) error {
	r.down = time.Now()
	if r.plan.Running {
		r.say("stopping %s", r.w.Name)
	}
	r.sayAlso("stopping", r.plan.Containers)
	if err := r.rt.FenceAndStop(ctx, r.req.StopTimeout); err != nil {
		return fmt.Errorf("stop %s: %w", r.w.Name, err)
	}
	r.at("stopped")
	if _, err := r.host().Users(ctx, r.plan.Opened()); err != nil {
		return err
	}
	idle, err := preflight.Unheld(swap.LiveOf(r.plan.Opened()))
	for _, line := range idle {
		if !slices.Contains(r.result.Warnings, line) {
			r.result.Warnings = append(r.result.Warnings, line)
			r.say("warning: %s", line)
		}
	}
	return err
}

func (r *restoration) passTwo(ctx context.Context) error {
	if err := r.capture.PassTwo(ctx); err != nil {
		return r.storeFull(err)
	}
	return r.capture.Still()
}

func (r *restoration) publish(context.Context) error {
	return r.storeFull(r.capture.Publish(preRestore(r.result.PreRestoreSID, r.req.SID, r.plan.Containers)))
}

func (r *restoration) storeFull(err error) error {
	return r.Store.Root().WhenFull(err, r.plan.LiveBytes())
}

// swap exchanges all volumes, after a last look at handles and mounts.
func (r *restoration) swap(ctx context.Context) error {
	if err := swap.AllFit(r.plan.Opened()); err != nil {
		return err
	}
	if err := preflight.Whole(r.plan.Opened()); err != nil {
		return err
	}
	if err := r.stillStopped(ctx); err != nil {
		return err
	}
	if err := r.host().SamePlaces(ctx, r.plan.Chosen()); err != nil {
		return err
	}
	plan, err := r.x.PlanSwap()
	if err != nil {
		return err
	}
	if err := r.x.RecordTimes(r.sums); err != nil {
		return err
	}
	r.at("before swap")
	return r.x.Apply(plan)
}

// stillStopped refuses when somebody has started a container since the fence, of the
// workload or on its volumes.
func (r *restoration) stillStopped(ctx context.Context) error {
	now, err := r.rt.Containers(ctx)
	if err != nil {
		return err
	}
	for _, c := range now {
		if c.Running {
			return fault.Refuse("in_use", remedy.Of("find out what starts it, stop that, then try again"), "container %s was started during the restore", c.Name)
		}
	}
	_, err = r.host().Users(ctx, r.plan.Opened())
	return err
}

// commit writes the commit record, unless somebody has started a container since the
// swap began: it may have mounted old and new volumes mixed, and may write to a
// displaced tree, which would then be deleted. If Docker is down it starts no
// container, and going back would need it.
func (r *restoration) commit(ctx context.Context) error {
	if err := r.stillStopped(ctx); err != nil && !errors.Is(err, runtime.ErrUnreachable) {
		return err
	}
	// A signal that came during that look is still in time.
	if err := context.Cause(ctx); err != nil {
		return err
	}
	r.at("before commit")
	return r.tx.Commit()
}

// conclude brings the restore to its end, forward or back, as the records and the
// disk say: the same way as a recovery.
func (r *restoration) conclude(ctx context.Context, failed error) error {
	r.x.CloseVolumes()
	tx := r.tx
	if failed != nil {
		failed = r.goneOr(ctx, failed)
		// Only the disk can tell which records are in force: after a failed rename or
		// fsync a record may or may not be there.
		r.say("%v: undoing the restore", failed)
		tx.Close()
		var err error
		if tx, err = r.Journal.Load(r.tx.ID); err != nil {
			return fault.Freeze(r.tx.ID, "the restore failed (%w), and its records cannot be read: %w", failed, err)
		}
	}
	end := r.finish(ctx, tx, false)
	r.ran = end.ran("restore", tx.Begin)
	if !r.down.IsZero() {
		r.result.DowntimeSeconds = end.up.Sub(r.down).Seconds()
	}
	r.result.Warnings = append(r.result.Warnings, end.warnings...)
	if end.guarded {
		r.result.PreRestoreSID = end.preRestoreSID
	}
	r.result.Outcome = end.result()
	return end.verdict(r.w.Name, failed)
}
