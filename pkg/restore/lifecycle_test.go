package restore

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/store"
)

func (w *world) restore(sid string) (*RestoreResult, error) {
	return w.engine().Restore(w.Context(), w.request(sid))
}

// A whole restore, and then a restore of its pre-restore snapshot, which brings
// the old data back.
func TestARestoreReplacesDataAndContainerAndSnapshotsTheOldData(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2, appLines(image(t))...)
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	w.deploy()
	before := w.appRuns()
	sid := w.capture()
	w.fill("old")
	states["old"] = w.trees()

	r, err := w.restore(sid)
	w.must(err)
	if got := w.generation(states); got != "new" || r.Outcome != Restored {
		t.Errorf("outcome %s, the data is %s", r.Outcome, got)
	}
	after := w.appRuns()
	if after.ID == before.ID {
		t.Error("the container was not recreated")
	}
	if r.DowntimeSeconds <= 0 || r.DowntimeSeconds > r.Seconds {
		t.Errorf("down %f s of %f s", r.DowntimeSeconds, r.Seconds)
	}
	w.clean()

	// The pre-restore snapshot can be restored like any other.
	m, err := w.engine().Store.Load(w.name, r.PreRestoreSID)
	w.must(err)
	if m.Reason != "pre-restore" || len(m.Images) != 1 || m.Images[0].ImageID == "" {
		t.Errorf("the pre-restore snapshot is %+v", m)
	}
	_, err = w.restore(r.PreRestoreSID)
	w.must(err)
	if got := w.generation(states); got != "old" {
		t.Errorf("the pre-restore snapshot brought the %s data", got)
	}
}

// The app is unhealthy on the new data. The restore reverts to the old data and
// the old container, or with --on-unhealthy keep leaves the new ones.
func TestAnUnhealthyAppRollsBackUnlessKept(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2, briefLines(image(t))...)
	w.fill("old")
	w.deploy()
	w.sicken()
	sid := w.capture()
	w.fill("old")
	states := map[string][][]string{"old": w.trees()}
	before := w.appRuns()

	r, err := w.engine().Restore(t.Context(), briefly(w.request(sid)))
	if fault.KindOf(err) != fault.RolledBack || codeOf(err) != "unhealthy" || r == nil || r.Outcome != Reverted {
		t.Fatalf("the restore returned %+v, %v; expected reverted", r, err)
	}
	w.generation(states)
	if after := w.appRuns(); after.ID != before.ID {
		t.Error("the old container is not back")
	}
	w.clean()
	// The app may have written to the new data, so that is captured before it is
	// deleted.
	list := w.snapshots()
	reverted := slices.IndexFunc(list, func(m *store.Manifest) bool { return strings.HasPrefix(m.Note, "taken back") })
	if reverted < 0 || len(list[reverted].Volumes) != 2 {
		t.Fatalf("none of the %d snapshots holds the reverted data", len(list))
	}

	req := briefly(w.request(sid))
	req.OnUnhealthy = KeepUnhealthy
	r, err = w.engine().Restore(t.Context(), req)
	if fault.KindOf(err) != fault.Pending || r == nil || r.Outcome != Restored {
		t.Fatalf("with keep the restore returned %+v, %v; expected pending", r, err)
	}
	if _, err := os.Stat(filepath.Join(w.volumes[0], "sick")); err != nil {
		t.Errorf("the new data is not live: %v", err)
	}
	if after := w.appRuns(); after.ID == before.ID {
		t.Error("the new container was not kept")
	}
	w.clean()
}

// A workload that was stopped before its restore stays stopped, and keeps its
// restart policy.
func TestAStoppedWorkloadIsNotStarted(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1, appLines(image(t))...)
	w.fill("new")
	w.deploy()
	sid := w.capture()
	disktest.Run(t, "docker", "stop", "-t", "1", w.name)
	w.fill("old")
	_, err := w.restore(sid)
	w.must(err)
	c := w.containers()
	if len(c) != 1 || c[0].Running || c[0].Policy != "unless-stopped" {
		t.Errorf("the container is %+v, expected it stopped and with its restart policy", c)
	}
	w.clean()
}

