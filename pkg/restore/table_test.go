package restore

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/swap"
)

// recoveryTable is the table of recovery from docs/design.md, written a second time
// by hand: for each layout of a volume and each goal of the records, the generation
// that recovery leaves.
var recoveryTable = map[string][4]string{
	//                no commit   commit      revert    guarding
	"old / new":    {"old", "new", "old", "new"},
	"new / old":    {"old", "new", "old", "new"},
	"old / gone":   {"old", "frozen", "old", "frozen"},
	"new / gone":   {"frozen", "new", "frozen", "frozen"},
	"other / new":  {"frozen", "frozen", "frozen", "frozen"},
	"old / other":  {"frozen", "frozen", "frozen", "frozen"},
	"gone / new":   {"frozen", "frozen", "frozen", "frozen"},
	"new / other":  {"frozen", "frozen", "frozen", "frozen"},
	"gone / gone":  {"frozen", "frozen", "frozen", "frozen"},
	"other / gone": {"frozen", "frozen", "frozen", "frozen"},
	"file / new":   {"frozen", "frozen", "frozen", "frozen"},
	"link / new":   {"frozen", "frozen", "frozen", "frozen"},
}

// A restore was interrupted in each layout and with each goal. Recovery does what
// the table says, for all volumes.
func TestRecoveryFollowsTheTable(t *testing.T) {
	for seen, outcomes := range recoveryTable {
		for d, want := range outcomes {
			t.Run(fmt.Sprintf("%s/%s", seen, swap.Goal(d)), func(t *testing.T) {
				w := newWorld(t, t.TempDir(), 2)
				x := newScene(w, guardOf(swap.Goal(d)))
				x.arrange(1, seen)
				x.decide(swap.Goal(d))
				x.recover(want)
				if swap.Goal(d) == swap.Guarding && want == "new" {
					x.preRestoreBringsOld()
				}
			})
		}
	}
}

// scene is an interrupted restore. Volume 0 is exchanged if a commit is recorded;
// the test arranges volume 1.
type scene struct {
	*world
	tx     *journal.Tx
	states map[string][][]string
	// foreign describes the trees that are not snap's, by their original path.
	foreign map[string][]string
}

func newScene(w *world, guard ...string) *scene {
	w.Helper()
	w.fill("old")
	s := &scene{world: w, states: map[string][][]string{"old": w.trees()}}
	e := w.engine()
	held, err := e.Journal.Lock(w.name, "test")
	w.must(err)
	defer held.Release()
	begin := &journal.Begin{Kind: journal.Restore, SID: disk.NewID(testTime()), PreRestoreSID: disk.NewID(testTime()), RevertSID: disk.NewID(testTime()), OnUnhealthy: RevertUnhealthy}
	begin.Guard = strings.Join(guard, "")
	for i := range w.volumes {
		begin.Volumes = append(begin.Volumes, journal.Volume{
			Name: fmt.Sprintf("v%d", i), Root: filepath.Join(w.dir, "live"), Rel: fmt.Sprintf("v%d", i), Entry: fmt.Sprint(i),
			Anchor: ".", AnchorHandle: s.handle(filepath.Join(w.dir, "live")),
		})
	}
	s.tx, err = e.Journal.Begin(held, begin)
	w.must(err)
	w.Cleanup(func() { s.tx.Close() })
	w.must(os.Mkdir(s.wrapper(), 0o700))
	ready, times := &journal.Ready{}, &journal.Times{At: &journal.Time{Sec: testTime().Unix() + 60}}
	var states [][]string
	for i, live := range w.volumes {
		disktest.Write(w.T, s.staged(i), map[string]string{"generation": "new", "dir/new": "new"})
		states = append(states, disktest.Tree(w.T, s.staged(i)))
		info, err := os.Stat(live)
		w.must(err)
		times.Live = append(times.Live, journal.Time{Sec: info.ModTime().Unix(), Nsec: int64(info.ModTime().Nanosecond())})
		times.Staged = append(times.Staged, s.asStaged(i))
		ready.Volumes = append(ready.Volumes, journal.ReadyVolume{Live: s.handle(live), Staged: s.handle(s.staged(i))})
	}
	s.states["new"] = states
	w.must(s.tx.Ready(ready))
	w.must(s.tx.Times(times))
	return s
}

