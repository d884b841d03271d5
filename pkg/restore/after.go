package restore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// This file is `--guard after`. The displaced trees themselves are the copy of
// the old data until the pre-restore snapshot has been made of them, with the app
// up on the new data. Until then the goal of the records is swap.Guarding, under
// which nothing is deleted and a missing tree freezes.

// guardFor returns when a restore guards: as it was asked, else as configured.
func (s *session) guardFor(req RestoreRequest) (string, error) {
	switch req.Guard {
	case "":
		return s.w.Guard, nil
	case workload.GuardBefore, workload.GuardAfter:
		return req.Guard, nil
	}
	return "", fault(Usage, "usage", remedy.Remedy{}, "unknown guard %q: use %s or %s", req.Guard, workload.GuardBefore, workload.GuardAfter)
}

// openTxn opens the directories of a transaction. First it finds out whether the
// snapshot of the old data exists.
func (e *Engine) openTxn(tx *journal.Tx) (*swap.Tx, error) {
	guarded := true
	var noStore error
	if tx.Begin.Guard == journal.GuardAfter {
		var err error
		guarded, err = e.published(tx.Begin)
		var missing *store.Missing
		if errors.As(err, &missing) {
			// To assume that no snapshot exists is safe: guarding deletes nothing, and a
			// later recovery deletes the trees.
			noStore, err = err, nil
		}
		// Before the commit and after a revert the live directory is the old data.
		if err != nil && swap.Decide(tx, false).Goal == swap.Guarding {
			return nil, fmt.Errorf("cannot tell whether the old data is a snapshot yet: %w", err)
		}
	}
	x, err := swap.Open(tx, guarded, e.at)
	if err != nil {
		return nil, err
	}
	x.GuardUnknown = noStore
	return x, nil
}

// isGuarded reports whether there is nothing to guard after the app is up. The data
// that an operator decides against becomes a snapshot in any case: see keepTaken.
func (f *finish) isGuarded() bool {
	return !f.x.Decision().Guards
}

// guard makes the pre-restore snapshot of the displaced trees. When it returns nil
// that snapshot exists, durably, and the trees may be deleted. Otherwise they are
// as they were, and it may be called again.
func (f *finish) guard(ctx context.Context) error {
	if err := f.makeGuard(ctx); err != nil {
		var left error = f.keepsDisplaced(because(ctx, err))
		if f.sick != nil {
			left = fmt.Errorf("%w; and %w", f.sick, left)
		}
		return f.stopAt(restoredUnguarded, restoredUnguarded, left)
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
	sweep := func() error { // an interrupted run may have left something, and a full store needs the room
		return errors.Join(f.discard(f.w.Name, sid), f.clear(f.x.ID))
	}
	if err := sweep(); err != nil {
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
	if err := holdersOf(trees); err != nil {
		return err
	}
	f.say("saving the old data as snapshot %s", sid)
	if err := f.captureDisplaced(ctx, sid, trees); err != nil {
		return errors.Join(err, sweep())
	}
	return nil
}

// captureDisplaced captures the displaced trees. Reading them takes long. Nobody
// should write to them meanwhile; the second pass, a walk by stat alone, sees
// whether anybody did.
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
	if err := holdersOf(trees); err != nil {
		return err
	}
	if err := capture.PassTwo(ctx); err != nil {
		return err
	}
	if err := capture.Still(); err != nil {
		return err
	}
	return capture.Publish(&store.Manifest{
		SID: sid, Reason: store.PreRestore, Note: beforeRestore(f.x.Begin.SID), Quiesce: runtime.Stop, Images: images(f.x.Before()),
	})
}

func holdersOf(trees []snapshot.Source) error {
	var dirs []*disk.Dir
	for _, tree := range trees {
		dirs = append(dirs, tree.Live)
	}
	return swap.NoHolders(dirs, disk.AllProcesses)
}

// beforeRestore is the note of a pre-restore snapshot.
func beforeRestore(sid string) string { return "before the restore of " + sid }

// keepsDisplaced says why the old data is not a snapshot yet, where it is, and
// what can be done.
func (f *finish) keepsDisplaced(err error) *Error {
	again := remedy.Recover(f.w.Name)
	where := strings.Join(f.x.EntryPaths(), ", ")
	way := remedy.Of("fix that, then ", again)
	var bad *archive.Unrestorable
	switch own := classify(err); {
	case own.Kind == Interrupted:
		way = remedy.Of(again)
	case errors.As(err, &bad):
		way = remedy.Of("move the files that the error names out of "+where+", then ", again)
	case isNoSpace(err):
		way = remedy.Of("free space on the filesystem of the store, then ", again)
	case !own.Remedy.Empty():
		way = remedy.Of(own.Remedy, "; then ", again)
	}
	return fault(Pending, "guarding", way, "the old data is not a snapshot yet and stays as it is (%s): %w", where, err)
}
