package catalog

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// world is a store with one snapshot of workload app, in a directory of its own.
type world struct {
	*testing.T
	dir      string
	store    *store.Store
	manifest *store.Manifest
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) at(name string) string { return filepath.Join(w.dir, name) }

func (w *world) open(path string) *disk.Dir {
	w.Helper()
	d, err := disk.OpenRoot(path)
	w.must(err)
	w.Cleanup(func() { d.Close() })
	return d
}

// newWorld makes a store in dir, and a snapshot of volumes whose live directories are
// live/0, live/1, …, which fill fills.
func newWorld(t *testing.T, dir string, volumes []string, fill func(i int, live string)) *world {
	t.Helper()
	disktest.NeedRoot(t)
	w := &world{T: t, dir: dir}
	w.must(os.Chmod(dir, 0o755))
	w.openStore()
	var sources []snapshot.Source
	for i, name := range volumes {
		live := w.at(fmt.Sprintf("live/%d", i))
		w.must(os.MkdirAll(live, 0o755))
		fill(i, live)
		v := &workload.Volume{Name: name, Scope: workload.Absolute, Source: live, Special: workload.KeepSpecial, Setuid: workload.KeepSetuid}
		sources = append(sources, snapshot.Source{Volume: v, Live: w.open(live)})
	}
	scratch, err := w.store.Scratch(disk.NewID(time.Now()))
	w.must(err)
	capture, err := snapshot.Start(t.Context(), w.store, scratch, sources, snapshot.Options{Workload: "app"})
	w.must(err)
	defer capture.Close()
	w.must(capture.PassTwo(t.Context()))
	m := &store.Manifest{SID: disk.NewID(time.Now()), Reason: store.Manual, Quiesce: "none", Images: []store.Image{}}
	w.must(capture.Publish(m))
	w.load(m.SID)
	return w
}

func (w *world) openStore() {
	w.Helper()
	st, err := store.Open(w.at("store"))
	w.must(err)
	w.Cleanup(func() { st.Close() })
	w.store = st
}

func (w *world) load(sid string) {
	w.Helper()
	m, err := Load(w.store, fault.Failed, "app", sid)
	w.must(err)
	w.manifest = m
}

// live are the files of the usual volumes.
func usual(t *testing.T) func(i int, live string) {
	return func(i int, live string) {
		disktest.Write(t, live, map[string]string{"file": fmt.Sprint("content ", i), "dir/deep/x": "x", "large": strings.Repeat(fmt.Sprint(i), 3<<20), "empty/": ""})
	}
}

func (w *world) extraction(to string, chosen ...string) *Extraction {
	x := &Extraction{
		Store: w.store, Manifest: w.manifest, Dir: to, Chosen: chosen,
		Options: func(*store.Volume) archive.ExtractOptions {
			return archive.ExtractOptions{KeepPrivileges: true, Special: archive.KeepSpecial}
		},
		Guarded:  &Guarded{Config: &workload.Config{Store: w.at("store"), State: w.at("state")}},
		Progress: func(string, int64, int64) {}, Line: func(string) {},
	}
	for i := range w.manifest.Volumes {
		x.Guarded.Volumes = append(x.Guarded.Volumes, Live{"app", w.manifest.Volumes[i].Name, w.at(fmt.Sprintf("live/%d", i))})
	}
	return x
}

// refused fails the test unless err has the kind and the code.
func (w *world) refused(what string, err error, kind fault.Kind, code string) {
	w.Helper()
	var e *fault.Error
	if !errors.As(err, &e) || e.Kind != kind || e.Code != code || e.Remedy.Empty() {
		w.Errorf("%s: %+v, expected kind %d, code %s and a remedy", what, err, kind, code)
	}
}

func (w *world) absent(path string) {
	w.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		w.Errorf("%s is there: %v", path, err)
	}
}

