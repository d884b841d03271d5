package restore

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/swap"
)

// decisionTable is written by hand. For each layout of a frozen volume it has the
// generation that all volumes are after --resolve keep-old and keep-new, or
// "refused", and whether a foreign tree must be preserved under another name. The
// goal of the records makes no difference.
var decisionTable = map[string]struct {
	keepOld, keepNew string
	stranger         bool
}{
	"old / gone":   {"old", "refused", false},
	"new / gone":   {"refused", "new", false},
	"other / new":  {"refused", "new", true},
	"other / old":  {"old", "refused", true},
	"old / other":  {"old", "refused", true},
	"new / other":  {"refused", "new", true},
	"gone / new":   {"refused", "new", false},
	"gone / old":   {"old", "refused", false},
	"file / new":   {"refused", "new", true},
	"file / old":   {"old", "refused", true},
	"link / new":   {"refused", "new", true},
	"link / old":   {"old", "refused", true},
	"old / file":   {"old", "refused", true},
	"new / link":   {"refused", "new", true},
	"gone / gone":  {"refused", "refused", false},
	"other / gone": {"refused", "refused", true},
	"gone / other": {"refused", "refused", true},
}

// The operator decides for a frozen restore, in every layout and with every goal
// of the records.
func TestTheOperatorDecidesForAllVolumes(t *testing.T) {
	for seen, c := range decisionTable {
		for d := swap.Undecided; d <= swap.Guarding; d++ {
			for keep, want := range map[string]string{journal.KeepOld: c.keepOld, journal.KeepNew: c.keepNew} {
				t.Run(fmt.Sprintf("%s/%s/keep-%s", seen, d, keep), func(t *testing.T) {
					s := newScene(newWorld(t, t.TempDir(), 2), guardOf(d))
					s.put(1, seen)
					s.decide(d)
					if recoveryTable[seen][d] != "frozen" && recoveryTable[seen][d] != "" {
						s.refusesToDecide(keep)
						return
					}
					s.resolves(keep, want, c.stranger)
				})
			}
		}
	}
}

// put arranges volume i in a layout, "live name / wrapper". A tree that the layout
// does not name is deleted.
func (s *scene) put(i int, seen string) {
	s.Helper()
	live, staged := s.volumes[i], s.staged(i)
	away := map[string]string{"old": filepath.Join(s.dir, "away-old"), "new": filepath.Join(s.dir, "away-new")}
	s.must(os.Rename(live, away["old"]))
	s.must(os.Rename(staged, away["new"]))
	names := strings.Split(seen, " / ")
	for n, path := range []string{live, staged} {
		switch names[n] {
		case "old", "new":
			s.must(os.Rename(away[names[n]], path))
			delete(away, names[n])
		case "gone":
		case "other":
			disktest.Write(s.T, path, map[string]string{"stranger": "s", "sub/stranger": "t"})
		case "file":
			s.must(os.WriteFile(path, []byte("a file"), 0o640))
		case "link":
			s.must(os.Symlink("/etc/passwd", path))
		default:
			s.Fatalf("unknown layout %q", seen)
		}
	}
	for _, path := range away {
		s.must(os.RemoveAll(path))
	}
	s.foreign = map[string][]string{}
	for n, path := range []string{live, staged} {
		if names[n] == "other" || names[n] == "file" || names[n] == "link" {
			s.foreign[path] = disktest.Tree(s.T, path)
		}
	}
}

func (s *scene) request(keep string) ResolveRequest {
	return ResolveRequest{Workload: s.name, Keep: keep, Confirm: s.tx.ID}
}

// refusesToDecide fails the test unless a decision about a restore that is not
// frozen is refused and moves nothing.
func (s *scene) refusesToDecide(keep string) {
	s.Helper()
	before := disktest.Tree(s.T, s.dir+"/live")
	if _, err := s.engine().Resolve(s.Context(), s.request(keep)); fault.KindOf(err) != fault.Refused || codeOf(err) != "not_frozen" {
		s.Errorf("a decision about a restore that is not frozen returned %v", err)
	}
	disktest.Same(s.T, "nothing moves", before, disktest.Tree(s.T, s.dir+"/live"))
}

