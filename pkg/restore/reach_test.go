package restore

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// uploader is a process with its working directory in a volume, as an SFTP server has
// it: it writes files by names that lead from there.
type uploader struct {
	*testing.T
	in    io.WriteCloser
	out   *bufio.Reader
	cmd   *exec.Cmd
	acked []string
}

func upload(t *testing.T, dir string) *uploader {
	t.Helper()
	u := &uploader{T: t, cmd: exec.Command("sh", "-c", `cd "$1"; echo ready; while read name; do echo "$name" > "$name" && echo "$name" || echo "not written: $name"; done`, "sh", dir)}
	var err error
	if u.in, err = u.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := u.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	u.out = bufio.NewReader(out)
	if err := u.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.stop)
	if line, err := u.out.ReadString('\n'); line != "ready\n" {
		t.Fatalf("the uploader says %q, %v", line, err)
	}
	return u
}

// write uploads one file, and returns when that is acknowledged.
func (u *uploader) write(name string) {
	u.Helper()
	if _, err := fmt.Fprintln(u.in, name); err != nil {
		u.Fatal(err)
	}
	if line, err := u.out.ReadString('\n'); line != name+"\n" {
		u.Fatalf("uploading %s: %q, %v", name, line, err)
	}
	u.acked = append(u.acked, name)
}

func (u *uploader) stop() {
	u.in.Close()
	_ = u.cmd.Wait()
}

// exist fails the test unless each file is live or in a snapshot.
func (w *world) exist(names []string) {
	w.Helper()
	found := map[string]bool{}
	for _, m := range w.snapshots() {
		for _, name := range w.files(m.SID, "v0") {
			found[name] = true
		}
	}
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(w.volumes[0], name)); err != nil && !found[name] {
			w.Errorf("%s was acknowledged, and is neither live nor in a snapshot", name)
		}
	}
}

// files are the names in a volume of a snapshot.
func (w *world) files(sid, volume string) (names []string) {
	w.Helper()
	from, into := io.Pipe()
	go func() {
		_, err := w.engine().Export(w.Context(), w.name, sid, volume, "gzip", into)
		into.CloseWithError(err)
	}()
	plain, err := gzip.NewReader(from)
	w.must(err)
	tr := tar.NewReader(plain)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		w.must(err)
		names = append(names, strings.TrimPrefix(h.Name, "./"))
	}
}

// A process comes to hold the volume after the last look at who does, and uploads at
// each later point of the restore. The old tree stays while it is there; then it
// becomes a snapshot, and each file that was acknowledged exists.
func TestAnUploadThroughARestoreIsNotLost(t *testing.T) {
	for _, guard := range []string{workload.GuardBefore, workload.GuardAfter} {
		for _, ends := range []string{"", "before settle"} {
			t.Run(guard+" "+ends, func(t *testing.T) {
				disktest.EachFS(t, func(t *testing.T, dir string) {
					w := newWorld(t, dir, 2)
					w.fill("new")
					states := map[string][][]string{"new": w.trees()}
					sid := w.capture()
					w.fill("old")
					var u *uploader
					e := w.engine()
					e.reached = func(point string) {
						if point == "before swap" {
							u = upload(t, w.volumes[0])
						}
						if u == nil {
							return
						}
						if point == ends || guard == workload.GuardAfter && ends != "" && point == "guarding" {
							u.stop() // and what it wrote must be found
							ends = ""
						}
						if u.cmd.ProcessState == nil {
							u.write("upload-" + strings.ReplaceAll(point, " ", "-"))
						}
					}
					req := w.request(sid)
					req.Guard = guard
					r, err := e.Restore(t.Context(), req)
					if u.cmd.ProcessState == nil {
						code := map[string]string{workload.GuardBefore: "held", workload.GuardAfter: "guarding"}[guard]
						if fault.KindOf(err) != fault.Pending || codeOf(err) != code || !strings.Contains(err.Error(), fmt.Sprintf("process %d (sh)", u.cmd.Process.Pid)) ||
							!strings.Contains(hintOf(err), fmt.Sprintf("kill %d", u.cmd.Process.Pid)) || !strings.Contains(hintOf(err), "snap recover") {
							t.Errorf("the restore returned %v, hint %q", err, hintOf(err))
						}
						for range 2 { // nothing goes while it is there
							_, err = w.engine().Recover(t.Context(), RecoverRequest{})
							if fault.KindOf(err) != fault.Pending || codeOf(err) != code {
								t.Errorf("recover returned %v", err)
							}
							u.write(fmt.Sprintf("upload-%d", len(u.acked)))
						}
						u.stop()
						w.recoverTwice()
					} else {
						w.must(err)
						if guard == workload.GuardBefore && !slices.ContainsFunc(r.Warnings, func(s string) bool { return strings.Contains(s, "becomes snapshot") }) {
							t.Errorf("the warnings are %q", r.Warnings)
						}
					}
					w.generation(states)
					w.clean()
					if len(u.acked) < 3 {
						t.Errorf("only %q were uploaded", u.acked)
					}
					w.exist(u.acked)
				})
			})
		}
	}
}

