package disk_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// delayed reports whether ext4 has yet to find blocks for some of the file,
// which it does when it writes the file back.
func delayed(t *testing.T, file string) bool {
	return strings.Contains(disktest.Run(t, "filefrag", "-v", file), "delalloc")
}

// whileDelayed waits for that, ten seconds at most: by itself the kernel leaves a
// file alone for half a minute (vm.dirty_expire_centisecs).
func whileDelayed(t *testing.T, file string) {
	for end := time.Now().Add(10 * time.Second); delayed(t, file) && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
}

func TestWhatWasToldIsWrittenBackBeforeTheEnd(t *testing.T) {
	disktest.Need(t, "filefrag")
	dir := disktest.Mount(t, "ext4", 256)
	for _, c := range []struct {
		what string
		told int64
		back bool
	}{
		{"little", 1 << 20, false},
		{"much", 64 << 20, true},
	} {
		file := filepath.Join(dir, c.what)
		d := open(t, dir)
		w, err := d.StartWriteBack()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		if !delayed(t, file) {
			t.Fatal("a file that was just written is on the disk already: nothing is tested")
		}
		for range 4 {
			w.Wrote(c.told / 4)
		}
		if c.back {
			whileDelayed(t, file)
		}
		w.End()
		if delayed(t, file) == c.back {
			t.Errorf("%s was written: that the file was written back is %v", c.what, !c.back)
		}
		w.Wrote(c.told) // too late, and no harm
	}
}

// A disk that fails while the write-back has it written is a disk whose failure
// the caller's own syncfs tells.
func TestAFailedWriteBackIsNotHiddenFromTheCaller(t *testing.T) {
	image := filepath.Join(disktest.Tmpfs(t, "-o", "size=16m"), "image")
	disktest.Run(t, "truncate", "-s", "256M", image)
	// Without a journal, whose own failure would speak to everybody.
	disktest.Run(t, "mkfs.ext4", "-q", "-F", "-O", "^has_journal", image)
	dir := disktest.Loop(t, image)
	d := open(t, dir)
	w, err := d.StartWriteBack()
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 48<<20)
	for i := range noise {
		noise[i] = byte(i)
	}
	if err := os.WriteFile(filepath.Join(dir, "more"), noise, 0o600); err != nil {
		t.Fatal(err)
	}
	w.Wrote(64 << 20)
	whileDelayed(t, filepath.Join(dir, "more"))
	w.End()
	if err := d.SyncFS(); err == nil {
		t.Error("the disk took a third of what was written, and the caller's syncfs says nothing")
	}
}
