package restore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/workload"
)

func (w *world) afterRequest(sid string) RestoreRequest {
	req := w.request(sid)
	req.Guard = workload.GuardAfter
	return req
}

// displaced are the paths of the displaced trees, those that there are.
func (w *world) displaced() []string {
	w.Helper()
	found, err := filepath.Glob(filepath.Join(w.dir, "live/.snap-*/[0-9]"))
	w.must(err)
	return found
}

// before are the pre-restore snapshots of the workload.
func (w *world) before() (sids []string) {
	w.Helper()
	for _, m := range w.snapshots() {
		if m.Reason == "pre-restore" && strings.HasPrefix(m.Note, "before the restore of") {
			sids = append(sids, m.SID)
		}
	}
	return sids
}

// oldIsWhole fails the test unless every tree of the old data is somewhere:
// live, displaced, or in a snapshot that is new since then. The time of the
// directory itself is left out: an exchange may change it, and the snapshot has
// it from the records.
func (w *world) oldIsWhole(old [][]string, then []string) {
	w.Helper()
	if len(w.before()) > len(then) {
		return // oldIsBack looks into it
	}
	for i, want := range old {
		found := false
		for _, dir := range append(w.displaced(), w.volumes[i]) {
			found = found || slices.Equal(disktest.Tree(w.T, dir)[1:], want[1:])
		}
		if !found {
			w.Errorf("the old data of volume %d is neither live nor displaced, and in no snapshot", i)
		}
	}
}

// oldIsBack fails the test unless exactly one pre-restore snapshot is new since
// then, and brings the old data back.
func (w *world) oldIsBack(states map[string][][]string, then []string) {
	w.Helper()
	now := w.before()
	if len(now) != len(then)+1 {
		w.Fatalf("the pre-restore snapshots are %q, they were %q", now, then)
	}
	_, err := w.restore(now[0])
	w.must(err)
	if got := w.generation(states); got != "old" {
		w.Errorf("the pre-restore snapshot brought the %s data", got)
	}
}

func TestGuardingAfterKilledAnywhereTheOldDataIsWhole(t *testing.T) {
	// An exchange changes directory times on XFS alone; testdata/crash has the others.
	w := newWorld(t, disktest.Mount(t, "xfs", 300), 2)
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	sid := w.capture()
	for at, killed := 1, true; killed; at++ {
		w.fill("old")
		states["old"] = w.trees()
		then := w.before()
		var points []string
		points, killed = w.run("restore", sid, at, "SNAP_TEST_GUARD=after")
		want := "old"
		if slices.Contains(points, commitPoint) {
			want = "new"
		}
		w.oldIsWhole(states["old"], then)
		if killed {
			w.recoverTwice()
		} else {
			w.inOrder(points, "ready", "stopped", "before swap", "exchanged v1", "before commit", commitPoint, "before guarding", "guarding", "guarded", "discarded", "removed", "settled")
		}
		if got := w.generation(states); got != want {
			t.Errorf("the volumes are %s, expected %s", got, want)
		}
		w.clean()
		if want == "new" {
			w.oldIsBack(states, then)
		} else if now := w.before(); len(now) != len(then) {
			t.Errorf("nothing was replaced, and the pre-restore snapshots are %q, they were %q", now, then)
		}
		if t.Failed() {
			t.Fatalf("after a kill at %q", points[len(points)-1])
		}
	}
}

// inOrder fails the test unless these points were reached in that order, and
// nothing of the live data was read before the commit.
func (w *world) inOrder(points []string, want ...string) {
	w.Helper()
	at := -1
	for _, p := range want {
		now := slices.Index(points, p)
		if now <= at {
			w.Errorf("%q is number %d of %q", p, now, points)
		}
		at = now
	}
	for _, p := range []Phase{PassOne, PassTwo, Publish} {
		if slices.Contains(points, string(p)) {
			w.Errorf("%q was reached", p)
		}
	}
}

func TestGuardingAfterARecoveryKilledAnywhereIsFinishedByTheNext(t *testing.T) {
	for _, point := range []string{"guarding", "guarded"} {
		t.Run(point, func(t *testing.T) {
			w := newWorld(t, disktest.Mount(t, "xfs", 300), 2)
			w.fill("new")
			states := map[string][][]string{"new": w.trees()}
			sid := w.capture()
			for at, killed := 1, true; killed; at++ {
				w.fill("old")
				states["old"] = w.trees()
				then := w.before()
				w.dieGuardingAfter(sid, point)
				_, killed = w.run("recover", "", at)
				w.oldIsWhole(states["old"], then)
				if killed {
					w.recoverTwice()
				}
				if got := w.generation(states); got != "new" {
					t.Fatalf("recovery killed at point %d: the volumes are %s", at, got)
				}
				w.clean()
				w.oldIsBack(states, then)
			}
		})
	}
}