// Whatever changes in a displaced tree after its snapshot is in a snapshot of its own:
// each kind of change, and none where nothing has changed.
func TestWhatChangesInADisplacedTreeBecomesASnapshot(t *testing.T) {
	for name, change := range map[string]func(tree string) error{
		"nothing":      func(string) error { return nil },
		"a new file":   func(tree string) error { return os.WriteFile(tree+"/later", []byte("x"), 0o600) },
		"other words":  func(tree string) error { return os.WriteFile(tree+"/generation", []byte("odd"), 0o600) },
		"a removal":    func(tree string) error { return os.Remove(tree + "/generation") },
		"another name": func(tree string) error { return os.Rename(tree+"/generation", tree+"/dir/generation") },
		"another mode": func(tree string) error { return os.Chmod(tree+"/dir", 0o700) },
		"a pipe":       func(tree string) error { return unix.Mkfifo(tree+"/pipe", 0o600) },
		"a write in place": func(tree string) error {
			f, err := os.OpenFile(tree+"/large", os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("?"), 1000)
			return errors.Join(err, f.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, disktest.Mount(t, "ext4", 256), 2)
			w.fill("new")
			sid := w.capture()
			w.fill("old")
			e := w.engine()
			var want []string
			e.reached = func(point string) {
				if point == "before settle" {
					w.must(change(w.displaced()[1]))
					want = disktest.Tree(t, w.displaced()[1])
				}
			}
			r, err := e.Restore(t.Context(), w.request(sid))
			w.must(err)
			w.clean()
			list := w.snapshots()
			switch name {
			case "nothing":
				if len(list) != 2 || len(r.Warnings) != 0 {
					t.Errorf("%d snapshots, warnings %q", len(list), r.Warnings)
				}
				return
			case "a pipe":
				kept, err := filepath.Glob(w.volumes[1] + ".snap-kept-*")
				if err != nil || len(kept) != 1 || len(r.Warnings) != 1 {
					t.Fatalf("kept %q, %v; warnings %q", kept, err, r.Warnings)
				}
				disktest.Same(t, "what is kept", want[1:], disktest.Tree(t, kept[0])[1:])
				return
			}
			if len(list) != 3 || !strings.Contains(list[0].Note+list[1].Note, "written to the old data after snapshot "+r.PreRestoreSID) {
				t.Fatalf("%d snapshots: %q, %q", len(list), list[0].Note, list[1].Note)
			}
			later := list[slices.IndexFunc(list, func(m *store.Manifest) bool { return strings.HasPrefix(m.Note, "written to") })]
			if later.Reason != "pre-restore" || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], later.SID) {
				t.Errorf("the snapshot is %s, warnings %q", later.Reason, r.Warnings)
			}
			_, err = w.restore(later.SID)
			w.must(err)
			disktest.Same(t, "what was changed", want[1:], disktest.Tree(t, w.volumes[1])[1:])
		})
	}
}