// What --to makes of a whole snapshot is what the live directory was, and what tar makes of
// an export, on every filesystem.
func TestAWholeSnapshotIsWhatTarMakesOfItsExport(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, []string{"rich", "/srv/two", "empty"}, func(i int, live string) {
			switch i {
			case 0:
				disktest.Rich(t, live)
				w := filepath.Join(live, "pipe")
				if err := unix.Mkfifo(w, 0o640); err != nil {
					t.Fatal(err)
				}
			case 1:
				disktest.Write(t, live, map[string]string{"a/b": "c"})
			}
		})
		x, err := Extract(t.Context(), w.extraction(w.at("out")))
		w.must(err)
		for i, rel := range []string{"rich", "srv/two", "empty"} {
			out := w.at("out/" + rel)
			if x.Volumes[i].Path != out || x.Volumes[i].Stats != w.manifest.Volumes[i].Stats {
				t.Errorf("the result says %+v", x.Volumes[i])
			}
			disktest.Same(t, rel, disktest.Tree(t, w.at(fmt.Sprintf("live/%d", i))), disktest.Tree(t, out))
			var tar bytes.Buffer
			_, err := Export(t.Context(), w.store, w.manifest, w.manifest.Volumes[i].Name, "gzip", &tar)
			w.must(err)
			byTar := w.at(fmt.Sprintf("tar%d", i))
			w.must(os.Mkdir(byTar, 0o755))
			cmd := exec.Command("tar", "-xzpf", "-", "--same-owner", "--numeric-owner", "--xattrs", "--xattrs-include=user.*", "--xattrs-include=system.posix_acl_*", "-C", byTar)
			cmd.Stdin = &tar
			if text, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			disktest.Same(t, rel+" and tar", disktest.Tree(t, byTar), disktest.Tree(t, out))
		}
		names, err := os.ReadDir(w.at("out"))
		w.must(err)
		if len(names) != 3 {
			t.Errorf("beside the volumes there is something else: %v", names)
		}
	})
}

// points are where an extraction of two volumes can end.
var points = []string{
	"made", "extracting one", "extracted one", "extracting two", "extracted two", "filled", "placed one", "placed two", "finished",
}

// TestMain is also the process that TestAKillLeavesADirectoryThatSaysSo kills.
func TestMain(m *testing.M) {
	if point := os.Getenv("SNAP_TEST_KILL_AT"); point != "" {
		killed(point)
	}
	os.Exit(m.Run())
}

func killed(point string) {
	st, err := store.Open(os.Getenv("SNAP_TEST_DIR") + "/store")
	if err != nil {
		panic(err)
	}
	m, err := Load(st, fault.Failed, "app", os.Getenv("SNAP_TEST_SID"))
	if err != nil {
		panic(err)
	}
	w := &world{dir: os.Getenv("SNAP_TEST_DIR"), store: st, manifest: m}
	x := w.extraction(w.at("out"))
	x.reached = func(p string) {
		if p == point {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	_, err = Extract(context.Background(), x)
	panic(err) // it should have been killed
}

// Killed anywhere, an extraction leaves a directory that says that it is not finished, unless
// it is whole. The next one says what to do; then it works. Nothing else has changed.
func TestAKillLeavesADirectoryThatSaysSo(t *testing.T) {
	w := newWorld(t, t.TempDir(), []string{"one", "two"}, usual(t))
	want := []([]string){disktest.Tree(t, w.at("live/0")), disktest.Tree(t, w.at("live/1"))}
	whole := func(where string) {
		t.Helper()
		for i, name := range []string{"one", "two"} {
			disktest.Same(t, where, want[i], disktest.Tree(t, w.at("out/"+name)))
		}
	}
	before := func() []string {
		all := append(disktest.Tree(t, w.at("store")), disktest.Tree(t, w.at("live"))...)
		slices.Sort(all)
		return all
	}
	outside := before()
	for _, point := range points {
		for _, existed := range []bool{false, true} {
			where := fmt.Sprintf("killed at %q, existed %v", point, existed)
			if existed {
				w.must(os.Mkdir(w.at("out"), 0o755))
				w.must(os.Chown(w.at("out"), 1000, 1000))
			}
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "SNAP_TEST_KILL_AT="+point, "SNAP_TEST_DIR="+w.dir, "SNAP_TEST_SID="+w.manifest.SID)
			out, err := cmd.CombinedOutput()
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
				t.Fatalf("%s: it ended with %v: %s", where, err, out)
			}
			var st unix.Stat_t
			w.must(unix.Stat(w.at("out"), &st))
			if st.Mode&0o7777 != 0o700 || st.Uid != 0 {
				t.Errorf("%s: the directory has mode %o and owner %d", where, st.Mode, st.Uid)
			}
			_, err = Extract(t.Context(), w.extraction(w.at("out")))
			if point == "finished" {
				w.refused(where, err, fault.Refused, "target_not_empty")
				whole(where)
			} else {
				w.refused(where, err, fault.Refused, "target_unfinished")
			}
			w.must(os.RemoveAll(w.at("out")))
			_, err = Extract(t.Context(), w.extraction(w.at("out")))
			w.must(err)
			whole(where)
			w.must(os.RemoveAll(w.at("out")))
			if d := disktest.Diff(outside, before()); d != "" {
				t.Errorf("%s: something else has changed:\n%s", where, d)
			}
		}
	}
}