// Two operations at once on the same workload, or on two workloads that share a
// directory: the second is refused as busy.
func TestTheSecondOfTwoConcurrentOperationsIsBusy(t *testing.T) {
	w := newWorld(t, disktest.Mount(t, "ext4", 256), 1)
	other := "other" + w.name
	data, err := os.ReadFile(w.config)
	w.must(err)
	_, lines, _ := strings.Cut(string(data), w.name+":\n")
	w.must(os.WriteFile(w.config, []byte(string(data)+"  "+other+":\n"+lines), 0o600))
	w.fill("data")
	sid := w.capture()
	for _, name := range []string{w.name, other} { // other has the same directory
		tried := false
		e := w.engine()
		e.reached = func(point string) {
			if point != "stage" {
				return
			}
			tried = true
			if name == w.name {
				_, err := w.engine().Restore(t.Context(), w.request(sid))
				if fault.KindOf(err) != fault.Busy {
					t.Errorf("a second restore of the workload returned %v, expected busy", err)
				}
				return
			}
			_, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: other, Quiesce: runtime.None})
			if fault.KindOf(err) != fault.Busy {
				t.Errorf("a capture of a workload on the same directory returned %v, expected busy", err)
			}
		}
		_, err := e.Restore(t.Context(), w.request(sid))
		w.must(err)
		if !tried {
			t.Fatal("the second operation never began")
		}
	}
}

// A signal at each point of a restore: before the commit it interrupts and the old
// data is live; later the restore completes.
func TestASignalAtAnyPointInterruptsUntilTheCommit(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2, appLines(image(t))...)
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	w.deploy()
	sid := w.capture()
	want, done := "old", false
	for n := 0; !done; n++ {
		w.fill("old")
		states["old"] = w.trees()
		ctx, cancel := context.WithCancelCause(t.Context())
		e := w.engine()
		i, point := 0, ""
		done = true
		e.reached = func(p string) {
			if i == n {
				point, done = p, false
				cancel(&fault.Signal{Name: "SIGTERM", Code: 143})
			}
			i++
		}
		_, err := e.Restore(ctx, w.request(sid))
		// A signal does not interrupt the exchanges. It takes effect after them and
		// before the commit.
		if point == "before commit" || done {
			want = "new"
		}
		if want == "new" {
			w.must(err)
		} else if fault.KindOf(err) != fault.Interrupted {
			t.Errorf("at %q: the restore returned %v, expected interrupted", point, err)
		}
		if got := w.generation(states); got != want {
			t.Errorf("at %q: the data is %s, expected %s", point, got, want)
		}
		w.appRuns()
		w.clean()
		if done && n < 15 {
			t.Errorf("only %d points", n)
		}
	}
}

// A signal at each point of a capture, also while the app is paused or stopped:
// the same container runs afterwards.
func TestASignalAtAnyPointOfACaptureLeavesTheAppRunning(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1, appLines(image(t))...)
	w.fill("data")
	w.deploy()
	before := w.appRuns()
	for _, quiesce := range []string{runtime.Pause, runtime.Stop} {
		for _, point := range []string{"begin", "quiesced", "thawed", "read"} {
			ctx, cancel := context.WithCancelCause(t.Context())
			e := w.engine()
			e.reached = func(p string) {
				if p == point {
					cancel(&fault.Signal{Name: "SIGINT", Code: 130})
				}
			}
			_, err := e.Capture(ctx, CaptureRequest{Workload: w.name, Quiesce: quiesce})
			// After the last read the capture completes: publishing is quick.
			if point == "read" {
				w.must(err)
			} else if fault.KindOf(err) != fault.Interrupted {
				t.Errorf("%s, at %q: the capture returned %v, expected interrupted", quiesce, point, err)
			}
			if c := w.appRuns(); c.ID != before.ID {
				t.Errorf("%s, at %q: the container was replaced", quiesce, point)
			}
			w.clean()
		}
	}
}