// The clean-up of a displaced tree that was written to is killed at each of its points.
// The next recovery makes one snapshot of it, or finds the one that is there.
func TestASnapshotOfWhatChangedIsMadeOnce(t *testing.T) {
	w := newWorld(t, disktest.Mount(t, "ext4", 256), 2)
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	sid := w.capture()
	for at, killed := 1, true; killed; at++ {
		w.fill("old")
		before := len(w.snapshots())
		if points, killed := w.run("restore", sid, 0, "SNAP_TEST_POINT=before settle"); !killed {
			t.Fatalf("not killed: %q", points)
		}
		w.must(os.WriteFile(w.displaced()[0]+"/late", []byte(fmt.Sprint(at)), 0o600))
		var points []string
		points, killed = w.run("recover", "", at)
		if killed {
			w.recoverTwice()
		}
		if got := w.snapshots(); len(got) != before+2 {
			t.Errorf("killed after %q: %d snapshots more, expected two", points, len(got)-before)
		}
		w.exist([]string{"late"})
		w.generation(states)
		w.clean()
	}
}

// After the snapshot of what changed exists, the tree changes once more before it is
// deleted. It is preserved.
func TestATreeThatChangesAfterItsSnapshotIsPreserved(t *testing.T) {
	w := newWorld(t, disktest.Mount(t, "ext4", 256), 1)
	w.fill("new")
	sid := w.capture()
	w.fill("old")
	if points, killed := w.run("restore", sid, 0, "SNAP_TEST_POINT=before settle"); !killed {
		t.Fatalf("not killed: %q", points)
	}
	w.must(os.WriteFile(w.displaced()[0]+"/late", []byte("1"), 0o600))
	if points, killed := w.run("recover", "", 0, "SNAP_TEST_POINT=kept"); !killed {
		t.Fatalf("not killed: %q", points)
	}
	w.must(os.WriteFile(w.displaced()[0]+"/later", []byte("2"), 0o600))
	list, err := w.engine().Recover(t.Context(), RecoverRequest{})
	w.must(err)
	if len(list) != 1 || len(list[0].Kept) != 1 {
		t.Fatalf("recover found %+v", list)
	}
	for _, name := range []string{"late", "later", "generation"} {
		if _, err := os.Stat(filepath.Join(list[0].Kept[0], name)); err != nil {
			t.Error(err)
		}
	}
	w.exist([]string{"late"})
	w.clean()
}

// A process of the host, a mount, and what else holds a volume is refused before
// anything is touched, named, with what to do about it.
func TestWhoeverHoldsAVolumeIsNamedAtThePreflight(t *testing.T) {
	for name, c := range map[string]struct {
		hold  func(t *testing.T, w *world)
		names []string // parts of the message and of the hint
	}{
		"a working directory": {func(t *testing.T, w *world) { upload(t, w.volumes[0]+"/dir") }, []string{"(sh) has", "v0/dir\" as its working directory", "kill "}},
		"a mount of the host": {func(t *testing.T, w *world) {
			point := t.TempDir()
			disktest.Bind(t, w.volumes[1], point)
		}, []string{"it is mounted at", "umount '"}},
		"a mount of something inside": {func(t *testing.T, w *world) {
			point := t.TempDir()
			disktest.Bind(t, w.volumes[1]+"/dir", point)
		}, []string{"it is mounted at", "umount '"}},
		"another mount namespace": {func(t *testing.T, w *world) {
			cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", `mount --bind "$1" "$2" && echo ready && read x`, "sh", w.volumes[0], t.TempDir())
			in, err := cmd.StdinPipe()
			w.must(err)
			out, err := cmd.StdoutPipe()
			w.must(err)
			w.must(cmd.Start())
			t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
			if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
				t.Fatal(line, err)
			}
		}, []string{"the mount namespace of process", "has it mounted at", "lsns -t mnt; kill"}},
		"many": {func(t *testing.T, w *world) {
			for range 8 {
				upload(t, w.volumes[0])
			}
		}, []string{"; 3 others"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, t.TempDir(), 2)
			w.fill("new")
			sid := w.capture()
			before := w.trees()
			c.hold(t, w)
			_, err := w.engine().Restore(t.Context(), w.request(sid))
			if fault.KindOf(err) != fault.Refused || codeOf(err) != "in_use" {
				t.Errorf("the restore returned %v", err)
			}
			for _, part := range c.names {
				if !strings.Contains(fmt.Sprint(err)+hintOf(err), part) {
					t.Errorf("%v, hint %q: nothing says %q", err, hintOf(err), part)
				}
			}
			for i := range before {
				disktest.Same(t, "the live data", before[i], w.trees()[i])
			}
			w.clean()
		})
	}
}

