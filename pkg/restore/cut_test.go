package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
)

// cutWorld is a host on which the power went after the first of two exchanges: volume
// v0 has the new tree, v1 the old one.
type cutWorld struct {
	*world
	sid    string                // of the new data
	states map[string][][]string // old and new
	before int                   // how many snapshots there are
}

func newCut(t *testing.T, dir string) *cutWorld {
	t.Helper()
	w := &cutWorld{world: newWorld(t, dir, 2), states: map[string][][]string{}}
	w.fill("new")
	w.states["new"] = w.trees()
	w.sid = w.capture()
	w.cut()
	return w
}

// cut restores and is killed, on data that is old again.
func (w *cutWorld) cut() {
	w.Helper()
	w.fill("old")
	w.states["old"] = w.trees()
	if points, killed := w.run("restore", w.sid, 0, "SNAP_TEST_POINT=exchanged v0"); !killed {
		w.Fatalf("not killed: %q", points)
	}
	w.before = len(w.snapshots())
}

// rewrite writes the record of the times anew.
func (w *cutWorld) rewrite(change func(r *journal.Times)) {
	w.Helper()
	e := w.engine()
	ids, err := e.Journal.List()
	w.must(err)
	tx, err := e.Journal.Load(ids[0])
	w.must(err)
	change(tx.TimesRecord)
	w.must(errors.Join(tx.Times(tx.TimesRecord), tx.Close()))
}

// statSums are the checksums of the new trees, and their newest time.
func (w *cutWorld) statSums() (sums []string, newest journal.Time) {
	w.Helper()
	for _, path := range []string{w.volumes[0], w.displacedOf(1)} {
		d, err := disk.OpenRoot(path)
		w.must(err)
		sum, at, err := archive.StatSum(w.Context(), d)
		w.must(errors.Join(err, d.Close()))
		sums = append(sums, sum)
		if at.Sec > newest.Sec || at.Sec == newest.Sec && at.Nsec > newest.Nsec {
			newest = journal.Time(at)
		}
	}
	return sums, newest
}

// displacedOf is the tree of volume i in the wrapper.
func (w *cutWorld) displacedOf(i int) string { return w.displaced()[i] }

// kept fails the test unless the old data is live, and one more snapshot exists, which a
// recovery has named and which restores v0 as want and v1 as it was staged. With want nil
// there must be no such snapshot.
func (w *cutWorld) kept(named string, want []string) {
	w.Helper()
	if got := w.generation(w.states); got != "old" {
		w.Errorf("all volumes are %s", got)
	}
	w.clean()
	list := w.snapshots()
	if want == nil {
		if len(list) != w.before || named != "" {
			w.Errorf("nothing had changed, and %d snapshots became %d, named %q", w.before, len(list), named)
		}
		return
	}
	if len(list) != w.before+1 || named == "" {
		w.Fatalf("%d snapshots became %d, named %q", w.before, len(list), named)
	}
	for _, m := range list {
		if m.SID == named && !strings.HasPrefix(m.Note, "written to the new data of the restore of "+w.sid) {
			w.Errorf("the note is %q", m.Note)
		}
	}
	_, err := w.restore(named)
	w.must(err)
	disktest.Same(w.T, "what was written", want[1:], disktest.Tree(w.T, w.volumes[0])[1:]) // a restore to another place has another root
	disktest.Same(w.T, "the other volume", w.states["new"][1], disktest.Tree(w.T, w.volumes[1]))
}

// changes are what a process may do to a tree that is live.
var changes = map[string]func(live string) error{
	"nothing":    nil,
	"a new file": func(live string) error { return os.WriteFile(live+"/later", []byte("x"), 0o600) },
	"a new file deep inside": func(live string) error {
		return os.WriteFile(live+"/empty/later", nil, 0o600)
	},
	"a new directory": func(live string) error { return os.Mkdir(live+"/empty/later", 0o700) },
	"a write in place": func(live string) error {
		return writeAt(live+"/large", os.O_WRONLY, "?")
	},
	"a write in place, and the time put back": func(live string) error {
		info, err := os.Stat(live + "/large")
		if err != nil {
			return err
		}
		return errors.Join(writeAt(live+"/large", os.O_WRONLY, "?"), os.Chtimes(live+"/large", info.ModTime(), info.ModTime()))
	},
	"an append":    func(live string) error { return writeAt(live+"/generation", os.O_WRONLY|os.O_APPEND, "more") },
	"a removal":    func(live string) error { return os.Remove(live + "/generation") },
	"another name": func(live string) error { return os.Rename(live+"/generation", live+"/dir/generation") },
	"a second name": func(live string) error {
		return os.Link(live+"/generation", live+"/dir/generation")
	},
	"a file in the place of another": func(live string) error {
		return errors.Join(os.WriteFile(live+"/dir/tmp", []byte("odd"), 0o644), os.Rename(live+"/dir/tmp", live+"/generation"))
	},
	"another mode":             func(live string) error { return os.Chmod(live+"/generation", 0o600) },
	"another mode of a folder": func(live string) error { return os.Chmod(live+"/dir", 0o700) },
	"another owner":            func(live string) error { return os.Chown(live+"/generation", 1000, 1000) },
	"an attribute":             func(live string) error { return unix.Setxattr(live+"/generation", "user.odd", []byte("x"), 0) },
	"another mode of the root": func(live string) error { return os.Chmod(live, 0o700) },
	"another owner of the root": func(live string) error {
		return os.Chown(live, 1000, 1000)
	},
	"an attribute of the root": func(live string) error { return unix.Setxattr(live, "user.odd", []byte("x"), 0) },
}

