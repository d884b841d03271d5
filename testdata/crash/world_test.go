//go:build linux && amd64

package crash

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// world is a small host: three volumes and the store, each on its own filesystem.
// The filesystems are image files, so that a copy of an image is the filesystem
// after a power cut.
//
//	<dir>/v0 … v2, store   mount points; v0/data … are the live directories, or files
//	<bank>/…               the images and copies of them
//	<scratch>              the config, and copies to compare with
type world struct {
	*testing.T
	dir, bank, scratch string
	config             string
	disks              []*medium
	states             map[string][][]string // generation → the volumes' trees
	sid                string                // the snapshot of generation "new"
	manifest           []byte                // the manifest of sid
	other              map[string]string     // sid → its generation, of snapshots that have another than "old"
	members            map[string]bool       // the ids of the members of sid
	reads              bool                  // run asks about reading calls too
	guard              string                // --guard of restores: before or after
	single             bool                  // each volume is one file
	writing            string                // the file of each volume that an app writes to; the trees leave it out
	content            func(dir, generation string, volume int)
	written            [][]string // the volumes' new trees after somebody wrote to them; nil where nobody did
}

// medium is one filesystem of the world, or the folder of a volume.
type medium struct {
	name  string // v0, v1, v2, store
	kind  string
	point string
	live  string // the live directory of a volume, in point
	image string
	loop  *os.File // while it is mounted
}

// The generations: "old" is live, "new" is in the snapshot.
const (
	older = "old"
	newer = "new"
)

// The values of --guard.
const (
	before = "before"
	after  = "after"
)

// guards are both values, for the tests of a restore.
var guards = []string{before, after}

// rowSuffix is the part of a row's name that tells the guard.
func rowSuffix(guard string) string {
	if guard == after {
		return " guarding after"
	}
	return ""
}

const workloadName = "app"

// newWorld returns a world with its store on this kind of filesystem. On btrfs a
// sync makes durable what it names and little else. On ext4 and XFS it flushes the
// journal, and thereby many unrelated changes.
func newWorld(t *testing.T, store string) *world {
	t.Helper()
	return newWorldOf(t, store, false)
}

// newWorldOf is newWorld with volumes that may be one file each.
func newWorldOf(t *testing.T, store string, single bool) *world {
	t.Helper()
	disktest.NeedRoot(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, dir: filepath.Join(dir, "w"), scratch: disktest.Tmpfs(t), states: map[string][][]string{}, guard: before, single: single}
	w.content = w.rich
	if single {
		w.content = w.oneFile
	}
	w.must(os.Chmod(w.scratch, 0o700))
	w.config = filepath.Join(w.scratch, "snap.yaml")
	w.makeBank()
	for _, m := range []medium{{name: "v0", kind: "ext4"}, {name: "v1", kind: "xfs"}, {name: "v2", kind: "btrfs"}, {name: "store", kind: store}} {
		m.point, m.image = filepath.Join(w.dir, m.name), filepath.Join(w.bank, m.name)
		m.live = filepath.Join(m.point, "data")
		w.must(os.MkdirAll(m.point, 0o755))
		disktest.Need(t, "mkfs."+m.kind)
		w.disks = append(w.disks, &m)
		w.format(&m)
		w.mount(&m)
	}
	t.Cleanup(w.unmountAll)
	w.write()
	return w
}

// makeBank creates the filesystem for the images. It is in memory, so that syncs are
// cheap, and it can clone files.
func (w *world) makeBank() {
	disktest.Need(w.T, "mkfs.xfs")
	image := filepath.Join(disktest.Tmpfs(w.T), "bank")
	w.must(os.WriteFile(image, nil, 0o600))
	w.must(os.Truncate(image, 8<<30))
	disktest.Run(w.T, "mkfs.xfs", "-q", "-m", "reflink=1", image)
	w.bank = w.TempDir()
	loop, err := attach(image)
	w.must(err)
	defer loop.Close()
	w.must(unix.Mount(loop.Name(), w.bank, "xfs", 0, ""))
	w.Cleanup(func() { w.detach(w.bank) })
}