// What can go wrong with a displaced tree or with the store once the restore is
// committed, and how an operator puts it right.
func TestGuardingAfterAFailedPublicationKeepsTheTree(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(w *world) (mend func())
		hint  string
	}{
		"the tree holds a fifo": {func(w *world) func() {
			dir := filepath.Join(w.displaced()[1], "dir")
			info, err := os.Stat(dir)
			w.must(err)
			w.must(unix.Mkfifo(dir+"/pipe", 0o600))
			return func() { w.must(errors.Join(os.Remove(dir+"/pipe"), os.Chtimes(dir, info.ModTime(), info.ModTime()))) }
		}, "move the files that the error names out of"},
		"somebody has a file of it open for writing": {func(w *world) func() {
			return holder(w, filepath.Join(w.displaced()[0], "large"))
		}, "end these processes"},
		"the store is full": {func(w *world) func() {
			ballast := filepath.Join(w.dir, "store/ballast")
			w.must(errors.Join(os.WriteFile(ballast, nil, 0o600), fillTo(ballast, 8<<10)))
			return func() { w.must(os.Remove(ballast)) }
		}, "free space on the filesystem of the store"},
		"the config has lost the volume": {func(w *world) func() {
			config, err := os.ReadFile(w.config)
			w.must(err)
			w.edit("{name: v1,", "{name: renamed,")
			return func() { w.must(os.WriteFile(w.config, config, 0o600)) }
		}, "snap recover"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			dir := t.TempDir()
			w := newWorld(t, dir, 2)
			w.must(os.Mkdir(filepath.Join(dir, "store"), 0o700))
			disktest.Bind(t, disktest.Mount(t, "ext4", 16), filepath.Join(dir, "store"))
			w.fill("new")
			states := map[string][][]string{"new": w.trees()}
			sid := w.capture()
			w.fill("old")
			for _, v := range w.volumes { // what does not compress
				disktest.Run(t, "sh", "-c", "openssl rand 300000 > "+v+"/random 2>/dev/null || head -c 300000 /dev/urandom > "+v+"/random")
			}
			states["old"] = w.trees()
			w.failsToGuard(sid, states, c.spoil, c.hint)
		})
	}
}

// fillTo grows a file until its filesystem has that many bytes free.
func fillTo(path string, free uint64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail*uint64(st.Bsize)-free)), f.Close())
}

func (w *world) failsToGuard(sid string, states map[string][][]string, spoil func(*world) func(), hint string) {
	w.Helper()
	w.dieGuardingAfter(sid, "guarding")
	mend := spoil(w)
	before := disktest.Tree(w.T, filepath.Join(w.dir, "live"))
	for range 2 {
		list, err := w.engine().Recover(w.Context(), RecoverRequest{})
		if kindOf(err) != Pending || codeOf(err) != "guarding" || !strings.Contains(hintOf(err), hint) || !strings.Contains(hintOf(err), "snap recover") {
			w.Errorf("recover returned %v, hint %q; expected guarding, hint %q", err, hintOf(err), hint)
		}
		if len(list) != 1 || list[0].Action != RolledForwardTx || !list[0].Pending || list[0].Found != "guarding" {
			w.Errorf("recover found %+v", list)
		}
		if left, err := filepath.Glob(filepath.Join(w.dir, "store/scratch/*")); err != nil || len(left) > 0 {
			w.Errorf("the room is not given back: %q, %v", left, err)
		}
	}
	if list, err := w.engine().Recover(w.Context(), RecoverRequest{Offline: true}); err != nil || len(list) != 1 || !list[0].Pending {
		w.Errorf("offline recovery returned %+v, %v", list, err)
	}
	disktest.Same(w.T, "nothing is deleted", before, disktest.Tree(w.T, filepath.Join(w.dir, "live")))
	w.saysGuarding(sid)
	mend()
	w.recoverTwice()
	w.generation(map[string][][]string{"new": states["new"]})
	w.oldIsBack(states, nil)
}

// saysGuarding looks at what other verbs make of a restore that guards.
func (w *world) saysGuarding(sid string) {
	w.Helper()
	status, err := w.engine().Status(w.Context(), w.name)
	w.must(err)
	p := status[0].Pending
	if status[0].State != "guarding" || p == nil || p.Frozen || p.Found != "guarding" || !strings.Contains(p.Message, "not a snapshot yet") || !strings.Contains(p.Message, w.displaced()[0]) {
		w.Errorf("status says %s, %+v", status[0].State, p)
	}
	_, err = w.engine().Restore(w.Context(), w.request(sid))
	if kindOf(err) != Frozen || codeOf(err) != "unfinished" || !strings.Contains(err.Error(), "not a snapshot yet") {
		w.Errorf("another restore returned %v", err)
	}
	if _, err := w.engine().Resolve(w.Context(), ResolveRequest{Workload: w.name, Keep: journal.KeepNew}); codeOf(err) != "not_frozen" {
		w.Errorf("a decision returned %v", err)
	}
}