// The app's own containers hold their volumes while they run: a working directory, an
// open file, and the mount itself are no reason to refuse a restore.
func TestTheAppsOwnContainersMayHoldTheirVolumes(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1, appLines(image(t), "working_dir: /data")...)
	w.fill("new")
	w.deploy()
	sid := w.capture()
	p, err := w.engine().Plan(t.Context(), w.request(sid))
	w.must(err)
	if len(p.Warnings) != 0 {
		t.Errorf("the plan warns: %q", p.Warnings)
	}
	_, err = w.restore(sid)
	w.must(err)
	w.appRuns()
}

// A capture puts only the workload's own containers to rest. One of somebody else that
// runs on the volume goes on writing, so the capture is refused unless nothing is to
// rest.
func TestACaptureRefusesAForeignContainerThatWouldNotRest(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2, appLines(image(t))...)
	w.fill("old")
	w.deploy()
	check := func(t *testing.T, whose string) {
		t.Helper()
		for _, mode := range []string{runtime.Pause, runtime.Stop, runtime.None} {
			r, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: mode})
			switch {
			case mode == runtime.None && (err != nil || len(r.Warnings) == 0 || !strings.Contains(r.Warnings[0], whose)):
				t.Errorf("%s: %+v, %v", mode, r, err)
			case mode == runtime.None:
			case fault.KindOf(err) != fault.Refused || codeOf(err) != "in_use" || !strings.Contains(err.Error(), whose) || !strings.Contains(hintOf(err), "also_stop") || !strings.Contains(hintOf(err), "--quiesce none"):
				t.Errorf("%s: %v, hint %q", mode, err, hintOf(err))
			}
		}
		w.clean()
	}
	t.Run("on the volume", func(t *testing.T) {
		defer w.stranger(w.volumes[0], true)()
		check(t, w.name+"-stranger")
	})
	t.Run("on something inside it", func(t *testing.T) {
		defer w.stranger(w.volumes[0]+"/dir", true)()
		check(t, w.name+"-stranger")
	})
	t.Run("above it", func(t *testing.T) {
		defer w.stranger(filepath.Dir(w.volumes[0]), true)()
		r, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.Pause})
		if err != nil || len(r.Warnings) != 2 {
			t.Errorf("%+v, %v", r, err)
		}
	})
	// A reader does not change the data. But on the volume itself it would go on reading
	// the old tree.
	for dir, stays := range map[string]bool{w.volumes[0]: true, filepath.Dir(w.volumes[0]): false} {
		t.Run("reading "+filepath.Base(dir), func(t *testing.T) {
			defer w.stranger(dir, true, ":ro")()
			r, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.Pause})
			if err != nil || len(r.Warnings) != 0 {
				t.Fatalf("%+v, %v", r, err)
			}
			p, err := w.engine().Plan(t.Context(), w.request(r.Manifest.SID))
			if stays && (codeOf(err) != "in_use" || !strings.Contains(err.Error(), "reading the old data")) || !stays && (err != nil || len(p.Warnings) != 0) {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
	t.Run("stopped", func(t *testing.T) {
		defer w.stranger(w.volumes[0], false)()
		r, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.Pause})
		if err != nil || len(r.Warnings) != 0 {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("of a workload of data", func(t *testing.T) { // whose containers the config does not know
		lines := []string{"volumes:"}
		for _, line := range strings.Split(w.read(w.config), "\n") {
			if strings.Contains(line, "{name: v") {
				lines = append(lines, "  "+strings.TrimSpace(line))
			}
		}
		w.write(map[string][]string{w.name: lines})
		check(t, w.name)
	})
}

func (w *world) read(path string) string {
	w.Helper()
	data, err := os.ReadFile(path)
	w.must(err)
	return string(data)
}

// What the config and the host alone make a restore refuse, a capture refuses too. A
// flag on a file deep in the data is not among it: the snapshot can be restored as soon
// as the flag is gone.
func TestACaptureRefusesWhatARestoreWouldRefuse(t *testing.T) {
	known := []string{
		"a mount inside a volume", "a volume on tmpfs", "a symlink in the path", "an immutable directory",
		"a fifo in the live data", "another container on a live directory", "another container inside a live directory",
	}
	w := newWorld(t, t.TempDir(), 2, appLines(image(t))...)
	w.fill("old")
	w.deploy()
	sid := w.capture()
	for _, r := range refusals() {
		if !slices.Contains(known, r.name) {
			continue
		}
		known = slices.DeleteFunc(known, func(name string) bool { return name == r.name })
		t.Run(r.name, func(t *testing.T) {
			undo := r.spoil(w, sid)
			_, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.Pause})
			undo()
			if fault.KindOf(err) != fault.Refused || codeOf(err) != r.code || hintOf(err) == "" {
				t.Errorf("the capture returned %q (%v), hint %q; expected refusal %q", codeOf(err), err, hintOf(err), r.code)
			}
			w.clean()
		})
	}
	if len(known) > 0 {
		t.Errorf("nothing tried %q", known)
	}
}