func (w *world) format(m *medium) {
	size := map[string]int64{"ext4": 32 << 20, "xfs": 300 << 20, "btrfs": 128 << 20}[m.kind]
	w.must(os.WriteFile(m.image, nil, 0o600))
	w.must(os.Truncate(m.image, size))
	args := map[string][]string{"ext4": {"-q", "-F", "-m", "0"}, "xfs": {"-q"}, "btrfs": {"-q"}}[m.kind]
	disktest.Run(w.T, "mkfs."+m.kind, append(args, m.image)...)
}

func (w *world) mount(m *medium) {
	w.Helper()
	var err error
	m.loop, err = attach(m.image)
	w.must(err)
	// Nothing should become durable by itself before the power cut. By default, ext4
	// commits every 5 seconds and btrfs every 30.
	options := map[string]string{"ext4": "commit=300", "btrfs": "commit=300"}[m.kind]
	if err := unix.Mount(m.loop.Name(), m.point, m.kind, 0, options); err != nil {
		w.Fatalf("mount %s (%s) on %s: %v", m.image, m.kind, m.point, err)
	}
}

func (w *world) unmount(m *medium) {
	w.Helper()
	w.detach(m.point)
	if m.loop != nil {
		w.must(release(m.loop))
		m.loop = nil
	}
}