// resolves makes a decision, and fails the test unless all volumes are then of
// the wanted generation, or the decision is refused without a trace.
func (s *scene) resolves(keep, want string, stranger bool) {
	s.Helper()
	before := disktest.Tree(s.T, s.dir+"/live")
	r, err := s.engine().Resolve(s.Context(), s.request(keep))
	if want == "refused" {
		if fault.KindOf(err) != fault.Frozen || r.Action != FrozenTx {
			s.Fatalf("resolve returned %+v, %v; expected a refusal", r, err)
		}
		disktest.Same(s.T, "after a refusal", before, disktest.Tree(s.T, s.dir+"/live"))
		if _, err := os.Stat(filepath.Join(s.dir, "state/tx", s.tx.ID, "resolve")); !os.IsNotExist(err) {
			s.Errorf("a refused decision was recorded: %v", err)
		}
		s.refusesToWork()
		return
	}
	s.must(err)
	if action := map[string]string{"old": RolledBackTx, "new": RolledForwardTx}[want]; r.Action != action || r.Pending {
		s.Errorf("resolve says %+v, expected %s", r, action)
	}
	if got := s.generation(s.states); got != want {
		s.Errorf("all volumes are %s, expected %s", got, want)
	}
	s.clean()
	s.checkPreserved(r.Kept, stranger)
}

// checkPreserved fails the test unless a foreign tree, if there was one, lies
// unchanged beside the live directories, under the name that was reported, and
// nothing else does.
func (s *scene) checkPreserved(reported []string, stranger bool) {
	s.Helper()
	found, err := filepath.Glob(s.dir + "/live/*.snap-kept-*")
	s.must(err)
	if fmt.Sprint(found) != fmt.Sprint(reported) {
		s.Errorf("preserved are %q, but snap reports %q", found, reported)
	}
	if !stranger {
		if len(found) > 0 {
			s.Errorf("preserved are %q, expected none", found)
		}
		return
	}
	if len(found) != 1 {
		s.Fatalf("preserved are %q, expected one", found)
	}
	for _, tree := range s.foreign {
		disktest.Same(s.T, "the foreign tree", tree, disktest.Tree(s.T, found[0]))
	}
	// Later operations must not take the preserved tree for an orphan.
	if _, err := s.engine().Capture(s.Context(), CaptureRequest{Workload: s.name, Quiesce: runtime.None}); err != nil {
		s.Error(err)
	}
	if list, err := s.engine().Recover(s.Context(), RecoverRequest{}); err != nil || len(list) > 0 {
		s.Errorf("a later recover found %+v, %v", list, err)
	}
}

// A decision deletes the other generation. Its trees become a snapshot first, and
// that snapshot can be restored.
func TestADecisionCapturesTheTreesThatItDeletes(t *testing.T) {
	for keep, lost := range map[string]string{journal.KeepOld: "new", journal.KeepNew: "old"} {
		t.Run("keep-"+keep, func(t *testing.T) {
			s := newScene(newWorld(t, t.TempDir(), 2))
			// Volume 0 has both trees; volume 1 has a foreign tree beside the one to keep.
			s.put(1, map[string]string{"old": "old / other", "new": "other / new"}[keep])
			want := s.states[lost][0]
			r, err := s.engine().Resolve(t.Context(), s.request(keep))
			s.must(err)
			s.generation(map[string][][]string{keep: s.states[keep]})
			m, err := s.engine().Store.Load(s.name, r.Resolution.SID)
			s.must(err)
			if len(m.Volumes) != 1 || m.Volumes[0].Name != "v0" || !strings.Contains(m.Note, "the restore of") {
				t.Fatalf("the snapshot is %+v", m)
			}
			s.must(os.RemoveAll(s.dir + "/live/v0.snap-kept"))
			request := s.world.request(m.SID)
			request.Volumes = []string{"v0"}
			_, err = s.engine().Restore(t.Context(), request)
			s.must(err)
			disktest.Same(t, "the snapshot of the deleted tree", want, disktest.Tree(t, s.volumes[0]))
		})
	}
}

