package restore

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// refusal is one reason to refuse a restore before it touches anything that the app
// needs.
type refusal struct {
	name string
	code string
	// spoil makes the restore impossible and returns a function that undoes it.
	spoil func(w *world, sid string) func()
	sid   string // the sid to ask for, if not the captured one
}

// Every reason for the pre-flight to refuse a restore: the data is unchanged and
// the container has not been touched.
func TestThePreflightRefusesAndTouchesNoContainer(t *testing.T) {
	name := image(t)
	w := newWorld(t, t.TempDir(), 2, appLines(name, fmt.Sprintf("ports: [\"127.0.0.1:%d:8080\"]", freePort(t)))...)
	w.fill("new")
	w.deploy()
	sid := w.capture()
	w.fill("old")
	before, container := w.trees(), w.appRuns()
	config, err := os.ReadFile(w.config)
	w.must(err)
	for _, r := range refusals() {
		t.Run(r.name, func(t *testing.T) {
			undo := r.spoil(w, sid)
			ask := sid
			if r.sid != "" {
				ask = r.sid
			}
			_, err := w.engine().Restore(t.Context(), w.request(ask))
			_, planErr := w.engine().Plan(t.Context(), w.request(ask))
			undo()
			w.must(os.WriteFile(w.config, config, 0o600))
			if kind := fault.KindOf(err); codeOf(err) != r.code || kind != fault.Refused && kind != fault.Usage {
				t.Errorf("the restore returned %q (%v), expected refusal %q", codeOf(err), err, r.code)
			}
			// A plan does not read members, so it cannot see a damaged one.
			if r.code != "snapshot_damaged" && codeOf(planErr) != r.code {
				t.Errorf("the plan returned %q (%v), expected refusal %q", codeOf(planErr), planErr, r.code)
			}
			if now := w.appRuns(); now.ID != container.ID || now.StartedAt != container.StartedAt {
				t.Errorf("the container was touched: it is %+v and was %+v", now, container)
			}
			for i := range before {
				disktest.Same(t, "the live data", before[i], w.trees()[i])
			}
			w.clean()
		})
	}
}

func refusals() []refusal {
	return []refusal{
		{name: "a malformed sid", code: "bad_sid", sid: "../x", spoil: nothing},
		{name: "no such snapshot", code: "snapshot_not_found", sid: "20000101T000000Z-abcdef", spoil: nothing},
		{name: "a volume that the config lacks", code: "volume_unresolved", spoil: func(w *world, _ string) func() {
			w.edit("{name: v1,", "{name: renamed,")
			return func() {}
		}},
		{name: "a volume that the snapshot lacks", code: "volume_missing", spoil: func(w *world, _ string) func() {
			extra := filepath.Join(w.dir, "live/v2")
			w.must(os.MkdirAll(extra, 0o755))
			w.edit("volumes:", "volumes:\n      - {name: v2, scope: absolute, source: "+extra+", target: /v2}")
			return func() { w.must(os.Remove(extra)) }
		}},
		{name: "a forged source", code: "volume_unresolved", spoil: forge(func(m *store.Manifest) { m.Volumes[0].Source = "../../etc" })},
		{name: "a forged name", code: "volume_unresolved", spoil: forge(func(m *store.Manifest) { m.Volumes[0].Name = "../../etc" })},
		{name: "a forged workload", code: "snapshot_damaged", spoil: forge(func(m *store.Manifest) { m.Workload = "../other" })},
		{name: "a manifest from the future", code: "snapshot_too_new", spoil: future},
		{name: "a mount inside a volume", code: "mount_inside", spoil: func(w *world, _ string) func() {
			return w.bind(filepath.Join(w.dir, "snap.d"), filepath.Join(w.volumes[0], "empty"))
		}},
		{name: "a volume that is a mount point", code: "mount_point", spoil: func(w *world, _ string) func() {
			return w.bind(w.volumes[1], w.volumes[1])
		}},
		{name: "a volume on tmpfs", code: "unsuitable_filesystem", spoil: func(w *world, _ string) func() {
			disktest.Run(w.T, "mount", "-t", "tmpfs", "tmpfs", w.volumes[1])
			return func() { disktest.Run(w.T, "umount", w.volumes[1]) }
		}},
		{name: "a symlink in the path", code: "symlink_in_path", spoil: func(w *world, _ string) func() {
			aside := w.volumes[1] + ".aside"
			w.must(os.Rename(w.volumes[1], aside))
			w.must(os.Symlink(aside, w.volumes[1]))
			return func() { w.must(os.Remove(w.volumes[1])); w.must(os.Rename(aside, w.volumes[1])) }
		}},
		{name: "a file in the volume's place", code: "not_a_directory", spoil: func(w *world, _ string) func() {
			aside := w.volumes[1] + ".aside"
			w.must(os.Rename(w.volumes[1], aside))
			w.must(os.WriteFile(w.volumes[1], nil, 0o600))
			return func() { w.must(os.Remove(w.volumes[1])); w.must(os.Rename(aside, w.volumes[1])) }
		}},
		{name: "an immutable directory", code: "immutable", spoil: func(w *world, _ string) func() {
			disktest.Run(w.T, "chattr", "+i", w.volumes[0])
			return func() { disktest.Run(w.T, "chattr", "-i", w.volumes[0]) }
		}},
		{name: "an append-only file deep in a volume", code: "immutable", spoil: func(w *world, _ string) func() {
			disktest.Run(w.T, "chattr", "+a", filepath.Join(w.volumes[1], "dir/old"))
			return func() { disktest.Run(w.T, "chattr", "-a", filepath.Join(w.volumes[1], "dir/old")) }
		}},
		{name: "another container on a live directory", code: "in_use", spoil: func(w *world, _ string) func() {
			return w.stranger(w.volumes[0], true)
		}},
		{name: "another container inside a live directory", code: "in_use", spoil: func(w *world, _ string) func() {
			return w.stranger(filepath.Join(w.volumes[0], "dir"), true)
		}},
		{name: "a host process with a live file open for writing", code: "in_use", spoil: writer},
		{name: "a fifo in the live data", code: "unrestorable", spoil: func(w *world, _ string) func() {
			path := filepath.Join(w.volumes[0], "empty", "fifo")
			var st unix.Stat_t
			w.must(unix.Stat(filepath.Dir(path), &st))
			w.must(unix.Mkfifo(path, 0o600))
			return func() {
				w.must(os.Remove(path))
				times := []unix.Timespec{st.Atim, st.Mtim}
				w.must(unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Dir(path), times, 0))
			}
		}},
		{name: "a missing member", code: "members_missing", spoil: member(func(path string) error { return os.Rename(path, path+".aside") })},
		{name: "a damaged member", code: "snapshot_damaged", spoil: member(flip)},
		{name: "a truncated member", code: "snapshot_damaged", spoil: member(func(path string) error { return os.Truncate(path, 30) })},
	}
}