// TestGuardingAfterAnswersForItself has the publication fail in the restore
// itself.
func TestGuardingAfterAnswersForItself(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2)
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	sid := w.capture()
	w.fill("old")
	e := w.engine()
	e.reached = func(point string) {
		if point == "guarding" {
			w.must(unix.Mkfifo(filepath.Join(w.displaced()[0], "pipe"), 0o600))
		}
	}
	r, err := e.Restore(t.Context(), w.afterRequest(sid))
	if kindOf(err) != Pending || codeOf(err) != "guarding" || !strings.Contains(err.Error(), w.displaced()[0]) {
		t.Errorf("the restore returned %v, expected guarding", err)
	}
	if r == nil || r.Outcome != Restored || r.PreRestoreSID != "" || r.Guard != workload.GuardAfter {
		t.Errorf("the result is %+v", r)
	}
	w.generation(states)
}

// TestGuardingAfterWhatIsWrittenBehindTheReadingIsKept has somebody write to a
// displaced tree, by the way in that a working directory is, when it has been
// read and is about to be deleted.
func TestGuardingAfterWhatIsWrittenBehindTheReadingIsKept(t *testing.T) {
	w := newWorld(t, disktest.Mount(t, "ext4", 256), 1)
	w.fill("new")
	sid := w.capture()
	w.fill("old")
	want := map[string]string{"dir/late": "a new file", "a": "other words"}
	e := w.engine()
	e.reached = func(point string) {
		if point != "displaced read" {
			return
		}
		if read, err := filepath.Glob(filepath.Join(w.dir, "store/scratch/*/*.gz")); err != nil || len(read) < 2 {
			t.Errorf("what has been read is %q, %v", read, err)
		}
		disktest.Write(t, w.displaced()[0], want)
	}
	r, err := e.Restore(t.Context(), w.afterRequest(sid))
	w.must(err)
	w.clean()
	_, err = w.restore(r.PreRestoreSID)
	w.must(err)
	for name, text := range want {
		if got, err := os.ReadFile(filepath.Join(w.volumes[0], name)); err != nil || string(got) != text {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
}

// TestGuardingAfterAFlagThatForbidsDeletionIsNamed: the pre-flight looks for it,
// and it may come later.
func TestGuardingAfterAFlagThatForbidsDeletionIsNamed(t *testing.T) {
	w := newWorld(t, disktest.Mount(t, "ext4", 256), 1)
	w.fill("new")
	sid := w.capture()
	w.fill("old")
	e := w.engine()
	locked := ""
	e.reached = func(point string) {
		if point == "guarded" {
			locked = filepath.Join(w.displaced()[0], "dir/old")
			disktest.Run(t, "chattr", "+i", locked)
			locked = strings.Replace(locked, "/0/dir", "/0.trash/dir", 1)
		}
	}
	_, err := e.Restore(t.Context(), w.afterRequest(sid))
	if kindOf(err) != Pending || !strings.Contains(err.Error(), locked) || !strings.Contains(err.Error(), "chattr -i -a") {
		t.Errorf("the restore returned %v", err)
	}
	disktest.Run(t, "chattr", "-i", locked)
	w.recoverTwice()
	w.clean()
}

// TestGuardingAfterADamagedMemberIsNotReliedUpon: most of the old data may be in
// the store already, and what is there may have rotted.
func TestGuardingAfterADamagedMemberIsNotReliedUpon(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2)
	w.fill("new")
	sid := w.capture()
	w.fill("old")
	states := map[string][][]string{"old": w.trees()}
	m, err := w.engine().Store.Load(w.name, w.capture())
	w.must(err)
	restored, err := w.engine().Store.Load(w.name, sid)
	w.must(err)
	id := ""
	for _, member := range m.Volumes[1].Members {
		if !slices.Contains(restored.Volumes[1].Members, member) {
			id = member.ID
		}
	}
	found, err := filepath.Glob(filepath.Join(w.dir, "store/members", id[:2], id+"*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("the member is %q, %v", found, err)
	}
	data, err := os.ReadFile(found[0])
	w.must(err)
	data[len(data)/2] ^= 1
	w.must(os.WriteFile(found[0], data, 0o600))
	_, err = w.engine().Restore(t.Context(), w.afterRequest(sid))
	w.must(err)
	w.oldIsBack(states, nil)
}

// TestThePreRestoreSnapshotReliesOnNoDamagedMember: what the latest snapshot
// proves to be unchanged is not read, but what the store has of it is.
func TestThePreRestoreSnapshotReliesOnNoDamagedMember(t *testing.T) {
	w := newWorld(t, disktest.Mount(t, "ext4", 64), 2)
	w.fill("new")
	sid := w.capture()
	w.fill("old")
	states := map[string][][]string{"old": w.trees()}
	time.Sleep(1200 * time.Millisecond) // what was just written is read once more
	latest, err := w.engine().Store.Load(w.name, w.capture())
	w.must(err)
	restored, err := w.engine().Store.Load(w.name, sid)
	w.must(err)
	spoiled := 0
	for _, member := range latest.Volumes[1].Members {
		if !slices.ContainsFunc(restored.Volumes[1].Members, func(m archive.Member) bool { return m.ID == member.ID }) {
			w.must(flip(filepath.Join(w.dir, "store/members", member.ID[:2], member.ID+".gz")))
			spoiled++
		}
	}
	r, err := w.restore(sid)
	if err != nil || spoiled == 0 || r.PassOne.ReadBytes == 0 {
		t.Fatalf("%d members are damaged, %d bytes were read: %v", spoiled, r.PassOne.ReadBytes, err)
	}
	if _, err := w.restore(r.PreRestoreSID); err != nil {
		t.Fatal(err)
	}
	w.generation(states)
}

func TestGuardingAfterASignalIsHeardUntilTheCommit(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2)
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	sid := w.capture()
	want, done := "old", false
	for n := 0; !done; n++ {
		w.fill("old")
		states["old"] = w.trees()
		then := w.before()
		ctx, cancel := context.WithCancelCause(t.Context())
		e := w.engine()
		i, at := 0, ""
		done = true
		e.reached = func(p string) {
			if i == n {
				at, done = p, false
				cancel(&Signal{Name: "SIGTERM", Code: 143})
			}
			i++
		}
		r, err := e.Restore(ctx, w.afterRequest(sid))
		if at == "before commit" || done {
			want = "new"
		}
		if want == "new" {
			w.must(err)
			if now := w.before(); r.PreRestoreSID == "" || !slices.Contains(now, r.PreRestoreSID) {
				t.Errorf("at %q: it names %q, of %q", at, r.PreRestoreSID, now)
			}
		} else if kindOf(err) != Interrupted || len(w.before()) != len(then) {
			t.Errorf("at %q: the restore returned %v, expected interrupted", at, err)
		}
		if got := w.generation(states); got != want {
			t.Errorf("at %q: the data is %s, expected %s", at, got, want)
		}
		w.clean()
	}
}

func TestGuardingAfterANewHostGetsItsDirectoriesBack(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2)
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	sid := w.capture()
	w.must(os.RemoveAll(filepath.Join(w.dir, "live/v0")))
	r, err := w.engine().Restore(t.Context(), w.afterRequest(sid))
	w.must(err)
	w.generation(states)
	w.clean()
	if m, err := w.engine().Store.Load(w.name, r.PreRestoreSID); err != nil || m.Volumes[0].Files != 0 || m.Volumes[1].Files == 0 {
		t.Errorf("the pre-restore snapshot is %+v, %v", m, err)
	}
}