func writeAt(path string, flags int, text string) error {
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// recoveredOnce recovers, and returns the snapshot that was named.
func (w *cutWorld) recoveredOnce() string {
	w.Helper()
	list, err := w.engine().Recover(w.Context(), RecoverRequest{})
	w.must(err)
	if len(list) != 1 || list[0].Action != RolledBackTx || list[0].Pending {
		w.Errorf("recover says %+v", list)
	}
	return list[0].TakenSID
}

// The power goes between two exchanges, and before a recovery runs a process of the host
// writes to the volume that has the new tree: each kind of change is in a snapshot. Where
// nothing has changed, none is made, and nothing is read.
func TestWhatIsWrittenToANewTreeBeforeItsRecoveryIsKept(t *testing.T) {
	try := func(t *testing.T, w *cutWorld, change func(string) error) {
		w.T = t
		read := watched(t, unix.IN_OPEN|unix.IN_ACCESS, w.volumes[0], w.volumes[0]+"/dir", w.displacedOf(1), w.displacedOf(1)+"/dir")
		if change == nil {
			named := w.recoveredOnce()
			if names := read(); len(names) > 0 {
				t.Errorf("%q were read, although nothing had changed", names)
			}
			w.kept(named, nil)
			return
		}
		w.must(change(w.volumes[0]))
		want := disktest.Tree(t, w.volumes[0])
		w.kept(w.recoveredOnce(), want)
	}
	disktest.EachFS(t, func(t *testing.T, dir string) {
		w := newCut(t, dir)
		for name, change := range changes {
			if name != "nothing" && name != "a write in place" && filepath.Base(t.Name()) != "ext4" {
				continue
			}
			t.Run(name, func(t *testing.T) { try(t, w, change) })
			w.T = t
			w.cut()
		}
	})
}

// The clock was set back over the boot, as on a host without one of its own, or stands
// still: a change has a time from before the exchange, or the very time that was there.
func TestNoClockHidesWhatWasWrittenToANewTree(t *testing.T) {
	hour := func(w *cutWorld) { w.rewrite(func(r *journal.Times) { r.At.Sec += 3600 }) }
	for name, c := range map[string]struct {
		fs    string
		clock func(w *cutWorld)
		reads bool // although nothing has changed
	}{
		"set back": {"xfs", hour, false},
		"stands still": {"xfs", func(w *cutWorld) {
			sums, newest := w.statSums()
			w.rewrite(func(r *journal.Times) {
				*r.At = newest
				for i := range sums {
					r.Staged[i].Sum = sums[i]
				}
			})
		}, true},
		"not recorded by an earlier version": {"ext4", func(w *cutWorld) { w.rewrite(func(r *journal.Times) { r.At, r.Staged = nil, nil }) }, true},
	} {
		for _, what := range []string{"nothing", "another mode", "a write in place, and the time put back"} {
			t.Run(name+"/"+what, func(t *testing.T) {
				w := newCut(t, disktest.Mount(t, c.fs, 512))
				read := watched(t, unix.IN_OPEN, w.volumes[0])
				var want []string
				if change := changes[what]; change != nil {
					w.must(change(w.volumes[0]))
					want = disktest.Tree(t, w.volumes[0])
				}
				c.clock(w)
				read()
				named := w.recoveredOnce()
				if names := read(); want == nil && c.reads != (len(names) > 0) {
					t.Errorf("%q were read", names)
				}
				w.kept(named, want)
			})
		}
	}
}

// A recovery is killed at each of its points, also right after it has exchanged back, when
// nothing shows any more that the new tree was live. The next one finds what was written.
func TestARecoveryOfAWrittenTreeIsKilledAnywhere(t *testing.T) {
	w := newCut(t, disktest.Mount(t, "xfs", 512))
	seen := map[string]bool{}
	for at, killed := 1, true; killed; at++ {
		if at > 1 {
			w.cut()
		}
		w.must(os.WriteFile(w.volumes[0]+"/late", []byte(fmt.Sprint(at)), 0o600))
		want := disktest.Tree(t, w.volumes[0])
		var points []string
		points, killed = w.run("recover", "", at)
		seen[points[len(points)-1]] = true
		if killed {
			w.recoverTwice()
		}
		named := ""
		for _, m := range w.snapshots()[:2] { // two may have been made in one second
			if strings.HasPrefix(m.Note, "written to the new data") {
				named = m.SID
			}
		}
		w.kept(named, want)
		if t.Failed() {
			t.Fatalf("killed after %q", points)
		}
	}
	for _, point := range []string{"exchanged v0", "let go", "kept", "discarded", "removed"} {
		if !seen[point] {
			t.Errorf("never killed at %q: %v", point, seen)
		}
	}
}

// The same through each other way back: --offline before the engine is up, a restore that
// fails between two exchanges, and one that is interrupted after all of them.
func TestWhatIsWrittenToANewTreeIsKeptOnEachWayBack(t *testing.T) {
	t.Run("offline", func(t *testing.T) {
		w := newCut(t, disktest.Mount(t, "ext4", 256))
		w.must(changes["a new file"](w.volumes[0]))
		want := disktest.Tree(t, w.volumes[0])
		list, err := w.engine().Recover(t.Context(), RecoverRequest{Offline: true})
		if err != nil || len(list) != 1 || !list[0].Pending || len(w.snapshots()) != w.before {
			t.Fatalf("recover --offline says %+v, %v", list, err)
		}
		w.kept(w.recoveredOnce(), want)
	})
	for name, c := range map[string]struct {
		point string
		fail  func(w *world, cancel func()) (undo func())
	}{
		"a failure between two exchanges": {"exchanged v0", func(w *world, _ func()) func() {
			disktest.Run(w.T, "chattr", "+i", w.volumes[1])
			return func() { disktest.Run(w.T, "chattr", "-i", w.volumes[1]) }
		}},
		"a signal before the commit": {"exchanged v1", func(_ *world, cancel func()) func() {
			cancel()
			return func() {}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, disktest.Mount(t, "ext4", 256), 2)
			w.fill("new")
			sid := w.capture()
			w.fill("old")
			states := map[string][][]string{"old": w.trees()}
			ctx, cancel := context.WithCancel(t.Context())
			var want []string
			undo := func() {}
			e := w.engine()
			e.reached = func(point string) {
				if point == c.point && want == nil {
					w.must(changes["an append"](w.volumes[0]))
					want = disktest.Tree(t, w.volumes[0])
					undo = c.fail(w, cancel)
				}
			}
			_, err := e.Restore(Observe(ctx, onLine(func(text string) {
				if strings.HasSuffix(text, "undoing the restore") {
					undo()
				}
			})), w.request(sid))
			cancel()
			if fault.KindOf(err) != fault.RolledBack {
				t.Fatalf("the restore returned %v", err)
			}
			w.generation(states)
			w.clean()
			for _, m := range w.snapshots() {
				if strings.HasPrefix(m.Note, "written to the new data") {
					if !strings.Contains(err.Error(), "the data that was taken back is snapshot "+m.SID) {
						t.Errorf("the error does not name snapshot %s: %v", m.SID, err)
					}
					_, err := w.restore(m.SID)
					w.must(err)
					disktest.Same(t, "what was written", want[1:], disktest.Tree(t, w.volumes[0])[1:])
					return
				}
			}
			t.Errorf("no snapshot has what was written: %v", err)
		})
	}
}