// The live directories are missing, as on a new host. A restore creates them, and
// a roll-back removes the ones that it created.
func TestARestoreCreatesMissingLiveDirectories(t *testing.T) {
	w := newWorld(t, disktest.Mount(t, "ext4", 256), 2)
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	sid := w.capture()
	w.must(os.RemoveAll(filepath.Join(w.dir, "live")))
	w.must(os.Mkdir(filepath.Join(w.dir, "live"), 0o755))

	e := w.engine()
	ctx, cancel := context.WithCancelCause(t.Context())
	e.reached = func(point string) {
		if point == "swap" {
			cancel(&fault.Signal{Name: "SIGINT", Code: 130})
		}
	}
	if _, err := e.Restore(ctx, w.request(sid)); fault.KindOf(err) != fault.Interrupted {
		t.Fatalf("the restore returned %v, expected interrupted", err)
	}
	left, err := os.ReadDir(filepath.Join(w.dir, "live"))
	w.must(err)
	if len(left) > 0 {
		t.Errorf("the roll-back left directories that the restore created: %v", left)
	}
	_, err = w.restore(sid)
	w.must(err)
	w.generation(states)
	w.clean()
}

// A restore with --volume replaces only the chosen volume.
func TestARestoreOfOneVolumeLeavesTheOthers(t *testing.T) {
	w := newWorld(t, disktest.Mount(t, "ext4", 256), 2)
	w.fill("new")
	newer := w.trees()
	sid := w.capture()
	w.fill("old")
	older := w.trees()
	req := w.request(sid)
	req.Volumes = []string{"v1"}
	_, err := w.engine().Restore(t.Context(), req)
	w.must(err)
	disktest.Same(t, "the volume that was not chosen", older[0], disktest.Tree(t, w.volumes[0]))
	disktest.Same(t, "the volume that was chosen", newer[1], disktest.Tree(t, w.volumes[1]))
}

// No engine answers. A data-only workload is captured and restored all the same.
func TestDataIsRestoredWithoutAnEngine(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
	w := newWorld(t, disktest.Mount(t, "ext4", 256), 1)
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	sid := w.capture()
	w.fill("old")
	_, err := w.restore(sid)
	w.must(err)
	w.generation(states)
}

// recover --offline rolls the data back and leaves the app alone; the next
// recovery starts the app.
func TestOfflineRecoveryMovesTheDataAndTheNextRunStartsTheApp(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2, appLines(image(t))...)
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	w.deploy()
	sid := w.capture()
	w.fill("old")
	states["old"] = w.trees()
	whole, _ := w.run("restore", sid, 0)
	w.fill("old")
	states["old"] = w.trees()
	w.killAt("restore", sid, "exchanged v0", whole)
	if w.containers()[0].Running {
		t.Fatal("the app runs during the swap")
	}
	for range 2 {
		list, err := w.engine().Recover(t.Context(), RecoverRequest{Offline: true})
		if err != nil || len(list) != 1 || list[0].Action != RolledBackTx || !list[0].Pending {
			t.Fatalf("offline recovery returned %+v, %v", list, err)
		}
		if got := w.generation(states); got != "old" {
			t.Errorf("the data is %s", got)
		}
		if w.containers()[0].Running {
			t.Error("offline recovery started the app")
		}
	}
	w.recoverTwice()
	w.appRuns()
	w.generation(states)
}

// A process of the host has a live file open for writing after the app was
// stopped. The restore rolls back and names the process.
func TestAWriterThatSurvivesTheFenceRollsBack(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2, appLines(image(t))...)
	w.fill("new")
	w.deploy()
	sid := w.capture()
	w.fill("old")
	states := map[string][][]string{"old": w.trees()}
	before := w.appRuns()
	e := w.engine()
	var stop func()
	e.reached = func(point string) {
		if point == "stopped" {
			stop = writer(w, "")
		}
	}
	_, err := e.Restore(t.Context(), w.request(sid))
	stop()
	if fault.KindOf(err) != fault.RolledBack || !strings.Contains(err.Error(), "sleep") {
		t.Errorf("the restore returned %v, expected a roll-back that names the process", err)
	}
	w.generation(states)
	if after := w.appRuns(); after.ID != before.ID {
		t.Error("the container was replaced")
	}
	w.clean()
}

