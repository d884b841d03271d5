package restore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// guardFor returns when a restore guards: as it was asked, else as configured.
func (s *session) guardFor(req RestoreRequest) (string, error) {
	switch req.Guard {
	case "":
		return s.w.Guard, nil
	case workload.GuardBefore, workload.GuardAfter:
		return req.Guard, nil
	}
	return "", fault.New(fault.Usage, "usage", remedy.Remedy{}, "unknown guard %q: use %s or %s", req.Guard, workload.GuardBefore, workload.GuardAfter)
}

// openTxn opens the directories of a transaction. First it finds out whether the
// snapshot of the old data exists.
func (e *Engine) openTxn(tx *journal.Tx, gone ...string) (*swap.Tx, error) {
	guarded := true
	var unknown error
	if tx.Begin.Guard == journal.GuardAfter {
		guarded, unknown = e.published(tx.Begin)
		// If the store is missing it is safe to assume that no snapshot exists: guarding
		// deletes nothing, and a later recovery deletes the trees. Before the commit and
		// after a revert the live directory is the old data.
		var missing *store.Missing
		if unknown != nil && !errors.As(unknown, &missing) && swap.Decide(tx, false).Goal == swap.Guarding {
			return nil, fmt.Errorf("cannot tell whether the old data is a snapshot yet: %w", unknown)
		}
	}
	x, err := swap.Open(tx, guarded, e.at, gone...)
	if err != nil {
		return nil, err
	}
	x.GuardUnknown = unknown
	return x, nil
}

// isGuarded reports whether there is nothing to guard after the app is up. The data
// that an operator decides against becomes a snapshot in any case: see keepTaken.
func (f *finish) isGuarded() bool { return !f.x.Decision().Guards }

// guard makes the pre-restore snapshot of the displaced trees. When it returns nil
// that snapshot exists, durably, and the trees may be deleted. Otherwise they are
// as they were, and it may be called again.
func (f *finish) guard(ctx context.Context) error {
	if err := f.makeGuard(ctx); err != nil {
		return &endsAs{restoredUnguarded, f.keepsDisplaced(fault.Because(ctx, err))}
	}
	f.x.Guarded()
	f.end.guarded = true
	f.at("guarded")
	return nil
}

func (f *finish) makeGuard(ctx context.Context) error {
	if f.x.Goal() == swap.Committed { // an earlier run made it, and may have been killed before it synced it
		st, err := f.stored()
		if err != nil {
			return err
		}
		return st.Root().SyncFS()
	}
	if !f.x.Decision().AppUp {
		f.at("before guarding")
		if err := f.x.Guard(); err != nil {
			return err
		}
	}
	f.at("guarding")
	return f.publishDisplaced(ctx)
}

func (f *finish) publishDisplaced(ctx context.Context) error {
	sid := f.x.Begin.PreRestoreSID
	// An interrupted run may have left something, and a full store needs the room.
	if err := f.discard(f.x.Tx, sid); err != nil {
		return err
	}
	trees, err := f.openTrees(f.x.OpenDisplaced)
	defer closeTrees(trees)
	if err == nil && len(trees) != len(f.x.Volumes) {
		err = fmt.Errorf("only %d of %d displaced trees are there", len(trees), len(f.x.Volumes))
	}
	if err != nil {
		return err
	}
	if err := f.unheld(trees); err != nil {
		return err
	}
	f.say("saving the old data as snapshot %s", sid)
	if err := f.captureDisplaced(ctx, sid, trees); err != nil {
		return errors.Join(f.Store.Root().WhenFull(err, 0), f.discard(f.x.Tx, sid))
	}
	return nil
}

// captureDisplaced captures the displaced trees. Reading them takes long; the second
// pass, a walk by stat alone, sees whether anybody wrote to them meanwhile.
func (f *finish) captureDisplaced(ctx context.Context, sid string, trees []snapshot.Source) error {
	capture, err := f.newCapture(ctx, f.x.Tx, trees, snapshot.Options{Verify: true})
	if err != nil {
		return err
	}
	defer capture.Close()
	if err := capture.Ahead(ctx); err != nil {
		return err
	}
	f.at("displaced read")
	if err := f.unheld(trees); err != nil {
		return err
	}
	if err := capture.PassTwo(ctx); err != nil {
		return err
	}
	if err := capture.Still(); err != nil {
		return err
	}
	return capture.Publish(preRestore(sid, f.x.Begin.SID, f.x.Before()))
}

func preRestore(sid, restored string, containers []runtime.Container) *store.Manifest {
	return &store.Manifest{SID: sid, Reason: store.PreRestore, Note: store.BeforeRestore + restored, Quiesce: runtime.Stop, Images: images(containers)}
}

// keepsDisplaced says why the old data is not a snapshot yet, where it is, and
// what can be done.
func (f *finish) keepsDisplaced(err error) *fault.Error {
	again := remedy.Recover(f.w.Name)
	where := strings.Join(f.x.EntryPaths(), ", ")
	way := remedy.Of("fix that, then ", again)
	switch own := fault.Classify(err); {
	case own.Kind == fault.Interrupted:
		way = remedy.Of(again)
	case snapshot.HeldByNone(err):
		way = remedy.Of("move the files that the error names out of "+where+", then ", again)
	case fault.NoSpace(err):
		way = remedy.Of("free space on the filesystem of the store, then ", again)
	case !own.Remedy.Empty():
		way = remedy.Of(own.Remedy, "; then ", again)
	}
	return fault.New(fault.Pending, "guarding", way, "the old data is not a snapshot yet and stays as it is (%s): %w", where, err)
}
