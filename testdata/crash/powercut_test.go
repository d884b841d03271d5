//go:build linux && amd64

package crash

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A power cut loses writes that were not yet durable. The disk keeps what has
// reached the image file below the loop device, so a copy of the image at that
// moment is the filesystem after the cut. The same filesystem after a sync is one
// that kept its power. ext4 and XFS can also be shut down by an ioctl (cutOff).

// cuts calls try once for each non-empty set of the filesystems that had unsynced
// writes, after these have lost them. The filesystems are mounted again by then. The
// process must be dead when cuts is called.
func (w *world) cuts(p *progress, try func(lost []string)) {
	w.Helper()
	for _, m := range w.disks {
		w.clone(m.image, m.image+".cut")
	}
	for _, m := range w.disks {
		w.syncfs(m)
	}
	w.unmountAll()
	for _, m := range w.disks {
		w.clone(m.image, m.image+".synced")
	}
	dirty := slices.DeleteFunc(slices.Clone(w.disks), func(m *medium) bool { return !p.dirty[m.name] })
	for set := 1; set < 1<<len(dirty); set++ {
		var lost []string
		for _, m := range w.disks {
			w.clone(m.image+".synced", m.image)
		}
		for i, m := range dirty {
			if set&(1<<i) != 0 {
				w.clone(m.image+".cut", m.image)
				lost = append(lost, m.name)
			}
		}
		w.mountAll()
		try(lost)
		w.unmountAll()
	}
	w.mountAll()
}

func (w *world) syncfs(m *medium) {
	w.Helper()
	dir, err := os.Open(m.point)
	w.must(err)
	defer dir.Close()
	w.must(unix.Syncfs(int(dir.Fd())))
}

// cutOff cuts the power of all filesystems at once and mounts them again. ext4 and
// XFS drop their memory and their log (EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN have
// the same number; the flag is NOLOGFLUSH). btrfs has no such ioctl, so its image
// is copied.
func (w *world) cutOff() {
	w.Helper()
	const shutdown, noLogFlush = 0x8004587d, 2
	for _, m := range w.disks {
		if m.kind == "btrfs" {
			w.clone(m.image, m.image+".cut")
			continue
		}
		dir, err := os.Open(m.point)
		w.must(err)
		how := uint32(noLogFlush)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), shutdown, uintptr(unsafe.Pointer(&how)))
		dir.Close()
		if errno != 0 {
			w.Fatalf("shut down %s: %v", m.point, errno)
		}
	}
	w.unmountAll()
	for _, m := range w.disks {
		if m.kind == "btrfs" {
			w.clone(m.image+".cut", m.image)
		}
	}
	w.mountAll()
}

// afterCut is the generation that recovery must leave after a power cut here. It is
// "" if either is right, because the cut may have lost the name of the commit
// record.
func (p *progress) afterCut(lost []string) string {
	if p.committed && !p.durable && slices.Contains(lost, "store") {
		return ""
	}
	return p.expected()
}

// cutEverywhere cuts the power of every set of filesystems before each changing
// call of a process, beginning at call from, and after its end. begin runs the
// process, and returns the progress of an earlier process, if there was one.
func (w *world) cutEverywhere(c *tally, from, worker, of, sample int, begin func(judge func(*call) answer) (*progress, exited)) {
	w.Helper()
	everyFrom(from, worker, of, 1, sample, func(n int) bool {
		w.resetImages()
		p := &progress{}
		q, e := begin(killBefore(n, p))
		p.after(q)
		if !e.killed && e.code != 0 {
			w.Fatalf("the process was not killed: exit %d: %s", e.code, e.err)
		}
		if !e.killed {
			p.end, p.done = "its end", true
		}
		w.cuts(p, func(lost []string) {
			_, found := w.recovered(p, p.afterCut(lost))
			c.count(w.T, fmt.Sprintf("power cut of %s before %s", strings.Join(lost, ", "), p.end), found)
		})
		return e.killed
	})
}

