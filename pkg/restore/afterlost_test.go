package restore

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
)

// A displaced tree was moved away by hand before it became a snapshot. The restore
// freezes, and its hint names the moved directory and offers no snapshot.
func TestGuardAfterAMissingDisplacedTreeFreezes(t *testing.T) {
	for _, keep := range []string{"", journal.KeepNew} {
		t.Run("keep-"+keep, func(t *testing.T) {
			w := newWorld(t, t.TempDir(), 2)
			w.fill("new")
			states := map[string][][]string{"new": w.trees()}
			sid := w.capture()
			w.fill("old")
			states["old"] = w.trees()
			w.killGuardAfter(sid, "guarding")
			tree, moved := w.displaced()[1], filepath.Join(w.dir, "live/moved")
			w.must(os.Rename(tree, moved))
			before := disktest.Tree(t, filepath.Join(w.dir, "live"))
			_, err := w.engine().Recover(t.Context(), RecoverRequest{})
			said := err.Error() + hintOf(err)
			if fault.KindOf(err) != fault.Frozen || !strings.Contains(said, "mv '"+moved+"' '"+tree+"'") || !strings.Contains(said, "--resolve keep-new") || strings.Contains(said, "snap restore") {
				t.Errorf("recover returned %v, hint %q", err, hintOf(err))
			}
			_, err = w.engine().Resolve(t.Context(), ResolveRequest{Workload: w.name, Keep: journal.KeepOld})
			if fault.KindOf(err) != fault.Frozen || strings.Contains(hintOf(err), "snap restore") {
				t.Errorf("keep-old returned %v, hint %q; there is no snapshot to restore", err, hintOf(err))
			}
			status, err := w.engine().Status(t.Context(), w.name)
			w.must(err)
			if lines := status[0].Pending.Volumes; len(lines) != 2 || !strings.HasSuffix(lines[1], "the old data is at "+moved) {
				t.Errorf("status says %q", lines)
			}
			disktest.Same(t, "frozen", before, disktest.Tree(t, filepath.Join(w.dir, "live")))
			if keep == "" {
				w.must(os.Rename(moved, tree))
				w.recoverTwice()
				w.oldDataRestores(states, nil)
				return
			}
			_, err = w.engine().Resolve(t.Context(), ResolveRequest{Workload: w.name, Keep: keep})
			if codeOf(err) != "confirm_required" || !strings.Contains(err.Error(), "this deletes the old data") {
				t.Errorf("keep-new returned %v", err)
			}
			r, err := w.engine().Resolve(t.Context(), ResolveRequest{Workload: w.name, Keep: keep, Confirm: status[0].Pending.Tx})
			w.must(err)
			w.generation(map[string][][]string{"new": states["new"]})
			w.clean()
			m, err := w.engine().Store.Load(w.name, r.Resolution.SID)
			if err != nil || len(m.Volumes) != 1 || m.Volumes[0].Name != "v0" {
				t.Errorf("the snapshot of the remaining old data is %+v, %v", m, err)
			}
			disktest.Same(t, "the tree that was moved away", states["old"][1], disktest.Tree(t, moved))
		})
	}
}

// All displaced trees were moved away by hand. --resolve keep-new then moves
// nothing, deletes nothing and makes no snapshot, and its message says so.
func TestKeepNewPromisesNothingWhenTheOldDataIsGone(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1)
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	sid := w.capture()
	w.fill("old")
	w.killGuardAfter(sid, "guarding")
	w.must(os.Rename(w.displaced()[0], filepath.Join(w.dir, "live/moved")))
	req := ResolveRequest{Workload: w.name, Keep: journal.KeepNew}
	r, err := w.engine().Resolve(t.Context(), req)
	if codeOf(err) != "confirm_required" || !strings.Contains(err.Error(), "deletes nothing") || strings.Contains(err.Error(), "moves") {
		t.Errorf("keep-new returned %v", err)
	}
	req.Confirm = r.Tx
	r, err = w.engine().Resolve(t.Context(), req)
	w.must(err)
	if r.Resolution.SID != "" {
		t.Errorf("the resolution names snapshot %s", r.Resolution.SID)
	}
	w.generation(states)
	w.clean()
}

// The ready record is lost after an exchange. Without it the displaced tree, the
// only copy of the old data, looks like a staged tree, so recovery freezes.
func TestGuardAfterALostReadyRecordFreezes(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2)
	w.fill("new")
	sid := w.capture()
	w.fill("old")
	w.killGuardAfter(sid, "exchanged v0")
	for _, record := range []string{"ready", "times"} {
		lost, err := filepath.Glob(filepath.Join(w.dir, "state/tx/*", record))
		if err != nil || len(lost) != 1 {
			t.Fatal(lost, err)
		}
		w.must(os.Remove(lost[0]))
	}
	before := disktest.Tree(t, filepath.Join(w.dir, "live"))
	_, err := w.engine().Recover(t.Context(), RecoverRequest{})
	if fault.KindOf(err) != fault.Frozen || !strings.Contains(err.Error(), "the ready record is missing, though the old data is at") {
		t.Errorf("recover returned %v, expected frozen", err)
	}
	disktest.Same(t, "frozen", before, disktest.Tree(t, filepath.Join(w.dir, "live")))
}
