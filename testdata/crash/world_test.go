//go:build linux && amd64

package crash

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// world is a host in small: three volumes and the store, each on a filesystem
// of its own. The filesystems lie in files, copies of which are what a power
// cut leaves.
//
//	<dir>/v0 … v2, store   where they are mounted; v0/data … are the live directories
//	<bank>/…               their images, and copies of them
//	<scratch>              what is compared with
type world struct {
	*testing.T
	dir, bank, scratch string
	config             string
	disks              []*medium
	states             map[string][][]string // generation → the volumes' trees
	sid                string                // the snapshot of generation "new"
	manifest           []byte                // its manifest
	members            map[string]bool       // and the ids of its members
	reads              bool                  // run asks about calls that only read as well
	guard              string                // when restores guard: before or after
}

// medium is one filesystem of the world.
type medium struct {
	name  string // v0, v1, v2, store
	kind  string
	point string
	image string
	loop  *os.File // while it is mounted
}

// The generations: "old" is live, "new" is in the snapshot.
const (
	older = "old"
	newer = "new"
)

// When a restore guards.
const (
	before = "before"
	after  = "after"
)

// guards are both, for a test of a restore.
var guards = []string{before, after}

// guarding is what the name of a row says of it.
func guarding(guard string) string {
	if guard == after {
		return " guarding after"
	}
	return ""
}

const workloadName = "app"

// newWorld makes a world with its store on a filesystem of that kind. On btrfs a
// sync makes durable what it names and little else; on ext4 and XFS it flushes
// the journal, and with that much that nobody asked for.
func newWorld(t *testing.T, store string) *world {
	t.Helper()
	disktest.NeedRoot(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, dir: filepath.Join(dir, "w"), scratch: disktest.Tmpfs(t), states: map[string][][]string{}, guard: before}
	w.must(os.Chmod(w.scratch, 0o700))
	w.config = filepath.Join(w.scratch, "snap.yaml")
	w.makeBank()
	for _, m := range []medium{{name: "v0", kind: "ext4"}, {name: "v1", kind: "xfs"}, {name: "v2", kind: "btrfs"}, {name: "store", kind: store}} {
		m.point, m.image = filepath.Join(w.dir, m.name), filepath.Join(w.bank, m.name)
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

// makeBank makes the filesystem that the images lie on: in memory, so that a
// sync costs nothing, and one that copies a file without copying its blocks.
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
	// Nothing is to become durable by itself before the power goes: ext4 and
	// btrfs would commit every 5 and every 30 seconds.
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

// detach unmounts what is mounted there; a killed process may take a moment to
// leave it.
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

func (w *world) volumes() []*medium { return w.disks[:3] }
func (w *world) live(m *medium) string {
	return filepath.Join(m.point, "data")
}
func (w *world) store() string { return filepath.Join(w.dir, "store/s") }

// state lies on the filesystem of the store, so that a power cut of it takes both.
func (w *world) state() string { return filepath.Join(w.dir, "store/state") }

// write writes the config, and both generations: "new" into a snapshot, "old"
// into the live directories.
func (w *world) write() {
	w.Helper()
	text := fmt.Sprintf("version: 1\nstate: %s\nstore: %s\nabsolute_roots: [%s]\nworkloads:\n  %s:\n    volumes:\n", w.state(), w.store(), w.dir, workloadName)
	for _, m := range w.volumes() {
		text += fmt.Sprintf("      - {name: %s, scope: absolute, source: %s}\n", m.name, w.live(m))
		w.must(os.Mkdir(w.live(m), 0o751))
	}
	w.must(os.WriteFile(w.config, []byte(text), 0o600))
	w.fill(newer)
	w.states[newer] = w.trees()
	w.sid = w.capture()
	var err error
	w.manifest, err = os.ReadFile(w.manifestPath(w.sid))
	w.must(err)
	if list, err := w.snapshots(); err != nil || w.holds(list[0], w.states[newer]) != nil {
		w.Fatalf("the snapshot to be restored is not what was captured: %v", err)
	} else {
		w.members = list[0].members()
	}
	w.fill(older)
	w.states[older] = w.trees()
	w.keep()
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

// fill writes a generation into the live directories.
func (w *world) fill(generation string) {
	w.Helper()
	for i, m := range w.volumes() {
		w.must(empty(w.live(m)))
		disktest.Write(w.T, w.live(m), map[string]string{
			"generation": fmt.Sprint(generation, i), "dir/" + generation: strings.Repeat(generation, 3000),
			"large": strings.Repeat(fmt.Sprint(generation, i), 100_000),
		})
		w.must(errors.Join(
			os.Link(filepath.Join(w.live(m), "generation"), filepath.Join(w.live(m), "same")),
			os.Symlink(generation, filepath.Join(w.live(m), "link")),
			os.Chown(filepath.Join(w.live(m), "dir"), 1000, 1001),
			os.Chmod(filepath.Join(w.live(m), "dir"), 0o710),
			unix.Setxattr(filepath.Join(w.live(m), "large"), "user.generation", []byte(generation), 0),
		))
	}
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
		all = append(all, disktest.Tree(w.T, w.live(m)))
	}
	return all
}

// keep remembers the world as it is, as files and as images.
func (w *world) keep() {
	w.Helper()
	for _, m := range w.volumes() {
		disktest.Run(w.T, "cp", "-a", w.live(m), filepath.Join(w.scratch, m.name))
	}
	disktest.Run(w.T, "cp", "-a", w.store(), filepath.Join(w.scratch, "store"))
	disktest.Run(w.T, "cp", "-a", w.state(), filepath.Join(w.scratch, "state"))
	w.unmountAll()
	for _, m := range w.disks {
		w.clone(m.image, m.image+".kept")
	}
	w.mountAll()
}

// clone copies an image without copying its blocks (ioctl_ficlone(2)).
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

// reset puts the files of the world back as keep found them.
func (w *world) reset() {
	w.Helper()
	for i, m := range w.volumes() {
		if now := disktest.Tree(w.T, w.live(m)); slices.Equal(now, w.states[older][i]) {
			continue
		}
		w.must(os.RemoveAll(w.live(m)))
		disktest.Run(w.T, "cp", "-a", filepath.Join(w.scratch, m.name), w.live(m))
	}
	for _, m := range w.volumes() {
		left, err := filepath.Glob(filepath.Join(m.point, ".snap-*"))
		w.must(err)
		for _, dir := range left {
			w.must(os.RemoveAll(dir))
		}
	}
	w.must(errors.Join(empty(w.store()), empty(w.state())))
	disktest.Run(w.T, "cp", "-a", filepath.Join(w.scratch, "store")+"/.", w.store())
	disktest.Run(w.T, "cp", "-a", filepath.Join(w.scratch, "state")+"/.", w.state())
}

// resetImages puts the filesystems themselves back as keep found them.
func (w *world) resetImages() {
	w.Helper()
	w.unmountAll()
	for _, m := range w.disks {
		w.clone(m.image+".kept", m.image)
	}
	w.mountAll()
}
