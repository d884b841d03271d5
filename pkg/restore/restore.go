package restore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/store"
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
	Volumes         []PlannedVolume
	Phases          map[string]float64
	Warnings        []string
	Tx              string
	PassOne         PassOne
}

// Restore puts a snapshot back: see phase.go for the order. When it returns
// nil all volumes are new, durably, and the app is up if it was before. The
// kind of an error says what is on disk. A result comes with an error when the
// restore got as far as the commit.
//
// ctx may end it until the commit, with all volumes old and the app as before;
// after the commit it goes on to the end.
func (e *Engine) Restore(ctx context.Context, req RestoreRequest) (*RestoreResult, error) {
	// One thread makes all effects of the critical section: whoever traces the
	// process, as the crash proofs do, then sees them in one order.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	if err := checkConfirm(req); err != nil {
		return nil, err
	}
	s, err := e.begin(ctx, "restore", req.Workload)
	if err != nil {
		return nil, err
	}
	defer s.close()
	r := &restoration{session: s, req: req, result: &RestoreResult{Workload: req.Workload, SID: req.SID, Phases: s.time}, release: func() {}, uninhibit: func() {}, hasten: func() {}}
	err = r.run(ctx)
	r.result.Seconds = time.Since(s.when).Seconds()
	s.audit(req.SID, r.result.Tx, err)
	if r.result.Outcome == "" {
		return nil, err
	}
	return r.result, err
}

func checkConfirm(req RestoreRequest) error {
	command := fmt.Sprintf("snap restore %s %s --confirm %s", req.Workload, req.SID, req.SID)
	switch {
	case !disk.ValidID(req.SID):
		return fault(Usage, "bad_sid", "snap list "+req.Workload, "%q is not the id of a snapshot", req.SID)
	case req.Confirm == "":
		return refused("confirm_required", command, "a restore replaces the live data of %s: it must be confirmed", req.Workload)
	case req.Confirm != req.SID:
		return refused("confirm_mismatch", command, "--confirm is %q, but the snapshot is %s", req.Confirm, req.SID)
	}
	return nil
}

type restoration struct {
	*session
	req    RestoreRequest
	plan   *Plan
	tx     *journal.Tx
	x      *txn
	shot   *shooting
	result *RestoreResult
	down   time.Time // when the fence began; zero before

	release, uninhibit func() // of the guard; of the shutdown
	hasten             func() // gives back the priority that the app had first
}

func (r *restoration) run(ctx context.Context) error {
	err := r.time.run("preflight", func() (err error) {
		r.plan, err = r.session.plan(ctx, r.req)
		return err
	})
	defer r.plan.close()
	if err != nil {
		return classify(because(ctx, err))
	}
	r.result.Guard, r.result.Volumes, r.result.Warnings = r.plan.Guard, r.plan.Volumes, r.plan.Warnings
	for _, warning := range r.plan.Warnings {
		r.say("warning: %s", warning)
	}
	if err := r.record(); err != nil {
		return classify(err)
	}
	r.fullSpeed = r.req.FullSpeed
	r.hasten = gently(r.req.FullSpeed)
	defer func() {
		r.hasten()
		r.x.close()
		r.uninhibit()
		r.release()
	}()
	err = r.upToCommit(ctx)
	if err == nil {
		r.uninhibit() // all data is new, and a recovery at boot starts the app as well
	}
	if r.shot != nil {
		r.shot.close()
	}
	// From here on no signal ends the work.
	return r.conclude(context.WithoutCancel(ctx), err)
}

// record writes the begin record.
func (r *restoration) record() error {
	begin := &journal.Begin{
		Kind: journal.Restore, Snap: r.Version, SID: r.req.SID, PreRestoreSID: disk.NewID(time.Now()), RevertSID: disk.NewID(time.Now()),
		OnUnhealthy: r.req.OnUnhealthy, HealthTimeout: r.req.HealthTimeout, StopTimeout: r.req.StopTimeout,
	}
	if r.guardsAfter() {
		begin.Guard = journal.GuardAfter
	}
	for i, p := range r.plan.places {
		v, err := r.volume(i, p)
		if err != nil {
			return err
		}
		begin.Volumes = append(begin.Volumes, v)
	}
	r.at("before begin")
	var err error
	if r.tx, err = r.Journal.Begin(r.held, begin); err != nil {
		return err
	}
	r.at("begin")
	if r.result.Tx = r.tx.ID; !r.guardsAfter() {
		r.result.PreRestoreSID = begin.PreRestoreSID
	}
	// Opened before the first byte is staged, so that each later syncfs on it
	// reports every failed write-back (syncfs(2)).
	if err := r.createLive(); err != nil {
		return errors.Join(err, r.abandon())
	}
	if r.x, err = r.openTxn(r.tx); err != nil {
		return errors.Join(err, r.abandon())
	}
	return nil
}