// After an error anywhere, the directory is as it was before.
func TestAnErrorLeavesTheDirectoryAsItWas(t *testing.T) {
	w := newWorld(t, t.TempDir(), []string{"one", "two"}, usual(t))
	for _, point := range points[:7] { // then there is nothing left that could fail
		for _, existed := range []bool{false, true} {
			where := fmt.Sprintf("ended at %q, existed %v", point, existed)
			if existed {
				w.must(os.Mkdir(w.at("out"), 0o755))
				w.must(os.Chown(w.at("out"), 1000, 1001))
				w.must(unix.Chmod(w.at("out"), 0o2751))
			}
			ctx, end := context.WithCancelCause(t.Context())
			x := w.extraction(w.at("out"))
			x.reached = func(p string) {
				switch {
				case p != point:
				case p == "placed one": // root puts something there
					w.must(os.Mkdir(w.at("out/two"), 0o755))
				default:
					end(&fault.Signal{Name: "SIGINT", Code: 130})
				}
			}
			_, err := Extract(ctx, x)
			if point == "placed one" {
				if err == nil {
					t.Errorf("%s: no error", where)
				}
				w.must(os.Remove(w.at("out/two"))) // whose it is, snap cannot know
			} else if fault.KindOf(err) != fault.Interrupted {
				t.Errorf("%s: %v", where, err)
			}
			if !existed && point == "placed one" {
				w.must(os.Remove(w.at("out"))) // which somebody had filled
			}
			if !existed {
				w.absent(w.at("out"))
				continue
			}
			var st unix.Stat_t
			w.must(unix.Stat(w.at("out"), &st))
			if st.Mode&0o7777 != 0o2751 || st.Uid != 1000 || st.Gid != 1001 {
				t.Errorf("%s: the directory has mode %o and owner %d:%d", where, st.Mode, st.Uid, st.Gid)
			}
			w.must(os.Remove(w.at("out"))) // empty
		}
	}
}

// Whoever can rename the directory, or one above it, has nothing written elsewhere, and no
// success is reported.
func TestADirectoryThatIsMovedMeanwhileGetsNothingElsewhere(t *testing.T) {
	for _, point := range points[:6] {
		w := newWorld(t, t.TempDir(), []string{"one", "two"}, usual(t))
		w.must(os.MkdirAll(w.at("theirs/sub"), 0o755))
		w.must(os.Mkdir(w.at("victim"), 0o755))
		w.must(os.Mkdir(w.at("victim/out"), 0o755))
		victim := disktest.Tree(t, w.at("victim"))
		x := w.extraction(w.at("theirs/sub/out"))
		x.reached = func(p string) {
			if p == point {
				w.must(os.Rename(w.at("theirs/sub"), w.at("theirs/moved")))
				w.must(os.Symlink(w.at("victim"), w.at("theirs/sub")))
				w.must(os.Lchown(w.at("theirs/sub"), 1000, 1000))
			}
		}
		_, err := Extract(t.Context(), x)
		w.refused("moved at "+point, err, fault.Failed, "target_moved")
		disktest.Same(t, "what the link leads to", victim, disktest.Tree(t, w.at("victim")))
		w.absent(w.at("theirs/moved/out"))
	}
}