func TestWhenARestoreGuardsIsAskedForOrConfigured(t *testing.T) {
	for _, c := range []struct{ config, asked, want string }{
		{"", "", "before"}, {"after", "", "after"}, {"after", "before", "before"}, {"before", "after", "after"}, {"", "sometimes", ""},
	} {
		var more []string
		if c.config != "" {
			more = append(more, "guard: "+c.config)
		}
		w := newWorld(t, t.TempDir(), 1, more...)
		w.fill("data")
		req := w.request(w.capture())
		req.Guard = c.asked
		p, err := w.engine().Plan(t.Context(), req)
		if c.want == "" {
			if kindOf(err) != Usage {
				t.Errorf("%+v: %v, expected an error of usage", c, err)
			}
			continue
		}
		w.must(err)
		if p.Guard != c.want {
			t.Errorf("%+v: it guards %s", c, p.Guard)
		}
	}
}

func TestAStoreWithoutRoomIsForetold(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, dir, 1)
	w.must(os.Mkdir(filepath.Join(dir, "store"), 0o700))
	disktest.Bind(t, disktest.Mount(t, "ext4", 16), filepath.Join(dir, "store"))
	w.fill("new")
	sid := w.capture()
	w.must(os.Truncate(filepath.Join(w.volumes[0], "large"), 64<<20))
	for guard, want := range map[string]bool{workload.GuardBefore: false, workload.GuardAfter: true} {
		req := w.request(sid)
		req.Guard = guard
		p, err := w.engine().Plan(t.Context(), req)
		w.must(err)
		if got := strings.Contains(strings.Join(p.Warnings, "\n"), "the store may be too full"); got != want {
			t.Errorf("guard %s: the warnings are %q", guard, p.Warnings)
		}
	}
}