// volume is how the begin record names a place.
func (r *restoration) volume(i int, p *place) (journal.Volume, error) {
	v := journal.Volume{Name: p.vol.Name, Root: p.vol.Root(), Rel: p.vol.Rel(), Entry: strconv.Itoa(i), Created: p.missing}
	var err error
	if v.Anchor, v.AnchorHandle, err = p.anchor(); err == nil && r.guardsAfter() && p.live != nil {
		v.Live, err = p.live.Handle()
	}
	return v, err
}

func (r *restoration) createLive() error {
	for _, p := range r.plan.places {
		if err := p.create(); err != nil {
			return fmt.Errorf("volume %s: %w", p.vol.Name, err)
		}
	}
	// What was missing now has a handle of its own to lock.
	return r.lockVolumes()
}

// abandon ends a transaction of which nothing but created directories exists.
func (r *restoration) abandon() error {
	x, err := r.openTxn(r.tx)
	if err != nil {
		return err
	}
	defer x.close()
	return x.clean()
}

// upToCommit takes the steps that lead to the commit. Whatever it returns, the
// records say what has to follow.
func (r *restoration) upToCommit(ctx context.Context) error {
	steps := []struct {
		name string
		step func(context.Context) error
	}{
		{"stage", r.stage}, {"pass_one", r.passOne}, {"ready", r.ready},
		{"fence", r.fence}, {"pass_two", r.passTwo}, {"publish", r.publish}, {"swap", r.swap}, {"commit", r.commit},
	}
	for _, step := range steps {
		if r.guardsAfter() && slices.Contains(guardsBefore, step.name) {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.time.run(step.name, func() error { return step.step(ctx) }); err != nil {
			return because(ctx, err)
		}
		r.at(step.name)
	}
	return nil
}

// stage extracts every volume beside its live directory and makes it durable.
func (r *restoration) stage(ctx context.Context) error {
	defer moreThreads()()
	for i, site := range r.x.sites {
		m := r.manifestOf(i)
		r.say("staging volume %s: %d files, %d bytes", site.Name, m.Files, m.Bytes)
		if err := r.stageOne(ctx, site, m, i); err != nil {
			return fmt.Errorf("stage volume %s: %w", site.Name, err)
		}
	}
	return nil
}

func (r *restoration) manifestOf(i int) *store.Volume {
	v := r.plan.places[i].vol
	return r.plan.manifest.Volume(v.Name, string(v.Scope), v.Source)
}

func (r *restoration) stageOne(ctx context.Context, site *site, m *store.Volume, i int) error {
	wrapper, err := site.openWrapper()
	if err == nil && wrapper == nil {
		wrapper, err = site.parent.MakePrivate(site.wrapper)
	}
	if err != nil {
		return err
	}
	defer wrapper.Close()
	into, err := wrapper.MakePrivate(site.Entry)
	if err != nil {
		return err
	}
	defer into.Close()
	r.at("staging " + site.Name)
	tar := archive.NewReader(ctx, r.Store, m.Members)
	defer tar.Close()
	opt := limits(m, r.plan.places[i].vol)
	if err := r.cloning(r.plan.places[i], &opt); err != nil {
		return err
	}
	back, err := into.StartWriteBack()
	if err != nil {
		return err
	}
	opt.Wrote = back.Wrote
	got, err := archive.Extract(ctx, tar, into, opt)
	back.End()
	if err != nil {
		return err
	}
	if got != m.Stats {
		return fmt.Errorf("%w: it holds %+v, its manifest says %+v", archive.ErrRefused, got, m.Stats)
	}
	return into.SyncFS()
}

func (r *restoration) passOne(ctx context.Context) error {
	var err error
	if r.shot, err = r.newShooting(ctx, r.tx, r.plan.places, true); err != nil {
		return err
	}
	r.say("first pass of the pre-restore snapshot %s", r.result.PreRestoreSID)
	if err := r.shot.first(ctx); err != nil {
		return err
	}
	r.result.PassOne = r.shot.passOne()
	return nil
}

// ready records the handles.
func (r *restoration) ready(context.Context) error {
	ready := &journal.Ready{Containers: r.plan.Containers, Pin: pins(r.plan.Containers)}
	for _, site := range r.x.sites {
		wrapper, err := site.openWrapper()
		if err != nil {
			return err
		}
		if wrapper == nil {
			return fmt.Errorf("volume %s: the staged tree is gone", site.Name)
		}
		staged, err := wrapper.HandleOf(site.Entry)
		wrapper.Close()
		if err != nil {
			return err
		}
		live, err := site.parent.HandleOf(site.base)
		if err != nil {
			return err
		}
		if live == "" || staged == "" {
			return fmt.Errorf("volume %s: the live or the staged directory is gone", site.Name)
		}
		site.handles = journal.ReadyVolume{Live: live, Staged: staged}
		ready.Volumes = append(ready.Volumes, site.handles)
	}
	if err := r.sameAsPlanned(); err != nil {
		return err
	}
	for _, v := range ready.Volumes {
		if err := r.held.Directories([]disk.Handle{v.Live, v.Staged}); err != nil {
			return err
		}
	}
	r.at("before ready")
	return r.tx.Ready(ready)
}

// sameAsPlanned makes sure that the directories whose handles are recorded are
// those that the pre-flight looked at and the first pass has read.
func (r *restoration) sameAsPlanned() error {
	for i, p := range r.plan.places {
		h, err := p.live.Handle()
		if err != nil {
			return err
		}
		if h != r.x.sites[i].handles.Live {
			return renamed(p)
		}
	}
	return nil
}

// renamed refuses a volume whose path leads elsewhere than it did.
func renamed(p *place) error {
	return refused("in_use", "find out what renames directories there, then try again",
		"volume %s: %s is no longer the directory that it was: somebody has renamed or replaced it meanwhile", p.vol.Name, p.path())
}

// fence stops the app and makes sure that nobody writes.
func (r *restoration) fence(ctx context.Context) error {
	r.hasten()
	if len(r.plan.Containers) > 0 {
		r.release = r.guarded(r.tx.ID)
	}
	r.uninhibit = r.inhibited()
	r.down = time.Now()
	if r.plan.running {
		r.say("stopping %s", r.w.Name)
	}
	if err := r.rt.FenceAndStop(ctx, r.req.StopTimeout); err != nil {
		return fmt.Errorf("stop %s: %w", r.w.Name, err)
	}
	r.at("stopped")
	if err := r.noUsers(ctx); err != nil {
		return err
	}
	return holders(r.plan.places, disk.AllProcesses)
}

func (r *restoration) passTwo(ctx context.Context) error {
	if err := r.shot.second(ctx); err != nil {
		return err
	}
	return r.shot.still()
}

func (r *restoration) publish(context.Context) error {
	_, err := r.shot.publish(r.result.PreRestoreSID, store.PreRestore, beforeRestore(r.req.SID), journal.Stop, r.plan.Containers)
	return err
}

// swap exchanges all volumes, after a last look at handles and mounts.
func (r *restoration) swap(ctx context.Context) error {
	mounts, err := disk.ReadMounts()
	if err != nil {
		return err
	}
	for _, p := range r.plan.places {
		if err := p.restorable(mounts); err != nil {
			return err
		}
	}
	if err := r.stillStopped(ctx); err != nil {
		return err
	}
	list := make([]move, len(r.x.sites))
	for i, site := range r.x.sites {
		seen, err := site.look()
		if err != nil {
			return err
		}
		if seen != oldNew {
			return fmt.Errorf("volume %s (%s): %s", site.Name, site.path(), seen)
		}
		list[i] = exchange
	}
	if err := r.x.recordTimes(); err != nil {
		return err
	}
	r.at("before swap")
	return r.x.carryOut(list)
}

// noUsers asks again what the pre-flight has asked: somebody may have started
// another container on a volume while it was staged.
func (r *restoration) noUsers(ctx context.Context) error {
	return r.planUsers(ctx, &Plan{places: r.plan.places}, r.req)
}

// stillStopped refuses when somebody started a container since the fence.
func (r *restoration) stillStopped(ctx context.Context) error {
	now, err := r.rt.Containers(ctx)
	if err != nil {
		return err
	}
	for _, c := range now {
		if c.Running {
			return refused("in_use", "find out who starts it, then try again", "container %s was started during the restore", c.Name)
		}
	}
	return r.noUsers(ctx)
}

// commit makes the restore hold, after a look whether somebody has started a
// container since the one before the swap: it may have mounted old and new
// mixed, and a displaced tree that it writes to would be deleted. An engine that
// is away starts none, and to go back would take it.
func (r *restoration) commit(ctx context.Context) error {
	if err := r.stillStopped(ctx); err != nil && !errors.Is(err, journal.ErrUnreachable) {
		return err
	}
	// A signal that came during that look is still in time.
	if err := context.Cause(ctx); err != nil {
		return err
	}
	r.at("before commit")
	return r.tx.Commit()
}

// conclude brings everything to an end, forward or back, from what the records
// and the disk say: the same way as a recovery.
func (r *restoration) conclude(ctx context.Context, cause error) error {
	r.x.close()
	tx := r.tx
	if cause != nil {
		// Which records are in force only the disk can tell: an error of a
		// rename or of an fsync leaves it open.
		r.say("%v: undoing the restore", cause)
		tx.Close()
		var err error
		if tx, err = r.Journal.Load(r.tx.ID); err != nil {
			return frozen(r.tx.ID, "after %w its records cannot be read: %w", cause, err)
		}
	}
	end := r.resolve(ctx, tx, false)
	if !r.down.IsZero() {
		r.result.DowntimeSeconds = end.up.Sub(r.down).Seconds()
	}
	if r.guardsAfter() && end.guarded {
		r.result.PreRestoreSID = tx.Begin.PreRestoreSID
	}
	return r.verdict(tx, end, cause)
}