// detach unmounts a filesystem. It retries, because a killed process may hold the
// filesystem for a moment.
func (w *world) detach(point string) {
	w.Helper()
	for i := 0; ; i++ {
		err := unix.Unmount(point, 0)
		if err == nil || errors.Is(err, unix.EINVAL) { // not mounted
			return
		}
		if i == 100 {
			w.Errorf("umount %s: %v", point, err)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (w *world) mountAll() {
	for _, m := range w.disks {
		w.mount(m)
	}
}

func (w *world) unmountAll() {
	for _, m := range w.disks {
		w.unmount(m)
	}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// volumes are all disks but the last, which is that of the store.
func (w *world) volumes() []*medium { return w.disks[:len(w.disks)-1] }
func (w *world) store() string      { return filepath.Join(w.dir, "store/s") }

// state is on the filesystem of the store, so that a power cut hits both.
func (w *world) state() string { return filepath.Join(w.dir, "store/state") }

// write writes the config, makes both generations, and keeps the world as it is then.
func (w *world) write() {
	w.Helper()
	lines := []string{"volumes:"}
	for _, m := range w.volumes() {
		lines = append(lines, fmt.Sprintf("  - {name: %s, scope: absolute, source: %s}", m.name, m.live))
		if !w.single {
			w.must(os.Mkdir(m.live, 0o751))
		}
	}
	w.configure(lines...)
	w.generations()
	w.save()
}

// configure writes the config, with these lines for the workload.
func (w *world) configure(lines ...string) {
	w.Helper()
	text := fmt.Sprintf("version: 1\nstate: %s\nstore: %s\nabsolute_roots: [%s]\nworkloads:\n  %s:\n    %s\n",
		w.state(), w.store(), w.dir, workloadName, strings.Join(lines, "\n    "))
	w.must(os.WriteFile(w.config, []byte(text), 0o600))
}

// generations captures "new", and leaves "old" in the live directories.
func (w *world) generations() {
	w.Helper()
	w.fill(newer)
	w.states[newer] = w.trees()
	w.sid = w.capture()
	var err error
	w.manifest, err = os.ReadFile(w.manifestPath(w.sid))
	w.must(err)
	if list, err := w.snapshots(); err != nil || w.holds(list[0], w.states[newer]) != nil {
		w.Fatalf("the snapshot to restore differs from the captured data: %v", err)
	} else {
		w.members = list[0].members()
	}
	w.fill(older)
	w.states[older] = w.trees()
}

func (w *world) manifestPath(sid string) string {
	return filepath.Join(w.store(), "snapshots", workloadName, sid, "manifest.json")
}

func (w *world) capture() string {
	w.Helper()
	e := w.run(nil, "capture", workloadName)
	if e.code != 0 {
		w.Fatalf("capture: exit %d: %s", e.code, e.err)
	}
	return strings.TrimSpace(e.out)
}

// fill replaces the content of the live directories with that of a generation.
func (w *world) fill(generation string) {
	w.Helper()
	for i, m := range w.volumes() {
		if !w.single {
			w.must(empty(m.live))
		}
		w.content(m.live, generation, i)
	}
}

// oneFile is the content of a volume that is one file.
func (w *world) oneFile(path, generation string, volume int) {
	w.Helper()
	w.must(errors.Join(
		os.WriteFile(path, []byte(strings.Repeat(fmt.Sprint(generation, volume), 100_000)), 0o640),
		os.Chown(path, 1000, 1001),
		unix.Setxattr(path, "user.generation", []byte(generation), 0),
	))
}

// rich is the content of a volume of a world without an app.
func (w *world) rich(dir, generation string, volume int) {
	w.Helper()
	disktest.Write(w.T, dir, map[string]string{
		"generation": fmt.Sprint(generation, volume), "dir/" + generation: strings.Repeat(generation, 3000),
		"large": strings.Repeat(fmt.Sprint(generation, volume), 100_000),
	})
	w.must(errors.Join(
		os.Link(filepath.Join(dir, "generation"), filepath.Join(dir, "same")),
		os.Symlink(generation, filepath.Join(dir, "link")),
		os.Chown(filepath.Join(dir, "dir"), 1000, 1001),
		os.Chmod(filepath.Join(dir, "dir"), 0o710),
		unix.Setxattr(filepath.Join(dir, "large"), "user.generation", []byte(generation), 0),
	))
}

func empty(dir string) error {
	names, err := os.ReadDir(dir)
	for _, name := range names {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, name.Name())))
	}
	return err
}

func (w *world) trees() [][]string {
	w.Helper()
	var all [][]string
	for _, m := range w.volumes() {
		all = append(all, w.tree(m.live))
	}
	return all
}

// tree describes a volume, or a copy of one.
func (w *world) tree(dir string) []string {
	w.Helper()
	return slices.DeleteFunc(disktest.Tree(w.T, dir), func(line string) bool {
		return w.writing != "" && strings.HasPrefix(line, strconv.Quote(w.writing)+" ")
	})
}

// save copies the present world for reset and resetImages.
func (w *world) save() {
	w.Helper()
	for _, m := range w.volumes() {
		disktest.Run(w.T, "cp", "-a", m.live, filepath.Join(w.scratch, m.name))
	}
	w.keep()
	w.unmountAll()
	for _, m := range w.disks {
		w.clone(m.image, m.image+".kept")
	}
	w.mountAll()
}

// keep copies the store and the state for putBack.
func (w *world) keep() {
	w.Helper()
	disktest.Run(w.T, "cp", "-a", w.store(), filepath.Join(w.scratch, "store"))
	disktest.Run(w.T, "cp", "-a", w.state(), filepath.Join(w.scratch, "state"))
}

func (w *world) putBack() {
	w.Helper()
	w.must(errors.Join(empty(w.store()), empty(w.state())))
	disktest.Run(w.T, "cp", "-a", filepath.Join(w.scratch, "store")+"/.", w.store())
	disktest.Run(w.T, "cp", "-a", filepath.Join(w.scratch, "state")+"/.", w.state())
}

// clone makes a copy of an image that shares its blocks (ioctl_ficlone(2)).
func (w *world) clone(from, to string) {
	w.Helper()
	src, err := os.Open(from)
	w.must(err)
	defer src.Close()
	dst, err := os.Create(to)
	w.must(err)
	defer dst.Close()
	w.must(unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())))
}

// reset puts the files of the world back as they were at save.
func (w *world) reset() {
	w.Helper()
	for i, m := range w.volumes() {
		if now := w.tree(m.live); slices.Equal(now, w.states[older][i]) {
			continue
		}
		w.must(os.RemoveAll(m.live))
		disktest.Run(w.T, "cp", "-a", filepath.Join(w.scratch, m.name), m.live)
	}
	w.dropWrappers()
	w.putBack()
}

// dropWrappers removes what a failed test has left beside the volumes.
func (w *world) dropWrappers() {
	w.Helper()
	for _, m := range w.volumes() {
		left, err := filepath.Glob(filepath.Join(m.point, ".snap-*"))
		w.must(err)
		for _, dir := range left {
			w.must(os.RemoveAll(dir))
		}
	}
}

// resetImages puts the filesystems themselves back as they were at save.
func (w *world) resetImages() {
	w.Helper()
	w.unmountAll()
	for _, m := range w.disks {
		w.clone(m.image+".kept", m.image)
	}
	w.mountAll()
}