// A live directory is replaced by hand during a restore. The restore stops, and
// touches neither the new directory nor the one that was moved away.
func TestADirectoryReplacedDuringARestoreIsNotTouched(t *testing.T) {
	for point, want := range map[string]fault.Kind{"stage": fault.Refused, "publish": fault.Frozen} {
		t.Run(point, func(t *testing.T) {
			w := newWorld(t, disktest.Mount(t, "ext4", 256), 2)
			w.fill("new")
			sid := w.capture()
			w.fill("old")
			e := w.engine()
			e.reached = func(p string) {
				if p == point {
					w.must(os.Rename(w.volumes[1], w.volumes[1]+".moved"))
					disktest.Write(t, w.volumes[1], map[string]string{"stranger": "s"})
				}
			}
			_, err := e.Restore(t.Context(), w.request(sid))
			if fault.KindOf(err) != want {
				t.Errorf("the restore returned %v (kind %d), expected kind %d", err, fault.KindOf(err), want)
			}
			for _, path := range []string{w.volumes[0] + "/dir/old", w.volumes[1] + "/stranger", w.volumes[1] + ".moved/dir/old"} {
				if _, err := os.Stat(path); err != nil {
					t.Errorf("a file is gone: %v", err)
				}
			}
		})
	}
}

// An exported volume is what tar extracts and what an import stores. Damaged
// members fail the export, and a truncated archive is refused by the import.
func TestExportAndImport(t *testing.T) {
	w := newWorld(t, disktest.Mount(t, "ext4", 256), 1)
	disktest.Rich(t, w.volumes[0])
	states := map[string][][]string{"rich": w.trees()}
	sid := w.capture()
	file := filepath.Join(w.dir, "out.tar.gz")
	f, err := os.Create(file)
	w.must(err)
	_, err = w.engine().Export(t.Context(), w.name, sid, "", "", f)
	w.must(err)
	w.must(f.Close())
	out := filepath.Join(w.dir, "out")
	w.must(os.Mkdir(out, 0o755))
	disktest.Run(t, "tar", "-xzpf", file, "--numeric-owner", "--xattrs", "--xattrs-include=*", "--warning=no-timestamp", "-C", out)
	disktest.Same(t, "exported", states["rich"][0], disktest.Tree(t, out))

	in, err := os.ReadFile(file)
	w.must(err)
	r, err := w.engine().Import(t.Context(), w.name, "v0", bytes.NewReader(in), "from tar")
	w.must(err)
	w.fill("old")
	_, err = w.restore(r.Manifest.SID)
	w.must(err)
	w.generation(states)

	members, err := filepath.Glob(filepath.Join(w.dir, "store/members/*/*"))
	w.must(err)
	for _, member := range members {
		w.must(os.Truncate(member, 20))
	}
	var damaged bytes.Buffer
	if _, err := w.engine().Export(t.Context(), w.name, sid, "", "", &damaged); fault.KindOf(err) != fault.Failed || codeOf(err) != "snapshot_damaged" {
		t.Errorf("an export of damaged members returned %v", err)
	}

	before := w.trees()
	if _, err := w.engine().Import(t.Context(), w.name, "v0", bytes.NewReader(in[:len(in)/2]), ""); fault.KindOf(err) != fault.Refused {
		t.Errorf("the import of half an archive returned %v", err)
	}
	disktest.Same(t, "the live data", before[0], w.trees()[0])
	w.clean()
}