// onLine is an observer of lines alone.
type onLine func(text string)

func (onLine) Phase(Phase)                   {}
func (onLine) Progress(string, int64, int64) {}
func (l onLine) Line(text string)            { l(text) }

// While a process still holds the new tree that it writes to, nothing is deleted.
func TestANewTreeThatSomebodyHoldsStays(t *testing.T) {
	w := newCut(t, disktest.Mount(t, "ext4", 256))
	u := upload(t, w.volumes[0])
	for range 2 {
		u.write(fmt.Sprintf("upload-%d", len(u.acked)))
		list, err := w.engine().Recover(t.Context(), RecoverRequest{})
		if fault.KindOf(err) != fault.RolledBack || codeOf(err) != "held" || len(list) != 1 || !list[0].Pending || !strings.Contains(hintOf(err), fmt.Sprintf("kill %d", u.cmd.Process.Pid)) {
			t.Fatalf("recover says %+v, %v, hint %q", list, err, hintOf(err))
		}
		if got := w.generation(w.states); got != "old" {
			t.Errorf("all volumes are %s", got)
		}
	}
	u.write("upload-last")
	u.stop()
	w.recoverTwice()
	w.generation(w.states)
	w.exist(u.acked)
}

// What no snapshot can hold is put beside the live directory.
func TestANewTreeThatNoSnapshotHoldsIsPreserved(t *testing.T) {
	w := newCut(t, disktest.Mount(t, "btrfs", 512))
	for name, spoil := range map[string]func(live string) error{
		"a fifo":      func(live string) error { return unix.Mkfifo(live+"/odd", 0o600) },
		"a subvolume": func(live string) error { disktest.Run(t, "btrfs", "subvolume", "create", live+"/odd"); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			w.T = t
			w.must(spoil(w.volumes[0]))
			list, err := w.engine().Recover(t.Context(), RecoverRequest{})
			w.must(err)
			if len(list) != 1 || list[0].TakenSID != "" || len(list[0].Kept) != 2 {
				t.Fatalf("recover says %+v", list)
			}
			if _, err := os.Lstat(filepath.Join(w.volumes[0]+".snap-kept-"+list[0].Tx, "odd")); err != nil {
				t.Error(err)
			}
			w.kept("", nil)
			w.cut()
		})
	}
}
