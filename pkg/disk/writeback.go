package disk

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// writeBackEvery is how many bytes are written between two of a WriteBack's
// syncs: fewer make more commits of the journal, more leave more to the end.
const writeBackEvery = 64 << 20

// WriteBack has a filesystem written back while a tree is made on it, so that
// the disk works from the start and the syncfs at the end finds little left. It
// makes nothing durable that anyone may rely on, and keeps no error to itself:
// those of its syncs are told again by the caller's [Dir.SyncFS].
type WriteBack struct {
	fd      int
	written atomic.Int64
	due     chan struct{}
	stop    chan struct{}
	done    sync.WaitGroup
}

// StartWriteBack starts the write-back of d's filesystem; end it with End.
func (d *Dir) StartWriteBack() (*WriteBack, error) {
	// Opened, not duplicated: of each failed write-back an open file description
	// hears once (syncfs(2)), and that of d is to hear of all.
	fd, err := Openat2(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0, beneath)
	if err != nil {
		return nil, d.fail("open", "", err)
	}
	w := &WriteBack{fd: fd, due: make(chan struct{}, 1), stop: make(chan struct{})}
	w.done.Go(func() {
		for {
			select {
			case <-w.due:
				_ = Retry(func() error { return unix.Syncfs(w.fd) })
			case <-w.stop:
				return
			}
		}
	})
	return w, nil
}

// Wrote tells of n bytes more that were written. It never waits.
func (w *WriteBack) Wrote(n int64) {
	if w.written.Add(n) < writeBackEvery {
		return
	}
	w.written.Store(0)
	select {
	case w.due <- struct{}{}:
	default: // one is to come
	}
}

// End waits for the sync that runs. What Wrote is told from then on has no effect.
func (w *WriteBack) End() {
	close(w.stop)
	w.done.Wait()
	unix.Close(w.fd)
}