// A directory that meets live data is refused however it is reached.
func TestTheLiveDataIsReachedByNoOtherName(t *testing.T) {
	w := newWorld(t, t.TempDir(), []string{"one"}, usual(t))
	live := w.at("live/0")
	w.must(os.Symlink(live, w.at("link")))
	w.must(os.Mkdir(w.at("state"), 0o700))
	for _, dir := range []string{"alias", "part", "above", "live/0/mnt"} {
		w.must(os.MkdirAll(w.at(dir), 0o755))
	}
	disktest.Bind(t, live, w.at("alias"))
	disktest.Bind(t, live+"/dir", w.at("part"))
	disktest.Bind(t, w.at("live"), w.at("above"))
	disktest.MountAt(t, live+"/mnt", "-t", "tmpfs", "tmpfs")
	disktest.Bind(t, live+"/mnt", w.at("live/0/dir/deep"))
	before := disktest.Tree(t, live)
	for _, to := range []string{
		"live/0", "live/0/new", "live/0/empty", "live/0/dir/deep/new", "link/new", "alias/new", "alias/dir/new", "alias", "part/new", "above/0/new", "live/0/mnt/new", "live", "store/new", "state/new",
	} {
		_, err := Extract(t.Context(), w.extraction(w.at(to)))
		w.refused(to, err, fault.Refused, "target_refused")
	}
	disktest.Same(t, "the live data", before, disktest.Tree(t, live))
	_, err := Extract(t.Context(), w.extraction(w.at("above/new"))) // beside it
	w.must(err)
}

// Two extractions into one directory: one makes it, and the other is told.
func TestTwoAtOnceDoNotMix(t *testing.T) {
	for _, point := range points[:7] {
		w := newWorld(t, t.TempDir(), []string{"one", "two"}, usual(t))
		x := w.extraction(w.at("out"))
		x.reached = func(p string) {
			if p == point {
				_, err := Extract(t.Context(), w.extraction(w.at("out")))
				w.refused("the second, at "+point, err, fault.Busy, "busy")
			}
		}
		_, err := Extract(t.Context(), x)
		w.must(err)
		disktest.Same(t, "the first", disktest.Tree(t, w.at("live/0")), disktest.Tree(t, w.at("out/one")))
	}
}

// What somebody else puts there after the first look is neither taken over nor removed.
func TestWhatAppearsMeanwhileIsLeftAlone(t *testing.T) {
	w := newWorld(t, t.TempDir(), []string{"one"}, usual(t))
	w.must(os.Mkdir(w.at("victim"), 0o755))
	for what, appears := range map[string]func(out string){
		"a file in it":    func(out string) { w.must(os.WriteFile(out+"/theirs", []byte("x"), 0o644)) },
		"a directory":     func(out string) { w.must(os.Mkdir(out, 0o755)) },
		"a symbolic link": func(out string) { w.must(os.Symlink(w.at("victim"), out)) },
		"a volume's name": func(out string) { w.must(os.Symlink(w.at("victim"), out+"/one")) },
	} {
		out := w.at("out")
		if strings.Contains(what, "file") || strings.Contains(what, "name") {
			w.must(os.Mkdir(out, 0o755))
		}
		x := w.extraction(out)
		var want []string
		x.reached = func(point string) {
			if point == "opened" {
				appears(out)
				want = disktest.Tree(t, w.dir)
			}
		}
		_, err := Extract(t.Context(), x)
		w.refused(what, err, fault.Busy, "busy")
		left := func(lines []string) []string { // its time has changed, as names came and went in it
			return slices.DeleteFunc(lines, func(line string) bool {
				return strings.HasPrefix(line, `"out" mode=40755`) || strings.HasPrefix(line, `"." `)
			})
		}
		disktest.Same(t, what, left(want), left(disktest.Tree(t, w.dir)))
		w.must(os.RemoveAll(out))
	}
}