// A deploy whose new container is unhealthy rolls back to the old container.
func TestAFailedDeployBringsTheOldContainerBack(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1, briefLines(image(t))...)
	w.fill("data")
	w.deploy()
	before := w.appRuns()
	w.sicken()
	w.edit("restart:", "environment: {CHANGED: \"1\"}\n    restart:")
	_, err := w.engine().Deploy(t.Context(), DeployRequest{Workload: w.name, HealthTimeout: briefWait})
	if fault.KindOf(err) != fault.RolledBack {
		t.Errorf("the deploy returned %v, expected rolled back", err)
	}
	if after := w.appRuns(); after.ID != before.ID {
		t.Error("the old container is not back")
	}
	w.clean()
}

// Special files of a volume: a socket is left out and counted, a fifo is refused.
// An unchanged volume adds nothing to the store.
func TestACaptureCountsSocketsAndRefusesAFifo(t *testing.T) {
	w := newWorld(t, disktest.Mount(t, "ext4", 256), 1)
	w.fill("data")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	w.must(err)
	defer unix.Close(fd)
	w.must(unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(w.volumes[0], "s")}))
	r, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.None, Note: "n"})
	w.must(err)
	if v := r.Manifest.Volumes[0]; v.Sockets != 1 || v.Files != 3 || r.Manifest.Note != "n" {
		t.Errorf("the manifest says %+v", r.Manifest)
	}
	again, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.None})
	w.must(err)
	if again.Added != 0 {
		t.Errorf("an unchanged volume added %d bytes to the store", again.Added)
	}
	w.must(unix.Mkfifo(filepath.Join(w.volumes[0], "fifo"), 0o600))
	if _, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.None}); codeOf(err) != "unrestorable" {
		t.Errorf("a capture of a fifo returned %v", err)
	}
	w.clean()
}

// snap lock holds a workload: captures and other locks are busy until it ends.
func TestALockMakesOtherOperationsBusy(t *testing.T) {
	w := newWorld(t, disktest.Mount(t, "ext4", 256), 1)
	w.fill("data")
	held, err := w.engine().Lock(t.Context(), w.name, time.Second)
	w.must(err)
	if _, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.None}); fault.KindOf(err) != fault.Busy {
		t.Errorf("a capture of a locked workload returned %v, expected busy", err)
	}
	if _, err := w.engine().Lock(t.Context(), w.name, 200*time.Millisecond); fault.KindOf(err) != fault.Busy {
		t.Errorf("a second lock returned %v, expected busy", err)
	}
	held.Release()
	w.capture()
}

// A container of another owner uses the live directory and is listed under
// also_stop. The restore stops it and starts it again.
func TestListedContainersAreRestarted(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1, appLines(image(t))...)
	w.fill("new")
	w.deploy()
	defer w.stranger(w.volumes[0], true)()
	w.edit("restart:", "also_stop: ["+w.name+"-stranger]\n    restart:")
	sid := w.capture()
	w.fill("old")
	before := dockertest.Inspect(t, w.name+"-stranger")
	r, err := w.restore(sid)
	w.must(err)
	if after := dockertest.Inspect(t, w.name+"-stranger"); !after.Running || after.StartedAt == before.StartedAt {
		t.Errorf("the listed container was %+v and is %+v, expected a restart", before, after)
	}
	if !disk.ValidID(r.PreRestoreSID) {
		t.Errorf("pre-restore sid %q", r.PreRestoreSID)
	}
	w.clean()
}

// A restore was killed after its commit, and the engine is away. Recovery keeps
// the new data and leaves the app for later.
func TestACommittedRestoreIsNotRolledBackWhileTheEngineIsAway(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2, appLines(image(t))...)
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	w.deploy()
	sid := w.capture()
	w.fill("old")
	whole, _ := w.run("restore", sid, 0)
	w.fill("old")
	w.killAt("restore", sid, commitPoint, whole)
	t.Run("away", func(t *testing.T) {
		t.Setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
		list, err := w.engine().Recover(t.Context(), RecoverRequest{})
		if fault.KindOf(err) != fault.Pending || len(list) != 1 || list[0].Action != RolledForwardTx || !list[0].Pending {
			t.Errorf("without an engine recover returned %+v, %v; expected the new data and a pending app", list, err)
		}
		w.generation(states)
	})
	w.recoverTwice()
	w.generation(states)
	w.appRuns()
}

