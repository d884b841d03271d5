package disk

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// startWriteBack starts a WriteBack that reports the result of each of its syncs
// on synced, and ends it when the test does, if end was not called before.
func startWriteBack(t *testing.T, dir string) (d *Dir, w *WriteBack, synced chan error, end func()) {
	t.Helper()
	d, err := OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	w, err = d.StartWriteBack()
	if err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(w.End)
	t.Cleanup(end)
	synced = make(chan error, 10)
	syncfs := w.sync
	w.sync = func() error {
		err := syncfs()
		synced <- err
		return err
	}
	return d, w, synced, end
}

// That a file is still unwritten shows nothing here: anybody on the machine may
// call sync(2).
func TestWriteBackSyncsOnceMuchIsWritten(t *testing.T) {
	_, w, synced, end := startWriteBack(t, t.TempDir())
	for range 4 {
		w.Wrote(writeBackEvery / 4)
	}
	if err := <-synced; err != nil {
		t.Error(err)
	}
	for range 3 {
		w.Wrote(writeBackEvery / 4)
	}
	end()
	w.Wrote(writeBackEvery) // no effect after the end
	if n := len(synced); n > 0 {
		t.Errorf("%d syncs although less than %d bytes were written", n, writeBackEvery)
	}
}

func TestAFailedWriteBackIsNotHiddenFromTheCaller(t *testing.T) {
	dir, fail := disktest.FailingDisk(t)
	d, w, synced, end := startWriteBack(t, dir)
	// Before the file is written, so that every write-back of it fails, also that of
	// somebody else's sync(2).
	fail()
	if err := os.WriteFile(filepath.Join(dir, "file"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Wrote(writeBackEvery)
	if err := <-synced; err == nil {
		t.Fatal("the disk takes no writes, and the write-back met no error")
	}
	end()
	if err := d.SyncFS(); err == nil {
		t.Error("the write-back failed, and the caller's own syncfs reports nothing")
	}
}