// Without room it is refused before anything is made. Where the room goes meanwhile, the
// error says where and how much, and nothing is left.
func TestAFullDiskIsNamed(t *testing.T) {
	small := disktest.Mount(t, "ext4", 16)
	w := newWorld(t, t.TempDir(), []string{"one", "two"}, func(_ int, live string) {
		disktest.Write(t, live, map[string]string{"f": strings.Repeat("0123456789", 900_000)})
	})
	out := filepath.Join(small, "out")
	x := w.extraction(out)
	_, err := Extract(t.Context(), x)
	w.refused("too much", err, fault.Refused, "no_space")
	if err == nil || !strings.Contains(err.Error(), "are missing") || !strings.Contains(err.Error(), out) {
		t.Errorf("it does not say where and how much: %v", err)
	}
	if _, err := Plan(t.Context(), x); err == nil {
		t.Error("the plan finds room")
	}
	w.absent(out)

	x = w.extraction(out, "one")
	x.reached = func(point string) {
		if point == "extracting one" {
			ballast := exec.Command("sh", "-c", "cat /dev/zero >"+filepath.Join(small, "ballast"))
			_ = ballast.Run() // until the disk is full
		}
	}
	_, err = Extract(t.Context(), x)
	w.refused("filled meanwhile", err, fault.Failed, "no_space")
	w.absent(out)
}

// A disk that fails is no success.
func TestAFailingDiskIsNoSuccess(t *testing.T) {
	point, fail := disktest.FailingDisk(t)
	w := newWorld(t, t.TempDir(), []string{"one"}, usual(t))
	x := w.extraction(filepath.Join(point, "out"))
	x.reached = func(point string) {
		if point == "filled" {
			fail()
		}
	}
	if _, err := Extract(t.Context(), x); err == nil {
		t.Error("it reports success")
	}
}

// Fifos and devices follow the config, in a whole volume and in a part of one.
func TestSpecialFilesFollowTheConfig(t *testing.T) {
	w := newWorld(t, t.TempDir(), []string{"one"}, func(_ int, live string) {
		disktest.Write(t, live, map[string]string{"d/file": "f"})
		for name, dev := range map[string]int{"d/null": int(unix.Mkdev(1, 3)), "d/fifo": 0} {
			mode := uint32(unix.S_IFIFO)
			if dev != 0 {
				mode = unix.S_IFCHR
			}
			if err := unix.Mknod(filepath.Join(live, name), mode|0o640, dev); err != nil {
				t.Fatal(err)
			}
		}
	})
	for _, chosen := range [][]string{nil, {"one:d"}, {"one:d/null", "one:d/fifo"}} {
		run := func(to string, special archive.Special) (*Extracted, error) {
			x := w.extraction(w.at(to), chosen...)
			x.Options = func(*store.Volume) archive.ExtractOptions { return archive.ExtractOptions{Special: special} }
			return Extract(t.Context(), x)
		}
		_, err := run("refused", archive.RefuseSpecial)
		w.refused("refuse", err, fault.Refused, "special_files")
		w.absent(w.at("refused"))
		got, err := run("skipped", archive.SkipSpecial)
		w.must(err)
		w.absent(w.at("skipped/one/d/null"))
		if len(got.NotKept) != 1 || got.NotKept[0].Count != 2 || len(got.Warnings) != 1 {
			t.Errorf("%q: not kept is %+v, warnings %q", chosen, got.NotKept, got.Warnings)
		}
		_, err = run("kept", archive.KeepSpecial)
		w.must(err)
		var st unix.Stat_t
		w.must(unix.Lstat(w.at("kept/one/d/null"), &st))
		if st.Mode != unix.S_IFCHR|0o640 || st.Rdev != unix.Mkdev(1, 3) {
			t.Errorf("%q: the device is %o %d", chosen, st.Mode, st.Rdev)
		}
		w.must(os.RemoveAll(w.at("kept")))
		w.must(os.RemoveAll(w.at("skipped")))
	}
}