func nothing(*world, string) func() { return func() {} }

func (w *world) edit(old, new string) {
	w.Helper()
	data, err := os.ReadFile(w.config)
	w.must(err)
	if !strings.Contains(string(data), old) {
		w.Fatalf("the config has no %q", old)
	}
	w.must(os.WriteFile(w.config, []byte(strings.Replace(string(data), old, new, 1)), 0o600))
}

func (w *world) bind(what, where string) func() {
	w.Helper()
	w.must(os.MkdirAll(what, 0o755))
	disktest.Run(w.T, "mount", "--bind", what, where)
	return func() { disktest.Run(w.T, "umount", where) }
}

func (w *world) manifestPath(sid string) string {
	return filepath.Join(w.dir, "store/snapshots", w.name, sid, "manifest.json")
}

// forge changes the manifest and gives it a correct checksum.
func forge(change func(*store.Manifest)) func(*world, string) func() {
	return func(w *world, sid string) func() {
		path := w.manifestPath(sid)
		before, err := os.ReadFile(path)
		w.must(err)
		m, err := w.engine().Store.Load(w.name, sid)
		w.must(err)
		change(m)
		unsum(m)
		data, err := disk.MarshalSealed(m, "snap-manifest", 1)
		w.must(err)
		w.must(os.WriteFile(path, data, 0o600))
		return func() { w.must(os.WriteFile(path, before, 0o600)) }
	}
}

// unsum takes away what an earlier version of a manifest does not have, and what shows
// some forgeries before all else.
func unsum(m *store.Manifest) {
	m.Index, m.Config = "", ""
	for i := range m.Volumes {
		m.Volumes[i].Sum = ""
	}
}

// future gives the manifest a version that this snap does not know.
func future(w *world, sid string) func() {
	path := w.manifestPath(sid)
	before, err := os.ReadFile(path)
	w.must(err)
	m, err := w.engine().Store.Load(w.name, sid)
	w.must(err)
	data, err := disk.MarshalSealed(m, "snap-manifest", 99)
	w.must(err)
	w.must(os.WriteFile(path, data, 0o600))
	return func() { w.must(os.WriteFile(path, before, 0o600)) }
}

// member spoils the first member of the snapshot's second volume.
func member(spoil func(path string) error) func(*world, string) func() {
	return func(w *world, sid string) func() {
		m, err := w.engine().Store.Load(w.name, sid)
		w.must(err)
		id := m.Volumes[1].Members[0].ID
		path := filepath.Join(w.dir, "store/members", id[:2], id+".gz")
		before, err := os.ReadFile(path)
		w.must(err)
		w.must(spoil(path))
		return func() {
			w.must(os.WriteFile(path, before, 0o600))
			if err := os.Remove(path + ".aside"); err != nil && !os.IsNotExist(err) {
				w.must(err)
			}
		}
	}
}

// flip damages the checksum at the end of a member. A flipped bit in the middle
// might decompress to the same data.
func flip(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[len(data)-6] ^= 0x10
	return os.WriteFile(path, data, 0o600)
}