// A volume that is a mount point can be captured and exported. A restore refuses it and
// says what to change: its own disk, a bind mount of another directory, a subvolume.
func TestAVolumeThatIsAMountPointIsCapturedAndExported(t *testing.T) {
	for name, c := range map[string]struct {
		mount func(t *testing.T, w *world) (hint string)
	}{
		"a disk of its own": {func(t *testing.T, w *world) string {
			disktest.Bind(t, disktest.Mount(t, "ext4", 16), w.volumes[0])
			return "mount /dev/loop"
		}},
		"another directory": {func(t *testing.T, w *world) string {
			real := filepath.Join(w.dir, "real/data")
			w.must(os.MkdirAll(real, 0o755))
			disktest.Bind(t, real, w.volumes[0])
			return "name the directory itself in the config, and where containers mount it: '" + real + "'"
		}},
		"a subvolume": {func(t *testing.T, w *world) string {
			top := disktest.Mount(t, "btrfs", 256)
			disktest.Run(t, "btrfs", "subvolume", "create", top+"/@data")
			device := strings.TrimSpace(disktest.Run(t, "findmnt", "-no", "SOURCE", top))
			disktest.MountAt(t, w.volumes[0], "-o", "subvol=@data", device)
			return "name the directory itself in the config, and where containers mount it: '" + top + "/@data'"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "a subvolume" {
				disktest.Need(t, "btrfs")
			}
			w := newWorld(t, t.TempDir(), 2)
			hint := c.mount(t, w)
			w.fill("old")
			r, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.Pause})
			w.must(err)
			if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "is a mount point") || !strings.Contains(r.Warnings[0], hint) {
				t.Errorf("the warnings are %q", r.Warnings)
			}
			if !slices.Contains(w.files(r.Manifest.SID, "v0"), "generation") {
				t.Error("the export lacks a file")
			}
			_, err = w.restore(r.Manifest.SID)
			beside := "snap restore " + w.name + " " + r.Manifest.SID + " --to DIR"
			if fault.KindOf(err) != fault.Refused || codeOf(err) != "mount_point" || !strings.Contains(hintOf(err), hint) || !strings.HasSuffix(hintOf(err), beside) {
				t.Errorf("the restore returned %v, hint %q", err, hintOf(err))
			}
			_, err = w.beside(r.Manifest.SID, "beside")
			w.must(err)
			disktest.Same(t, "beside the live data", disktest.Tree(t, w.volumes[0]), disktest.Tree(t, filepath.Join(w.dir, "beside/v0")))
			w.clean()
		})
	}
}

// A container mounts the volume under another path than the config has: by a symbolic
// link, or by a bind mount of the host. That is no change of the config.
func TestAContainerThatMountsTheVolumeByAnotherPathIsSeen(t *testing.T) {
	for name, other := range map[string]func(w *world) string{
		"a symbolic link on the way": func(w *world) string {
			w.must(os.Symlink(filepath.Join(w.dir, "live"), filepath.Join(w.dir, "link")))
			return filepath.Join(w.dir, "link/v0")
		},
		"a bind mount of the host": func(w *world) string {
			point := w.TempDir()
			disktest.Bind(w.T, filepath.Join(w.dir, "live"), point)
			return point + "/v0"
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, t.TempDir(), 1, appLines(image(t))...)
			w.fill("old")
			path := other(w)
			config := w.read(w.config)
			w.must(os.WriteFile(w.config, []byte(strings.NewReplacer(w.volumes[0], path, "["+w.dir+"/live]", "["+w.dir+"/live, "+filepath.Dir(path)+"]").Replace(config)), 0o600))
			w.deploy()
			w.must(os.WriteFile(w.config, []byte(config), 0o600))
			sid := w.capture()
			p, err := w.engine().Plan(t.Context(), w.request(sid))
			if p != nil && slices.ContainsFunc(p.Warnings, func(s string) bool { return strings.Contains(s, "no container mounts") }) {
				t.Errorf("the plan warns %q, %v", p.Warnings, err)
			}
			if p == nil || len(p.Containers) != 1 || !p.Running {
				t.Fatalf("%+v, %v", p, err)
			}
		})
	}
}