// A volume's name comes from the snapshot, and anybody may have written that.
func TestNoVolumeNameLeadsOut(t *testing.T) {
	w := newWorld(t, t.TempDir(), []string{"one", "two"}, usual(t))
	for _, names := range [][2]string{
		{"../out", "x"}, {"a/../../b", "x"}, {"..", "x"}, {".", "x"}, {"/", "x"}, {"a//b", "x"}, {"a\x00b", "x"},
		{".snap-to-20261123T140501Z-3f9a2c", "x"}, {strings.Repeat("x", 256), "x"}, {"a", "a/b"}, {"a/b", "a"}, {"/a", "a"},
	} {
		w.manifest.Volumes[0].Name, w.manifest.Volumes[1].Name = names[0], names[1]
		_, err := Extract(t.Context(), w.extraction(w.at("out")))
		w.refused(fmt.Sprintf("%q", names), err, fault.Refused, "volume_name")
		w.absent(w.at("out"))
	}
	w.manifest.Volumes[0].Name, w.manifest.Volumes[1].Name = "/srv/a", "srv/a.b"
	got, err := Extract(t.Context(), w.extraction(w.at("out")))
	w.must(err)
	for i, path := range []string{"out/srv/a", "out/srv/a.b"} {
		disktest.Same(t, path, disktest.Tree(t, w.at(fmt.Sprintf("live/%d", i))), disktest.Tree(t, got.Volumes[i].Path))
	}
	// A name with a colon, and one that is the beginning of another.
	w.manifest.Volumes[0].Name, w.manifest.Volumes[1].Name = "a", "a:b"
	for arg, want := range map[string]string{"a:file": "a", "a:b": "a:b", "a:b:file": "a:b", "a:b:dir": "a:b"} {
		got, err := Plan(t.Context(), w.extraction(w.at("new"), arg))
		w.must(err)
		if len(got.Volumes) != 1 || got.Volumes[0].Name != want {
			t.Errorf("%s: %+v", arg, got.Volumes)
		}
	}
}

// A member that is gone or damaged is found before or while it is read, if what was chosen
// needs it, and is not in the way otherwise.
func TestDamageIsRefusedWhereItMatters(t *testing.T) {
	w := newWorld(t, t.TempDir(), []string{"one", "two"}, usual(t))
	m := w.manifest.Volumes[0].Members
	path := func(i int) string { return w.at("store/members/" + m[i].ID[:2] + "/" + m[i].ID + ".gz") }
	content, err := os.ReadFile(path(1)) // of large
	w.must(err)
	scans := 0
	for what, damage := range map[string]func(){
		"members_missing":  func() { w.must(os.Remove(path(1))) },
		"snapshot_damaged": func() { w.must(os.WriteFile(path(1), append(slices.Clone(content), 0), 0o600)) },
	} {
		damage()
		for _, chosen := range []string{"one", "one:large"} {
			x := w.extraction(w.at("out"), chosen)
			x.Line = func(line string) {
				if strings.Contains(line, "looked through") {
					scans++
				}
			}
			_, err := Extract(t.Context(), x)
			w.refused(what+" "+chosen, err, fault.Refused, what)
			w.absent(w.at("out"))
		}
		_, err := Extract(t.Context(), w.extraction(w.at("out"), "one:dir", "one:file"))
		w.must(err)
		w.must(os.RemoveAll(w.at("out")))
		w.must(os.WriteFile(path(1), content, 0o600))
	}
	if scans > 0 {
		t.Error("for a damaged member the index was not believed, and all of the stream was read")
	}
}

// An index that is lost, cut, of another version, of another snapshot, or well made and
// wrong, costs time, and nothing else.
func TestAnIndexThatIsWrongCostsTimeOnly(t *testing.T) {
	for name, means := range map[string]bool{"manifests that mean it": true, "manifests of before": false} {
		t.Run(name, func(t *testing.T) { wrongIndexes(t, means) })
	}
}