// A deploy that changes nothing, or whose image cannot be had, leaves the running
// container alone.
func TestADeployWithoutChangesTouchesNothing(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1, appLines(image(t))...)
	w.fill("data")
	w.deploy()
	before := w.appRuns()
	r, err := w.engine().Deploy(t.Context(), DeployRequest{Workload: w.name})
	w.must(err)
	if after := w.appRuns(); r.Changed || after.ID != before.ID || after.StartedAt != before.StartedAt {
		t.Errorf("a deploy without changes reported changed=%t, or touched the container", r.Changed)
	}
	w.edit("image: ", "image: nobody-has-this-")
	_, err = w.engine().Deploy(t.Context(), DeployRequest{Workload: w.name})
	if k := fault.KindOf(err); err == nil || k != fault.Failed && k != fault.Refused {
		t.Errorf("a deploy of an image that cannot be had returned %v (kind %d), expected failed or refused", err, k)
	}
	if after := w.appRuns(); after.ID != before.ID || after.StartedAt != before.StartedAt {
		t.Error("the deploy touched the container")
	}
}

// Another container starts on a volume while the restore prepares its swap. The
// restore rolls back.
func TestAContainerStartedBeforeTheSwapRollsBack(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2, appLines(image(t))...)
	w.fill("new")
	w.deploy()
	sid := w.capture()
	w.fill("old")
	states := map[string][][]string{"old": w.trees()}
	for _, point := range []string{"stage", "publish"} {
		e := w.engine()
		remove := func() {}
		e.reached = func(p string) {
			if p == point {
				remove = w.stranger(w.volumes[1], true)
			}
		}
		_, err := e.Restore(t.Context(), w.request(sid))
		remove()
		if fault.KindOf(err) != fault.RolledBack || codeOf(err) != "in_use" {
			t.Errorf("at %q: the restore returned %v, expected a roll-back", point, err)
		}
		w.generation(states)
		w.appRuns()
		w.clean()
	}
}

// An orphan lies beside a live directory: a wrapper that belongs to no known
// transaction. Captures and restores refuse to start.
func TestAnOrphanFreezesEveryOperation(t *testing.T) {
	w := newWorld(t, disktest.Mount(t, "ext4", 256), 1)
	w.fill("data")
	sid := w.capture()
	w.must(os.Mkdir(filepath.Join(w.dir, "live", journal.Wrapper("20000101T000000Z-abcdef")), 0o700))
	_, captureErr := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.None})
	_, restoreErr := w.restore(sid)
	for _, err := range []error{captureErr, restoreErr} {
		if fault.KindOf(err) != fault.Frozen || codeOf(err) != "stray_wrapper" {
			t.Errorf("the operation returned %v, expected a refusal for the orphan", err)
		}
	}
}

// The filesystem above the live directories is not mounted, and the restore was
// killed before its ready record. Recovery freezes rather than clean up there.
func TestAnUnmountedParentFreezesEvenBeforeReady(t *testing.T) {
	w := newWorld(t, disktest.Mount(t, "ext4", 256), 2)
	w.fill("data")
	sid := w.capture()
	whole, _ := w.run("restore", sid, 0)
	w.killAt("restore", sid, "stage", whole)
	aside := filepath.Join(w.dir, "aside")
	w.must(os.Rename(filepath.Join(w.dir, "live"), aside)) // as if it were not mounted
	w.must(os.Mkdir(filepath.Join(w.dir, "live"), 0o755))
	list, err := w.engine().Recover(t.Context(), RecoverRequest{})
	if fault.KindOf(err) != fault.Frozen || len(list) != 1 || list[0].Action != FrozenTx {
		t.Errorf("recover returned %+v, %v; expected frozen", list, err)
	}
	w.must(os.Remove(filepath.Join(w.dir, "live")))
	w.must(os.Rename(aside, filepath.Join(w.dir, "live")))
	w.recoverTwice()
}