// stranger creates a container outside the workload that mounts a directory, and
// returns a function that removes it.
func (w *world) stranger(dir string, running bool, options ...string) func() {
	w.Helper()
	verb := "run"
	args := []string{"-d"}
	if !running {
		verb, args = "create", nil
	}
	args = append(append([]string{verb}, args...), "--stop-timeout", "1", "--name", w.name+"-stranger", "-v", dir+":/x"+strings.Join(options, ""), w.containersImage(), "stubborn")
	disktest.Run(w.T, "docker", args...)
	return func() { disktest.Run(w.T, "docker", "rm", "-f", w.name+"-stranger") }
}

func (w *world) containersImage() string {
	w.Helper()
	return dockertest.Inspect(w.T, w.name).Image
}

// writer holds a file of the first volume open for writing, as an editor on the
// host would.
func writer(w *world, _ string) func() { return holder(w, filepath.Join(w.volumes[0], "generation")) }

// holder starts a process that holds a file open for writing, and returns a
// function that ends the process.
func holder(w *world, path string) func() {
	hold := exec.Command("sleep", "1000")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	w.must(err)
	hold.ExtraFiles = []*os.File{f}
	w.must(hold.Start())
	f.Close()
	return func() {
		w.must(hold.Process.Kill())
		_ = hold.Wait() // the error is the kill
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// A stopped container mounts a live directory, or a running one mounts a parent of
// it. The plan warns of the container and does not refuse.
func TestAContainerThatIsStoppedOrMountsAParentIsAWarning(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1, appLines(image(t))...)
	w.fill("new")
	w.deploy()
	sid := w.capture()
	for name, make := range map[string]func() func(){
		"stopped": func() func() { return w.stranger(w.volumes[0], false) },
		"above":   func() func() { return w.stranger(w.dir, true) },
	} {
		t.Run(name, func(t *testing.T) {
			remove := make()
			defer remove()
			p, err := w.engine().Plan(t.Context(), w.request(sid))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(p.Warnings, func(s string) bool { return strings.Contains(s, w.name+"-stranger") }) {
				t.Errorf("no warning names the container: %q", p.Warnings)
			}
		})
	}
}

// The filesystem of the volume has too little space for the staged tree. The
// restore is refused.
func TestNotEnoughSpaceIsRefused(t *testing.T) {
	small := disktest.Mount(t, "ext4", 24)
	w := newWorld(t, small, 1)
	w.edit("store: "+w.dir+"/store", "store: "+t.TempDir()+"/store")
	disktest.Write(t, w.volumes[0], map[string]string{"big": strings.Repeat("0123456789", 1<<20)})
	sid := w.capture()
	disktest.Write(t, w.volumes[0], map[string]string{"more": strings.Repeat("9876543210", 1<<18)})
	before := w.trees()
	_, err := w.engine().Restore(t.Context(), w.request(sid))
	if fault.KindOf(err) != fault.Refused || codeOf(err) != "no_space" {
		t.Fatalf("the restore returned %v, expected a refusal for want of space", err)
	}
	disktest.Same(t, "the live data", before[0], w.trees()[0])
}

// Another process listens on a port of the app. The restore is refused before it
// touches the container.
func TestATakenPortIsRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := newWorld(t, t.TempDir(), 1, appLines(image(t))...)
	w.fill("new")
	w.deploy()
	sid, container := w.capture(), w.appRuns()
	w.edit("restart:", fmt.Sprintf("ports: [\"127.0.0.1:%d:8080\"]\n    restart:", l.Addr().(*net.TCPAddr).Port))
	_, err = w.engine().Restore(t.Context(), w.request(sid))
	if fault.KindOf(err) != fault.Refused || codeOf(err) != "port_taken" {
		t.Errorf("the restore returned %v, expected a refusal for the port", err)
	}
	if now := w.appRuns(); now.ID != container.ID || now.StartedAt != container.StartedAt {
		t.Errorf("the container was touched")
	}
}

// imageless is a runtime whose containers ran an image that is no longer on the
// host. A real engine does not remove the image of a running container.
type imageless struct{ runtime.Runtime }

func (r imageless) Containers(ctx context.Context) ([]runtime.Container, error) {
	list, err := r.Runtime.Containers(ctx)
	for i := range list {
		list[i].ImageID = "sha256:" + strings.Repeat("0", 64)
	}
	return list, err
}

// The image of the running container is no longer on the host. The restore is
// refused before it touches the container.
func TestAMissingImageIsRefused(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1, appLines(image(t))...)
	w.fill("new")
	w.deploy()
	sid, container := w.capture(), w.appRuns()
	e := w.engine()
	open := e.Runtime
	e.Runtime = func(ctx context.Context, w *workload.Workload) (runtime.Runtime, error) {
		rt, err := open(ctx, w)
		return imageless{rt}, err
	}
	_, err := e.Restore(t.Context(), w.request(sid))
	if fault.KindOf(err) != fault.Refused || codeOf(err) != "image_missing" {
		t.Errorf("the restore returned %v, expected a refusal for the image", err)
	}
	if now := w.appRuns(); now.ID != container.ID || now.StartedAt != container.StartedAt {
		t.Errorf("the container was touched")
	}
}