func wrongIndexes(t *testing.T, means bool) {
	w := newWorld(t, t.TempDir(), []string{"one", "two"}, func(i int, live string) {
		files := map[string]string{}
		for j := range 60 {
			files[fmt.Sprintf("dir/%02d", j)] = strings.Repeat(fmt.Sprint(i, j, "\n"), 5000)
		}
		disktest.Write(t, live, files)
	})
	if w.manifest.Index == "" {
		t.Fatal("the manifest means no index")
	}
	if !means {
		w.manifest.Index = ""
	}
	path := w.at("store/snapshots/app/" + w.manifest.SID + "/index.gz")
	text := disktest.Run(t, "gzip", "-dc", path)
	right, err := os.ReadFile(path)
	w.must(err)
	pack := func(text string) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := z.Write([]byte(text))
		w.must(errors.Join(err, z.Close()))
		return b.Bytes()
	}
	shift := func(line string) string { // the member of an entry is its tenth field
		f := strings.Split(line, "\t")
		if len(f) > 9 && f[0] != `"."` {
			n, err := strconv.Atoi(f[9])
			w.must(err)
			f[9] = fmt.Sprint(min(n+3, len(w.manifest.Volumes[0].Members)-1))
		}
		return strings.Join(f, "\t")
	}
	var shifted []string
	for _, line := range strings.Split(text, "\n") {
		shifted = append(shifted, shift(line))
	}
	for what, content := range map[string][]byte{
		"as it is": right, "lost": nil, "empty": {}, "not gzip": []byte("index"), "cut": right[:len(right)/2], "nearly whole": right[:len(right)-4],
		"another version": pack(strings.Replace(text, "snap-index\t2", "snap-index\t9", 1)), "another boot and machine": pack(strings.Replace(text, "snap-index\t2\t", "snap-index\t2\tother", 1)),
		"without the volume": pack(strings.Replace(text, `volume	"one"`, `volume	"other"`, 1)), "a line too few": pack(strings.Replace(text, text[strings.Index(text, `"dir/30"`):strings.Index(text, `"dir/31"`)], "", 1)),
		"members that are others": pack(strings.Join(shifted, "\n")),
	} {
		w.must(os.RemoveAll(path))
		if what != "lost" {
			w.must(os.WriteFile(path, content, 0o600))
		}
		notices := 0
		x := w.extraction(w.at("out"), "one:dir", "two:dir/07")
		x.Line = func(line string) {
			if strings.HasPrefix(line, "notice: ") {
				notices++
			}
		}
		_, err := Extract(t.Context(), x)
		w.must(err)
		disktest.Same(t, what, disktest.Tree(t, w.at("live/0")), disktest.Tree(t, w.at("out/one")))
		got, err := os.ReadFile(w.at("out/two/dir/07"))
		want, wantErr := os.ReadFile(w.at("live/1/dir/07"))
		if err != nil || wantErr != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: dir/07 is another: %v", what, err)
		}
		if quiet := what == "as it is" || what == "another boot and machine" && !means; quiet != (notices == 0) {
			t.Errorf("%s: %d notices", what, notices)
		}
		w.must(os.RemoveAll(w.at("out")))
	}
}

// A name that a damaged index has lost is in the snapshot all the same.
func TestADamagedIndexLosesNoName(t *testing.T) {
	w := newWorld(t, t.TempDir(), []string{"one", "two"}, usual(t))
	path := w.at("store/snapshots/app/" + w.manifest.SID + "/index.gz")
	text := disktest.Run(t, "gzip", "-dc", path)
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte(strings.Replace(text, `"file"`, `"fyle"`, 1)))
	w.must(errors.Join(err, z.Close()))
	damaged := b.Bytes()
	damaged[len(damaged)-8] ^= 1 // its checksum is that of another text
	w.must(os.WriteFile(path, damaged, 0o600))
	_, err = Extract(t.Context(), w.extraction(w.at("out"), "one:file"))
	w.must(err)
}

// Where the config rejects symlinks, that is said before anything is made.
func TestSymlinksFollowTheConfig(t *testing.T) {
	w := newWorld(t, t.TempDir(), []string{"one"}, func(_ int, live string) {
		disktest.Write(t, live, map[string]string{"d/file": "f", "e/file": "f"})
		if err := os.Symlink("file", live+"/d/link"); err != nil {
			t.Fatal(err)
		}
	})
	for chosen, code := range map[string]string{"one": "unrestorable", "one:d": "unrestorable", "one:d/link": "unrestorable", "one:e": ""} {
		x := w.extraction(w.at("out"), chosen)
		x.Options = func(*store.Volume) archive.ExtractOptions { return archive.ExtractOptions{RejectSymlinks: true} }
		_, err := Extract(t.Context(), x)
		if code == "" {
			w.must(err)
			w.must(os.RemoveAll(w.at("out")))
			continue
		}
		w.refused(chosen, err, fault.Refused, code)
		w.absent(w.at("out"))
		w.must(os.RemoveAll(w.at("out")))
	}
}