// A decision without the right --confirm is refused. It moves nothing, and shows
// what it would do to each volume.
func TestADecisionMustBeConfirmed(t *testing.T) {
	s := newScene(newWorld(t, t.TempDir(), 2))
	s.put(1, "other / new")
	before := disktest.Tree(t, s.dir)
	for confirm, code := range map[string]string{"": "confirm_required", "20200101T000000Z-aaaaaa": "confirm_mismatch"} {
		r, err := s.engine().Resolve(t.Context(), ResolveRequest{Workload: s.name, Keep: journal.KeepNew, Confirm: confirm})
		var hint string
		if e := fault.Classify(err); e != nil {
			hint = hintOf(err)
		}
		if fault.KindOf(err) != fault.Refused || codeOf(err) != code || !strings.Contains(hint, "--resolve keep-new --confirm "+s.tx.ID) {
			t.Errorf("confirm %q: %v, hint %q", confirm, err, hint)
		}
		if r.Action != "" || r.Resolution == nil || len(r.Resolution.Volumes) != 2 {
			t.Fatalf("confirm %q: the refusal shows %+v", confirm, r)
		}
		v := r.Resolution.Volumes[1]
		if v.Stays != "another directory" || len(v.Steps) != 2 || !strings.Contains(v.Found, "another directory stands at the live name") || !strings.Contains(v.Found, "the old data no longer exists") {
			t.Errorf("the refusal shows the volume as %+v", v)
		}
	}
	disktest.Same(t, "nothing moves", withoutLocks(before), withoutLocks(disktest.Tree(t, s.dir)))
}

func withoutLocks(lines []string) []string {
	var out []string
	for _, line := range lines {
		if !strings.Contains(line, `"state/lock`) {
			out = append(out, line)
		}
	}
	return out
}

// A filesystem is mounted on the live directory. The decision is refused with a
// hint to unmount it.
func TestADecisionIsRefusedWhileAMountIsInTheWay(t *testing.T) {
	s := newScene(newWorld(t, t.TempDir(), 2))
	s.put(1, "other / new")
	disktest.Bind(t, t.TempDir(), s.volumes[1])
	_, err := s.engine().Resolve(t.Context(), s.request(journal.KeepNew))
	if fault.KindOf(err) != fault.Frozen || !strings.Contains(hintOf(err), "umount") {
		t.Errorf("with a mount in the way: %v", err)
	}
}

// The live directory was moved away by hand and another one took its name. Status
// finds it by its handle, and the commands that it suggests mend the restore.
func TestStatusFindsADirectoryThatWasMovedAway(t *testing.T) {
	s := newScene(newWorld(t, t.TempDir(), 2))
	moved := filepath.Join(s.dir, "live/moved by hand")
	s.must(os.Rename(s.volumes[1], moved))
	disktest.Write(t, s.volumes[1], map[string]string{"stranger": "s"})
	status, err := s.engine().Status(t.Context(), s.name)
	s.must(err)
	p := status[0].Pending
	if p == nil || !strings.Contains(strings.Join(p.Volumes, "\n"), "the old data is at "+moved) ||
		!strings.Contains(allInWords(p.Next), fmt.Sprintf("mv '%s' '%s'", moved, s.volumes[1])) ||
		!strings.Contains(allInWords(p.Next), "--resolve keep-new --confirm "+s.tx.ID) ||
		strings.Contains(allInWords(p.Next), "keep-old") {
		t.Fatalf("status says %+v", p)
	}
	// The operator follows the suggestion to the letter.
	s.must(os.Rename(s.volumes[1], s.volumes[1]+".aside"))
	s.must(os.Rename(moved, s.volumes[1]))
	list, err := s.engine().Recover(t.Context(), RecoverRequest{Workloads: []string{s.name}})
	if err != nil || len(list) != 1 || list[0].Action != RolledBackTx {
		t.Errorf("recover returned %+v, %v", list, err)
	}
	s.generation(map[string][][]string{"old": s.states["old"]})
}

