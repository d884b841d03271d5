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
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/workload"
)

func (w *world) guardAfterRequest(sid string) RestoreRequest {
	req := w.request(sid)
	req.Guard = workload.GuardAfter
	return req
}

// displaced returns the paths of the displaced trees that exist.
func (w *world) displaced() []string {
	w.Helper()
	found, err := filepath.Glob(filepath.Join(w.dir, "live/.snap-*/[0-9]"))
	w.must(err)
	return found
}

// preRestoreSIDs returns the pre-restore snapshots of the workload.
func (w *world) preRestoreSIDs() (sids []string) {
	w.Helper()
	for _, m := range w.snapshots() {
		if m.Reason == "pre-restore" && strings.HasPrefix(m.Note, "before the restore of") {
			sids = append(sids, m.SID)
		}
	}
	return sids
}

// oldDataExists fails the test unless every old tree is live, displaced, or in a
// pre-restore snapshot that is not among the earlier ones. It ignores the mtime of
// the root directory, which an exchange may change; the snapshot takes that mtime
// from the records.
func (w *world) oldDataExists(old [][]string, earlier []string) {
	w.Helper()
	if len(w.preRestoreSIDs()) > len(earlier) {
		return // oldDataRestores checks what it holds
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

// oldDataRestores fails the test unless there is exactly one pre-restore snapshot
// more than the earlier ones, and restoring it brings the old data back.
func (w *world) oldDataRestores(states map[string][][]string, earlier []string) {
	w.Helper()
	now := w.preRestoreSIDs()
	if len(now) != len(earlier)+1 {
		w.Fatalf("the pre-restore snapshots are %q, before the restore they were %q", now, earlier)
	}
	_, err := w.restore(now[0])
	w.must(err)
	if got := w.generation(states); got != "old" {
		w.Errorf("the pre-restore snapshot brought the %s data", got)
	}
}

// A restore with --guard after is killed at each of its points. The old data
// exists at every moment, and recovery leaves all volumes old or all new.
func TestGuardAfterKilledAnywhereKeepsTheOldData(t *testing.T) {
	// Only on XFS does an exchange change directory times; testdata/crash has the
	// other filesystems.
	w := newWorld(t, disktest.Mount(t, "xfs", 300), 2)
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	sid := w.capture()
	for at, killed := 1, true; killed; at++ {
		w.fill("old")
		states["old"] = w.trees()
		earlier := w.preRestoreSIDs()
		var points []string
		points, killed = w.run("restore", sid, at, "SNAP_TEST_GUARD=after")
		want := "old"
		if slices.Contains(points, commitPoint) {
			want = "new"
		}
		w.oldDataExists(states["old"], earlier)
		if killed {
			w.recoverTwice()
		} else {
			w.checkOrder(points, "ready", "stopped", "before swap", "exchanged v1", "before commit", commitPoint, "before guarding", "guarding", "guarded", "discarded", "removed", "settled")
		}
		if got := w.generation(states); got != want {
			t.Errorf("the volumes are %s, expected %s", got, want)
		}
		w.clean()
		if want == "new" {
			w.oldDataRestores(states, earlier)
		} else if now := w.preRestoreSIDs(); len(now) != len(earlier) {
			t.Errorf("nothing was replaced, but the pre-restore snapshots are %q; before the restore they were %q", now, earlier)
		}
		if t.Failed() {
			t.Fatalf("after a kill at %q", points[len(points)-1])
		}
	}
}

// checkOrder fails the test unless these points were reached in that order, and
// the phases that read the live data before the commit were skipped.
func (w *world) checkOrder(points []string, want ...string) {
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

// A recovery that finishes --guard after is itself killed at each of its points.
// The next recovery completes the snapshot of the old data.
func TestGuardAfterRecoveryKilledAnywhereIsFinishedByTheNext(t *testing.T) {
	for _, point := range []string{"guarding", "guarded"} {
		t.Run(point, func(t *testing.T) {
			w := newWorld(t, disktest.Mount(t, "xfs", 300), 2)
			w.fill("new")
			states := map[string][][]string{"new": w.trees()}
			sid := w.capture()
			for at, killed := 1, true; killed; at++ {
				w.fill("old")
				states["old"] = w.trees()
				earlier := w.preRestoreSIDs()
				w.killGuardAfter(sid, point)
				_, killed = w.run("recover", "", at)
				w.oldDataExists(states["old"], earlier)
				if killed {
					w.recoverTwice()
				}
				if got := w.generation(states); got != "new" {
					t.Fatalf("recovery killed at point %d: the volumes are %s", at, got)
				}
				w.clean()
				w.oldDataRestores(states, earlier)
			}
		})
	}
}

// The pre-restore snapshot cannot be made after the commit: the displaced tree or
// the store is unfit. Nothing is deleted until the operator has mended the cause.
func TestGuardAfterFailedPublicationKeepsTheDisplacedTree(t *testing.T) {
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
		"a process has one of its files open for writing": {func(w *world) func() {
			return holder(w, filepath.Join(w.displaced()[0], "large"))
		}, "end these processes"},
		"the store is full": {func(w *world) func() {
			ballast := filepath.Join(w.dir, "store/ballast")
			w.must(errors.Join(os.WriteFile(ballast, nil, 0o600), fillTo(ballast, 8<<10)))
			return func() { w.must(os.Remove(ballast)) }
		}, "free space on the filesystem of the store"},
		"the volume is no longer in the config": {func(w *world) func() {
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
			for _, v := range w.volumes { // data that does not compress
				disktest.Run(t, "sh", "-c", "openssl rand 300000 > "+v+"/random 2>/dev/null || head -c 300000 /dev/urandom > "+v+"/random")
			}
			states["old"] = w.trees()
			w.checkFailedGuard(sid, states, c.spoil, c.hint)
		})
	}
}

// fillTo grows a file until its filesystem has only that many bytes free.
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

// checkFailedGuard spoils a restore that is about to guard, checks that recoveries
// fail with the hint and delete nothing, then mends it and lets it finish.
func (w *world) checkFailedGuard(sid string, states map[string][][]string, spoil func(*world) func(), hint string) {
	w.Helper()
	w.killGuardAfter(sid, "guarding")
	mend := spoil(w)
	before := disktest.Tree(w.T, filepath.Join(w.dir, "live"))
	for range 2 {
		list, err := w.engine().Recover(w.Context(), RecoverRequest{})
		if fault.KindOf(err) != fault.Pending || codeOf(err) != "guarding" || !strings.Contains(hintOf(err), hint) || !strings.Contains(hintOf(err), "snap recover") {
			w.Errorf("recover returned %v, hint %q; expected guarding, hint %q", err, hintOf(err), hint)
		}
		if len(list) != 1 || list[0].Action != RolledForwardTx || !list[0].Pending || list[0].Found != "guarding" {
			w.Errorf("recover found %+v", list)
		}
		if left, err := filepath.Glob(filepath.Join(w.dir, "store/scratch/*")); err != nil || len(left) > 0 {
			w.Errorf("the scratch folder is not empty: %q, %v", left, err)
		}
	}
	if list, err := w.engine().Recover(w.Context(), RecoverRequest{Offline: true}); err != nil || len(list) != 1 || !list[0].Pending {
		w.Errorf("offline recovery returned %+v, %v", list, err)
	}
	disktest.Same(w.T, "nothing is deleted", before, disktest.Tree(w.T, filepath.Join(w.dir, "live")))
	w.checkGuardingStatus(sid)
	mend()
	w.recoverTwice()
	w.generation(map[string][][]string{"new": states["new"]})
	w.oldDataRestores(states, nil)
}

// checkGuardingStatus checks what status, restore and recover --resolve say while
// a restore has yet to make its pre-restore snapshot.
func (w *world) checkGuardingStatus(sid string) {
	w.Helper()
	status, err := w.engine().Status(w.Context(), w.name)
	w.must(err)
	p := status[0].Pending
	if status[0].State != "guarding" || p == nil || p.Frozen || p.Found != "guarding" || !strings.Contains(p.Message, "not a snapshot yet") || !strings.Contains(p.Message, w.displaced()[0]) {
		w.Errorf("status says %s, %+v", status[0].State, p)
	}
	_, err = w.engine().Restore(w.Context(), w.request(sid))
	if fault.KindOf(err) != fault.Frozen || codeOf(err) != "unfinished" || !strings.Contains(err.Error(), "not a snapshot yet") {
		w.Errorf("another restore returned %v", err)
	}
	if _, err := w.engine().Resolve(w.Context(), ResolveRequest{Workload: w.name, Keep: journal.KeepNew}); codeOf(err) != "not_frozen" {
		w.Errorf("a decision returned %v", err)
	}
}

// The pre-restore snapshot fails in the restore itself: the result is pending and
// names the displaced tree.
func TestGuardAfterPublicationFailsDuringTheRestore(t *testing.T) {
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
	r, err := e.Restore(t.Context(), w.guardAfterRequest(sid))
	if fault.KindOf(err) != fault.Pending || codeOf(err) != "guarding" || !strings.Contains(err.Error(), w.displaced()[0]) {
		t.Errorf("the restore returned %v, expected guarding", err)
	}
	if r == nil || r.Outcome != Restored || r.PreRestoreSID != "" || r.Guard != workload.GuardAfter {
		t.Errorf("the result is %+v", r)
	}
	w.generation(states)
}

// A displaced tree is changed after it was read and before it is deleted, as a
// process with its working directory there could do. The changes are captured too.
func TestGuardAfterCapturesWritesMadeAfterTheRead(t *testing.T) {
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
			t.Errorf("the members read so far are %q, %v", read, err)
		}
		disktest.Write(t, w.displaced()[0], want)
	}
	r, err := e.Restore(t.Context(), w.guardAfterRequest(sid))
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

// A file becomes immutable after the pre-flight. The restore stays pending, and
// the error names the file and the chattr command.
func TestGuardAfterNamesAFileThatCannotBeDeleted(t *testing.T) {
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
	_, err := e.Restore(t.Context(), w.guardAfterRequest(sid))
	if fault.KindOf(err) != fault.Pending || !strings.Contains(err.Error(), locked) || !strings.Contains(err.Error(), "chattr -i -a") {
		t.Errorf("the restore returned %v", err)
	}
	disktest.Run(t, "chattr", "-i", locked)
	w.recoverTwice()
	w.clean()
}

// The store already has a member of the old data, but the member is damaged. The
// pre-restore snapshot does not rely on it.
func TestGuardAfterRewritesADamagedMember(t *testing.T) {
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
	_, err = w.engine().Restore(t.Context(), w.guardAfterRequest(sid))
	w.must(err)
	w.oldDataRestores(states, nil)
}

// A member of the latest snapshot is damaged. Unchanged files need not be read
// again, but the members that hold them are verified and rewritten if damaged.
func TestThePreRestoreSnapshotRewritesADamagedMember(t *testing.T) {
	w := newWorld(t, disktest.Mount(t, "ext4", 64), 2)
	w.fill("new")
	sid := w.capture()
	w.fill("old")
	states := map[string][][]string{"old": w.trees()}
	time.Sleep(1200 * time.Millisecond) // files written just now are read again
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

// A signal at each point of a restore with --guard after: before the commit it
// interrupts and nothing changes; later the restore completes.
func TestGuardAfterASignalInterruptsUntilTheCommit(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2)
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	sid := w.capture()
	want, done := "old", false
	for n := 0; !done; n++ {
		w.fill("old")
		states["old"] = w.trees()
		earlier := w.preRestoreSIDs()
		ctx, cancel := context.WithCancelCause(t.Context())
		e := w.engine()
		i, at := 0, ""
		done = true
		e.reached = func(p string) {
			if i == n {
				at, done = p, false
				cancel(&fault.Signal{Name: "SIGTERM", Code: 143})
			}
			i++
		}
		r, err := e.Restore(ctx, w.guardAfterRequest(sid))
		if at == "before commit" || done {
			want = "new"
		}
		if want == "new" {
			w.must(err)
			if now := w.preRestoreSIDs(); r.PreRestoreSID == "" || !slices.Contains(now, r.PreRestoreSID) {
				t.Errorf("at %q: the restore names snapshot %q, the pre-restore snapshots are %q", at, r.PreRestoreSID, now)
			}
		} else if fault.KindOf(err) != fault.Interrupted || len(w.preRestoreSIDs()) != len(earlier) {
			t.Errorf("at %q: the restore returned %v, expected interrupted", at, err)
		}
		if got := w.generation(states); got != want {
			t.Errorf("at %q: the data is %s, expected %s", at, got, want)
		}
		w.clean()
	}
}

// A live directory is missing, as on a new host. The restore creates it, and the
// pre-restore snapshot has an empty volume for it.
func TestGuardAfterCreatesAMissingLiveDirectory(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2)
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	sid := w.capture()
	w.must(os.RemoveAll(filepath.Join(w.dir, "live/v0")))
	r, err := w.engine().Restore(t.Context(), w.guardAfterRequest(sid))
	w.must(err)
	w.generation(states)
	w.clean()
	if m, err := w.engine().Store.Load(w.name, r.PreRestoreSID); err != nil || m.Volumes[0].Files != 0 || m.Volumes[1].Files == 0 {
		t.Errorf("the pre-restore snapshot is %+v, %v", m, err)
	}
}

// The request decides when the pre-restore snapshot is made, else the config; an
// unknown word is an error of usage.
func TestTheGuardComesFromTheRequestOrTheConfig(t *testing.T) {
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
			if fault.KindOf(err) != fault.Usage {
				t.Errorf("%+v: %v, expected an error of usage", c, err)
			}
			continue
		}
		w.must(err)
		if p.Guard != c.want {
			t.Errorf("%+v: the plan guards %s", c, p.Guard)
		}
	}
}

// The store has too little space for the pre-restore snapshot. With --guard after
// the plan says so, because the restore would notice only after the commit.
func TestThePlanWarnsOfAStoreWithoutSpace(t *testing.T) {
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
