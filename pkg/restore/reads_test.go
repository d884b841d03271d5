package restore

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// watched watches directories for these events. The function that it returns
// lists the files with an event since the last call. An open with O_PATH is not an
// event (inotify(7)).
func watched(t *testing.T, events uint32, dirs ...string) func() []string {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	for _, dir := range dirs {
		if _, err := unix.InotifyAddWatch(fd, dir, events); err != nil {
			t.Fatal(err)
		}
	}
	return func() []string {
		var names []string
		buf := make([]byte, 64<<10)
		for {
			n, err := unix.Read(fd, buf)
			if err != nil || n <= 0 {
				return names
			}
			for at := 0; at < n; {
				size := int(uint32(buf[at+12]) | uint32(buf[at+13])<<8)
				mask := uint32(buf[at+4]) | uint32(buf[at+7])<<24
				name := string(buf[at+16 : at+16+size])
				if i := slices.Index([]byte(name), 0); i >= 0 {
					name = name[:i]
				}
				if mask&unix.IN_ISDIR == 0 && name != "" && !slices.Contains(names, name) {
					names = append(names, name)
				}
				at += 16 + size
			}
		}
	}
}

func (w *world) canClone(dir string) bool {
	d, err := disk.OpenRoot(dir)
	w.must(err)
	defer d.Close()
	return d.CanClone()
}

// Unchanged files are not read again: inotify shows which files a capture and the
// pre-restore capture open or read.
func TestOnlyChangedFilesAreRead(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, 1)
		live := w.volumes[0]
		w.must(os.MkdirAll(filepath.Join(live, "d"), 0o755))
		for _, name := range []string{"small", "d/other", "d/third"} {
			w.must(os.WriteFile(filepath.Join(live, name), []byte(name), 0o600))
		}
		w.must(os.WriteFile(filepath.Join(live, "large"), make([]byte, 3<<20), 0o600))
		w.must(os.WriteFile(filepath.Join(live, "also-large"), make([]byte, 1<<20), 0o600))
		time.Sleep(1200 * time.Millisecond) // files written just now are read again
		e := w.engine()
		capture := func() *CaptureResult {
			r, err := e.Capture(context.Background(), CaptureRequest{Workload: w.name, Quiesce: runtime.Pause})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		first := capture()
		if first.Read < 4<<20 {
			t.Errorf("the first capture read %d bytes", first.Read)
		}
		seen := watched(t, unix.IN_OPEN, live, filepath.Join(live, "d"))
		again := capture()
		if names := seen(); len(names) > 0 || again.Read != 0 {
			t.Errorf("nothing had changed, but %q were opened and %d bytes read", names, again.Read)
		}
		if again.Added != 0 {
			t.Errorf("nothing had changed, but %d bytes were added", again.Added)
		}
		f, err := os.OpenFile(filepath.Join(live, "large"), os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteAt([]byte("x"), 1<<20)
			f.Close()
		}
		w.must(err)
		seen()
		changed := capture()
		names := seen()
		if !slices.Contains(names, "large") || slices.Contains(names, "also-large") {
			t.Errorf("one file had changed, but %q were opened", names)
		}
		if changed.Added > 64<<10 {
			t.Errorf("one byte had changed, but the store grew by %d", changed.Added)
		}
		time.Sleep(1200 * time.Millisecond)
		capture()
		seen = watched(t, unix.IN_ACCESS, live, filepath.Join(live, "d")) // cloning opens a file, but does not read it
		restored, err := w.restore(first.Manifest.SID)
		if err != nil {
			t.Fatal(err)
		}
		// The source of a clone counts as accessed although it is not read
		// (vfs_clone_file_range in the kernel's fs/remap_range.c).
		var want []string
		if w.canClone(live) {
			want = []string{"also-large"}
		}
		if names := seen(); !slices.Equal(names, want) || restored.PassOne.ReadBytes != 0 {
			t.Errorf("a snapshot holds all files, but the pre-restore capture read %q, %d bytes; expected %q and none", names, restored.PassOne.ReadBytes, want)
		}
	})
}