// A directory that is not snap's lies inside the wrapper. It is not deleted, and it
// does not stay where it would freeze the next restore.
func TestUnknownFilesInAWrapperArePreserved(t *testing.T) {
	s := newScene(newWorld(t, t.TempDir(), 2))
	disktest.Write(t, s.wrapper(), map[string]string{"notes/of the operator": "n"})
	list, err := s.engine().Recover(t.Context(), RecoverRequest{})
	s.must(err)
	s.clean()
	if len(list) != 1 || len(list[0].Kept) != 1 {
		t.Fatalf("recover says %+v", list)
	}
	if data, err := os.ReadFile(list[0].Kept[0] + "/notes/of the operator"); string(data) != "n" {
		t.Errorf("the notes are %q: %v", data, err)
	}
}

// A decision is killed at each of its points. Once it is recorded, recover
// finishes it.
func TestADecisionKilledAnywhereIsFinishedByRecover(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, dir string) {
		for i, c := range []struct{ keep, seen, also string }{
			{journal.KeepOld, "other / old", "new / old"},
			{journal.KeepNew, "other / new", "old / new"},
			{journal.KeepNew, "gone / new", "old / new"},
		} {
			killed := true
			for at := 1; killed; at++ {
				s := newScene(newWorld(t, filepath.Join(dir, fmt.Sprint(i), fmt.Sprint(at)), 3))
				s.put(1, c.seen)
				s.arrange(2, c.also)
				var points []string
				points, killed = s.run("resolve", s.tx.ID, at, "SNAP_TEST_KEEP="+c.keep)
				s.afterResolve(c.keep, c.seen, points, killed)
				if t.Failed() {
					t.Fatalf("%s, killed at %q", c.seen, points[len(points)-1])
				}
			}
		}
	})
}

// afterResolve recovers after a decision that may have been killed, and checks
// the result.
func (s *scene) afterResolve(keep, seen string, points []string, killed bool) {
	s.Helper()
	if killed && points[len(points)-1] == "before resolve" {
		before := disktest.Tree(s.T, s.dir+"/live")
		if _, err := s.engine().Recover(s.Context(), RecoverRequest{}); fault.KindOf(err) != fault.Frozen {
			s.Errorf("without a decision recover returned %v", err)
		}
		disktest.Same(s.T, "frozen", before, disktest.Tree(s.T, s.dir+"/live"))
		return
	}
	if killed {
		s.recoverTwice()
	} else if len(points) < 6 {
		s.Errorf("too few points: %q", points)
	}
	if got := s.generation(s.states); got != keep {
		s.Errorf("all volumes are %s, expected %s", got, keep)
	}
	s.clean()
	found, err := filepath.Glob(s.dir + "/live/*.snap-kept-*")
	s.must(err)
	s.checkPreserved(found, strings.HasPrefix(seen, "other"))
}

// A recorded decision can no longer be carried out, because its tree is gone.
// Recovery freezes, and the operator may decide the other way.
func TestARecordedDecisionCanBeRevised(t *testing.T) {
	s := newScene(newWorld(t, t.TempDir(), 2))
	s.put(1, "gone / new")
	s.must(s.tx.Resolve(journal.KeepOld, s.tx.ID))
	// Half-made snapshots that earlier steps have left.
	for _, sid := range []string{s.tx.ID, s.tx.Begin.RevertSID, s.tx.Begin.PreRestoreSID} {
		disktest.Write(t, s.dir+"/store/snapshots/"+s.name, map[string]string{sid + "/index.gz": "half"})
	}
	before := disktest.Tree(t, s.dir+"/live")
	if list, err := s.engine().Recover(t.Context(), RecoverRequest{}); fault.KindOf(err) != fault.Frozen || list[0].Found != "resolve" {
		t.Fatalf("recover returned %+v, %v", list, err)
	}
	disktest.Same(t, "frozen", before, disktest.Tree(t, s.dir+"/live"))
	_, err := s.engine().Resolve(t.Context(), s.request(journal.KeepNew))
	s.must(err)
	s.generation(map[string][][]string{"new": s.states["new"]})
	s.clean()
}