func (s *scene) wrapper() string     { return filepath.Join(s.dir, "live", journal.Wrapper(s.tx.ID)) }
func (s *scene) staged(i int) string { return filepath.Join(s.wrapper(), fmt.Sprint(i)) }

// asStaged is what the record of the times says of a staged tree.
func (s *scene) asStaged(i int) (r journal.Staged) {
	s.Helper()
	d, err := disk.OpenRoot(s.staged(i))
	s.must(err)
	defer d.Close()
	r.Sec, r.Nsec, err = d.Mtime()
	s.must(err)
	r.Sum, _, err = archive.StatSum(s.Context(), d)
	s.must(err)
	return r
}

func (s *scene) handle(path string) disk.Handle {
	s.Helper()
	d, err := disk.OpenRoot(path)
	s.must(err)
	defer d.Close()
	h, err := d.Handle()
	s.must(err)
	return h
}

// arrange puts volume i into a layout, "live / staged".
func (s *scene) arrange(i int, seen string) {
	s.Helper()
	live, staged, aside := s.volumes[i], s.staged(i), filepath.Join(s.dir, fmt.Sprint("aside", i))
	move := func(from, to string) { s.must(os.Rename(from, to)) }
	exchange := func() { move(live, aside); move(staged, live); move(aside, staged) }
	switch seen {
	case "old / new":
	case "new / old":
		exchange()
	case "old / gone":
		s.must(os.RemoveAll(staged))
	case "new / gone":
		exchange()
		s.must(os.RemoveAll(staged))
	case "other / new":
		move(live, aside)
		disktest.Write(s.T, live, map[string]string{"stranger": "s"})
	case "old / other":
		move(staged, aside)
		disktest.Write(s.T, staged, map[string]string{"stranger": "s"})
	case "new / other":
		exchange()
		move(staged, aside)
		disktest.Write(s.T, staged, map[string]string{"stranger": "s"})
	case "gone / new":
		move(live, aside)
	case "gone / gone":
		move(live, aside)
		s.must(os.RemoveAll(staged))
	case "other / gone":
		move(live, aside)
		s.must(os.RemoveAll(staged))
		disktest.Write(s.T, live, map[string]string{"stranger": "s"})
	case "file / new":
		move(live, aside)
		s.must(os.WriteFile(live, []byte("a file"), 0o644))
	case "link / new":
		move(live, aside)
		s.must(os.Symlink(aside, live))
	default:
		s.Fatalf("unknown layout %q", seen)
	}
}

// decide writes the records of a goal, and exchanges volume 0 if the goal needs a
// commit.
func (s *scene) decide(d swap.Goal) {
	s.Helper()
	if d == swap.Undecided {
		return
	}
	s.arrange(0, "new / old")
	s.must(s.tx.Commit())
	switch d {
	case swap.Reverted:
		s.must(s.tx.Revert())
	case swap.Guarding:
		s.must(s.tx.Guard())
	}
}

// guardOf returns the guard of a restore whose records can have this goal.
func guardOf(d swap.Goal) string {
	if d == swap.Guarding {
		return journal.GuardAfter
	}
	return ""
}

// preRestoreBringsOld fails the test unless the pre-restore snapshot brings the old data
// back.
func (s *scene) preRestoreBringsOld() {
	s.Helper()
	_, err := s.engine().Restore(s.Context(), s.world.request(s.tx.Begin.PreRestoreSID))
	s.must(err)
	if got := s.generation(s.states); got != "old" {
		s.Errorf("the pre-restore snapshot brought the %s data", got)
	}
}

