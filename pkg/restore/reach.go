package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/preflight"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/swap"
)

// unheld refuses trees that somebody can still reach.
func (s *session) unheld(trees []snapshot.Source) error {
	var dirs []*disk.Dir
	for _, tree := range trees {
		dirs = append(dirs, tree.Live)
	}
	idle, err := preflight.Unheld(dirs)
	for _, line := range idle {
		s.say("warning: %s", line)
	}
	return err
}

// letGo makes sure that nothing is lost with the trees that the goal drops, if they
// may have been live: that nobody reaches them any more, and then that what they hold
// is in a snapshot. Nobody can come to hold them in between, since they lie in a
// wrapper that only root can enter.
func (f *finish) letGo(ctx context.Context) error {
	if f.x.TimesRecord == nil && !f.x.Decision().Operator { // no exchange has begun
		return nil
	}
	trees, err := f.openTrees(f.openDropped)
	defer closeTrees(trees)
	if err != nil || len(trees) == 0 {
		return err
	}
	if err := f.unheld(trees); err != nil {
		return f.stillHeld(err)
	}
	f.at("let go")
	if f.x.Goal() == swap.Undecided {
		if touched, err := f.touched(ctx, trees); err != nil || !touched {
			return err
		}
	}
	err = f.keep(ctx, trees)
	if _, loadErr := f.Store.Load(f.w.Name, f.x.Decision().TakenSID); err == nil && loadErr == nil {
		f.end.takenSID = f.x.Decision().TakenSID
	}
	var changed *snapshot.Changed
	switch {
	case errors.As(err, &changed):
		return f.stillHeld(err)
	case snapshot.HeldByNone(err):
		// No snapshot can hold it, and no other copy exists.
		f.warn("no snapshot can hold the data that goes, so it is preserved beside the live directory: %v", err)
		err = f.x.PreserveTaken()
	}
	if err != nil {
		return fmt.Errorf("save the data that goes as snapshot %s: %w", f.x.Decision().TakenSID, err)
	}
	return nil
}

// touched reports whether anything in the staged trees of a restore that did not commit
// may have changed since they were staged. Between the first exchange and the way back
// they may have been live, a power cut and a boot long, and where they are now does not
// tell: an earlier recovery may have exchanged them back. Only stat tells, so nothing is
// read of a tree that nobody has changed.
func (f *finish) touched(ctx context.Context, trees []snapshot.Source) (bool, error) {
	for _, tree := range trees {
		proves, err := tree.Live.TimesProve()
		if err != nil {
			return false, err
		}
		sum, newest, err := archive.StatSum(ctx, tree.Live)
		if err != nil && !snapshot.HeldByNone(err) {
			return false, err
		}
		if err != nil || !proves || !f.x.AsStaged(tree.Volume.Name, sum, journal.Time(newest)) {
			f.say("volume %s: the new data may have changed while it was live: comparing it with snapshot %s", tree.Volume.Name, f.x.Begin.SID)
			return true, nil
		}
	}
	return false, nil
}

// openDropped opens the tree of volume i that the goal drops.
func (f *finish) openDropped(i int) (*disk.Dir, error) {
	drops := f.x.Goal().Drops()
	switch {
	case f.x.Goal() == swap.Undecided: // to compare it with what was staged
		return f.x.OpenStaged(i)
	case drops == swap.Old && f.x.TimesRecord != nil:
		return f.x.OpenDisplaced(i)
	}
	return f.x.Volumes[i].OpenTaken(drops)
}

// warn says a line, which the result of a restore has too.
func (f *finish) warn(format string, args ...any) {
	f.end.warnings = append(f.end.warnings, fmt.Sprintf(format, args...))
	f.say("warning: "+format, args...)
}

