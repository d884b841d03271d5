package disk

import (
	"sync"
	"sync/atomic"
)

// writeBackEvery is how many bytes are written between two syncs of a WriteBack:
// fewer bytes mean more commits of the journal, more bytes leave more to the end.
const writeBackEvery = 64 << 20

// WriteBack syncs a filesystem now and then while a tree is written to it, so
// that the [Dir.SyncFS] at the end finds little left to do. It promises no
// durability and hides no error: that SyncFS reports what these syncs ran into.
type WriteBack struct {
	dir     *Dir
	sync    func() error
	written atomic.Int64
	due     chan struct{}
	stop    chan struct{}
	done    sync.WaitGroup
}

// StartWriteBack starts to write back the filesystem of d, until End.
func (d *Dir) StartWriteBack() (*WriteBack, error) {
	// Opened, not duplicated: an open file description is told once of each failed
	// write-back (syncfs(2)), and the one of d must be told of all.
	dir, err := d.Open(".")
	if err != nil {
		return nil, err
	}
	w := &WriteBack{dir: dir, sync: dir.SyncFS, due: make(chan struct{}, 1), stop: make(chan struct{})}
	w.done.Go(func() {
		for {
			select {
			case <-w.due:
				_ = w.sync()
			case <-w.stop:
				return
			}
		}
	})
	return w, nil
}

// Wrote says that n more bytes were written. It never waits.
func (w *WriteBack) Wrote(n int64) {
	if w.written.Add(n) < writeBackEvery {
		return
	}
	w.written.Store(0)
	select {
	case w.due <- struct{}{}:
	default: // a sync is due already
	}
}

// End returns when a sync that has begun is done. Wrote has no effect afterwards.
func (w *WriteBack) End() {
	close(w.stop)
	w.done.Wait()
	w.dir.Close()
}