// recover recovers, and fails the test unless all volumes are then of the wanted
// generation, or the restore is frozen and nothing has changed.
func (s *scene) recover(want string) {
	s.Helper()
	before := disktest.Tree(s.T, filepath.Join(s.dir, "live"))
	list, err := s.engine().Recover(s.Context(), RecoverRequest{})
	if want != "frozen" {
		if err != nil {
			s.Fatal(err)
		}
		if got := s.generation(s.states); got != want {
			s.Errorf("all volumes are %s, expected %s", got, want)
		}
		action := map[string]string{"old": RolledBackTx, "new": RolledForwardTx}[want]
		if len(list) != 1 || list[0].Action != action {
			s.Errorf("recover says %+v, expected %s", list, action)
		}
		s.clean()
		return
	}
	if fault.KindOf(err) != fault.Frozen || len(list) != 1 || list[0].Action != FrozenTx {
		s.Fatalf("recover returned %+v, %v; expected frozen", list, err)
	}
	disktest.Same(s.T, "a frozen transaction's directories", before, disktest.Tree(s.T, filepath.Join(s.dir, "live")))
	if _, err := os.Stat(filepath.Join(s.dir, "state/tx", s.tx.ID, "ready")); err != nil {
		s.Errorf("the records are gone: %v", err)
	}
	s.refusesToWork()
}

// refusesToWork fails the test unless a capture is refused while the transaction
// is frozen, and status shows it.
func (s *scene) refusesToWork() {
	s.Helper()
	_, err := s.engine().Capture(s.Context(), CaptureRequest{Workload: s.name, Quiesce: runtime.None})
	if fault.KindOf(err) != fault.Frozen || codeOf(err) != "unfinished" {
		s.Errorf("a capture returned %v, expected a refusal for the unfinished transaction", err)
	}
	status, err := s.engine().Status(s.Context(), s.name)
	s.must(err)
	if p := status[0].Pending; p == nil || !p.Frozen || status[0].State != "frozen" {
		s.Errorf("status says %+v", status[0])
	}
}

// A record is truncated, damaged, or not a regular file. The restore freezes and
// nothing moves.
func TestAnUnreadableRecordFreezes(t *testing.T) {
	damage := map[string]func(w *scene, path string) error{
		"truncated": func(_ *scene, path string) error { return os.Truncate(path, 20) },
		"empty":     func(_ *scene, path string) error { return os.Truncate(path, 0) },
		"flipped": func(_ *scene, path string) error {
			data, err := os.ReadFile(path)
			if err == nil {
				data[len(data)/2] ^= 1
				err = os.WriteFile(path, data, 0o600)
			}
			return err
		},
		"a directory": func(_ *scene, path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.Mkdir(path, 0o700)
		},
		"a dangling link": func(_ *scene, path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.Symlink("nowhere", path)
		},
	}
	for name, spoil := range damage {
		for _, record := range []string{"begin", "ready", "commit"} {
			t.Run(record+" "+name, func(t *testing.T) {
				w := newWorld(t, t.TempDir(), 2)
				s := newScene(w)
				s.arrange(1, "new / old")
				s.decide(swap.Committed)
				w.must(spoil(s, filepath.Join(w.dir, "state/tx", s.tx.ID, record)))
				before := disktest.Tree(t, filepath.Join(w.dir, "live"))
				list, err := w.engine().Recover(t.Context(), RecoverRequest{})
				if fault.KindOf(err) != fault.Frozen || len(list) != 1 || list[0].Action != FrozenTx {
					t.Fatalf("recover returned %+v, %v; expected frozen", list, err)
				}
				disktest.Same(t, "frozen", before, disktest.Tree(t, filepath.Join(w.dir, "live")))
				if _, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.None}); fault.KindOf(err) != fault.Frozen {
					t.Errorf("a capture returned %v, expected a refusal", err)
				}
			})
		}
	}
}