// stillHeld says why the trees that go are not deleted yet, and what to do.
func (f *finish) stillHeld(err error) error {
	whose := "the old data"
	if f.x.Goal().Drops() == swap.New {
		whose = "the data that was taken back"
	}
	way := "find the program that writes there (fuser -v on the file), stop it"
	var unfit *swap.Unfit
	if errors.As(err, &unfit) {
		way = strings.TrimSuffix(unfit.Hint, swap.ThenAgain)
	}
	return fault.New(fault.Pending, "held", remedy.Of(way+", then ", remedy.Recover(f.w.Name)),
		"%s stays where it is (%s), since somebody can still write to it: %w", whose, strings.Join(f.x.EntryPaths(), ", "), err)
}

// keep publishes a snapshot of trees that are about to be deleted, unless a snapshot
// has them as they are. After a revert nothing has the new data, on which the app was
// up; after an operator's decision nothing need have what was decided against. The old
// data of a restore that stays is in the pre-restore snapshot, and the new data of one
// that did not commit in the snapshot that was restored, unless somebody has written to
// it since.
//
// The id of the snapshot is in the records. So a run that was cut, after which keep
// runs again, finds the snapshot and compares it too.
func (f *finish) keep(ctx context.Context, trees []snapshot.Source) error {
	d := f.x.Decision()
	known := []string{d.TakenSID}
	note, written := "taken back: the restore of "+f.x.Begin.SID, ""
	switch {
	case d.Operator && d.Goal == swap.Committed:
		note = "from before the restore of " + f.x.Begin.SID + ", which the operator kept"
	case d.Goal == swap.Committed:
		known = append(known, f.x.Begin.PreRestoreSID)
		written = "the old data after snapshot " + f.x.Begin.PreRestoreSID + " was made of it"
		note = "written to the old data after snapshot " + f.x.Begin.PreRestoreSID + ", during the restore of " + f.x.Begin.SID
	case d.Goal == swap.Undecided:
		known = append(known, f.x.Begin.SID)
		written = "the new data while it was live"
		note = "written to the new data of the restore of " + f.x.Begin.SID + ", which was undone"
	}
	taken, err := f.taken(ctx, trees, known)
	if err != nil {
		return err
	}
	if taken {
		return f.Store.Root().SyncFS() // an earlier run made it, and may have been killed before the sync
	}
	if _, err := f.Store.Load(f.w.Name, d.TakenSID); err == nil {
		f.warn("the data that goes was changed again after snapshot %s was made of it, so it is preserved beside the live directory", d.TakenSID)
		return f.x.PreserveTaken()
	}
	if err := f.discard(f.x.Tx, d.TakenSID); err != nil {
		return err
	}
	if written != "" {
		f.warn("somebody wrote to %s: what it holds now becomes snapshot %s", written, d.TakenSID)
	} else {
		f.say("saving the data that goes as snapshot %s (%s)", d.TakenSID, note)
	}
	err = f.publishLeaving(ctx, f.x.Tx, trees, true, // it will be the only copy
		&store.Manifest{SID: d.TakenSID, Reason: store.PreRestore, Note: note, Quiesce: runtime.Stop})
	f.at("kept")
	return err
}

// taken reports whether one of the snapshots has the trees as they are now. Like a
// second pass, it reads only what the snapshot's index does not prove to be unchanged.
func (f *finish) taken(ctx context.Context, trees []snapshot.Source, sids []string) (bool, error) {
	for _, sid := range sids {
		m, err := f.Store.Load(f.w.Name, sid)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		if same, err := f.has(ctx, trees, m); same || err != nil {
			return same, err
		}
	}
	return false, nil
}

// has reports whether a snapshot has the trees as they are now.
func (f *finish) has(ctx context.Context, trees []snapshot.Source, m *store.Manifest) (bool, error) {
	if err := f.Store.Clear(f.x.ID); err != nil { // of a run that was cut
		return false, err
	}
	capture, err := f.newCapture(ctx, f.x.Tx, trees, snapshot.Options{Compare: m})
	if err != nil {
		return false, err
	}
	defer capture.Close()
	if err := capture.PassTwo(ctx); err != nil {
		return false, err
	}
	if err := capture.Still(); err != nil {
		return false, err
	}
	return capture.Same(m), nil
}