// A full filesystem is named, with what is free and what is missing: that of the live
// data, and that of the store.
func TestAnErrorForWantOfRoomNamesTheFilesystem(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, dir, 1)
	w.must(os.Mkdir(filepath.Join(dir, "store"), 0o700))
	disktest.Bind(t, disktest.Mount(t, "ext4", 16), filepath.Join(dir, "store"))
	w.fill("old")
	disktest.Run(t, "dd", "if=/dev/urandom", "of="+w.volumes[0]+"/random", "bs=1M", "count=40")
	_, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.Pause})
	for _, part := range []string{"the filesystem of " + filepath.Join(dir, "store") + " has ", " bytes free", " are missing"} {
		if codeOf(err) != "no_space" || !strings.Contains(err.Error(), part) {
			t.Errorf("the capture returned %v, which does not say %q", err, part)
		}
	}
	if hint := hintOf(err); !strings.Contains(hint, " bytes on the filesystem of "+filepath.Join(dir, "store")) {
		t.Errorf("the hint is %q", hint)
	}
	w.clean()

	w = newWorld(t, t.TempDir(), 1)
	w.must(os.MkdirAll(filepath.Join(w.dir, "live"), 0o755))
	disktest.Bind(t, disktest.Mount(t, "ext4", 16), filepath.Join(w.dir, "live"))
	w.must(os.Mkdir(w.volumes[0], 0o755))
	disktest.Run(t, "dd", "if=/dev/urandom", "of="+w.volumes[0]+"/random", "bs=1M", "count=8")
	sid := w.capture()
	_, err = w.restore(sid)
	if codeOf(err) != "no_space" || fault.KindOf(err) != fault.Refused || !strings.Contains(err.Error(), "the filesystem of "+filepath.Join(w.dir, "live")+" has") || !strings.Contains(err.Error(), " are missing") {
		t.Errorf("the restore returned %v", err)
	}
}

// Two configs of one host keep their records in the same state. The status of one does
// not speak of what was interrupted in the other.
func TestTheStatusSpeaksOfItsOwnConfig(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1)
	w.fill("new")
	sid := w.capture()
	w.fill("old")
	if _, killed := w.run("restore", sid, 0, "SNAP_TEST_POINT=before swap"); !killed {
		t.Fatal("not killed")
	}
	own := w.read(w.config)
	for name, c := range map[string]struct {
		config string
		want   int
	}{
		"its own":              {own, 1},
		"another":              {strings.NewReplacer(w.name+":", "other:", w.dir+"/live", w.dir+"/elsewhere", "base: "+w.dir, "base: "+w.dir+"/base").Replace(own), 1},
		"without the workload": {strings.NewReplacer(w.name+":", "other:", "v0, target", "w0, target").Replace(own), 2},
	} {
		at := w.config
		if name == "another" {
			at = filepath.Join(w.dir, "another.yaml")
		}
		w.must(os.WriteFile(at, []byte(c.config), 0o600))
		e, done, err := openEngine(at)
		w.must(err)
		list, err := e.Status(t.Context(), "")
		done()
		w.must(err)
		if len(list) != c.want {
			t.Errorf("%s: %+v", name, list)
		}
		if name == "another" && (list[0].Pending != nil || len(list[0].Problems) != 0) {
			t.Errorf("%s: %+v", name, list[0])
		}
	}
	w.must(os.WriteFile(w.config, []byte(own), 0o600))
	w.recoverTwice()
}