// after adds the progress q of an earlier process to p.
func (p *progress) after(q *progress) {
	if q == nil {
		return
	}
	p.exchanged, p.committed, p.durable = p.exchanged || q.exchanged, p.committed || q.committed, p.durable || q.durable
	dirty := map[string]bool{}
	for name, is := range q.dirty {
		dirty[name] = is
	}
	for name, is := range p.dirty {
		dirty[name] = is
	}
	p.dirty, p.acked = dirty, append(p.acked, q.acked...)
}

// The power of any set of disks is cut before each changing call of a restore.
func TestAPowerCutBeforeAnyCallOfARestore(t *testing.T) {
	for _, guard := range guards {
		c := newTally("restore" + rowSuffix(guard) + ", power cut of every set of disks before every call")
		workers(t, func(w *world, worker, of int) {
			w.guard = guard
			w.cutEverywhere(c, w.firstOwnCall(changes), worker, of, 61, func(judge func(*call) answer) (*progress, exited) {
				return nil, w.restore(judge)
			})
		})
	}
}

// All filesystems are shut down before every third changing call of a restore.
func TestAPowerCutOfAllBeforeAnyCallOfARestore(t *testing.T) {
	for _, guard := range guards {
		c := newTally("restore" + rowSuffix(guard) + ", all filesystems shut down before every third call")
		workers(t, func(w *world, worker, of int) {
			w.guard = guard
			everyFrom(w.firstOwnCall(changes), worker, of, 3, 71, func(n int) bool {
				w.resetImages()
				p := &progress{}
				e := w.restore(killBefore(n, p))
				w.cutOff()
				_, found := w.recovered(p, p.afterCut([]string{"store"}))
				c.count(w.T, "power cut before "+p.end, found)
				return e.killed
			})
		})
	}
}

// The power of all filesystems goes after the first exchange, or after the last, and nobody
// writes to the new data: no snapshot is made of it.
func TestAPowerCutAloneMakesNoSnapshot(t *testing.T) {
	c := newTally("restore, all filesystems shut down between the exchange and the commit")
	workers(t, func(w *world, worker, of int) {
		for _, moment := range killPoints[2:4] {
			w.resetImages()
			p := w.interrupted(moment)
			w.cutOff()
			_, found := w.recovered(p, older)
			list, err := w.snapshots()
			w.must(err)
			if len(list) != 2 {
				found = append(found, finding{"wrong", fmt.Sprintf("%d snapshots, although nobody wrote to the new data", len(list))})
			}
			c.count(w.T, "power cut before "+p.end, found)
		}
	})
}

// The power is cut before each changing call of a capture.
func TestAPowerCutBeforeAnyCallOfACapture(t *testing.T) {
	c := newTally("capture, power cut before every call")
	workers(t, func(w *world, worker, of int) {
		w.cutEverywhere(c, 1, worker, of, 31, func(judge func(*call) answer) (*progress, exited) {
			e := w.run(judge, "capture", workloadName)
			if e.code == 0 {
				return &progress{acked: []string{strings.TrimSpace(e.out)}}, e
			}
			return nil, e
		})
	})
}

// A restore is killed, a recovery runs without a reboot and is killed too, and then
// the power of any set of disks is cut, also of the store alone.
func TestAPowerCutBeforeAnyCallOfARecovery(t *testing.T) {
	for _, guard := range guards {
		c := newTally("restore" + rowSuffix(guard) + " killed, then recover, power cut before every call")
		workers(t, func(w *world, worker, of int) {
			w.guard = guard
			moments := []string{killPoints[0], killPoints[2], killPoints[3], killPoints[4]} // four kinds of work that a recovery can have
			if guard == after {
				moments = guardKillPoints[:3]
			}
			for _, moment := range moments {
				w.cutEverywhere(c, 1, worker, of, 59, func(judge func(*call) answer) (*progress, exited) {
					p := w.interrupted(moment)
					return p, w.run(judge, "recover")
				})
			}
		})
	}
}
