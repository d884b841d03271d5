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

// A power cut loses what was written and not yet made durable. What a disk then
// holds is what has reached the image file below the loop device, so a copy of
// the image at that instant is the filesystem after the cut; the same
// filesystem synced is what it is where the power stays. For ext4 and XFS the
// kernel also cuts off a filesystem on request (cutOff).

// cuts stops nothing by itself: called when the process is dead, it calls try
// for every way in which the filesystems of a host may have lost their unsynced
// writes: each non-empty set of those that had any. try finds them mounted.
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

// cutOff cuts the power of all filesystems at once: ext4 and XFS drop what is
// in memory, the log included (EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN, which
// are one number, with NOLOGFLUSH); of btrfs, which has no such request, the
// image is copied. They are mounted again when it returns.
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

// afterCut is the generation that must be live after a power cut here, "" where
// either may: the commit had its name, and that may have been lost.
func (p *progress) afterCut(lost []string) string {
	if p.committed && !p.durable && slices.Contains(lost, "store") {
		return ""
	}
	return p.expected()
}

// cutEverywhere cuts the power before every changing call of a process, from
// one of them on, in every way, and after its end. begin runs the process, and returns how far one
// before it had come, nil for none.
func (w *world) cutEverywhere(c *tally, from, worker, of, sample int, begin func(judge func(*call) answer) (*progress, exited)) {
	w.Helper()
	everyFrom(from, worker, of, 1, sample, func(n int) bool {
		w.resetImages()
		p := &progress{}
		q, e := begin(killBefore(n, p))
		p.after(q)
		if !e.killed && e.code != 0 {
			w.Fatalf("it was not killed: exit %d: %s", e.code, e.err)
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

// after makes p the progress of a process that began where q had ended.
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

func TestAPowerCutBeforeAnyCallOfARestore(t *testing.T) {
	for _, guard := range guards {
		c := newTally("restore" + guarding(guard) + ", power cut of every set of disks before every call")
		workers(t, func(w *world, worker, of int) {
			w.guard = guard
			w.cutEverywhere(c, w.parting(changes), worker, of, 61, func(judge func(*call) answer) (*progress, exited) {
				return nil, w.restore(judge)
			})
		})
	}
}

func TestAPowerCutOfAllBeforeAnyCallOfARestore(t *testing.T) {
	for _, guard := range guards {
		c := newTally("restore" + guarding(guard) + ", all filesystems shut down before every third call")
		workers(t, func(w *world, worker, of int) {
			w.guard = guard
			everyFrom(w.parting(changes), worker, of, 3, 71, func(n int) bool {
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

// TestAPowerCutBeforeAnyCallOfARecovery has a restore killed, recovers without a
// reboot, kills that, and then cuts the power: of the store alone, too.
func TestAPowerCutBeforeAnyCallOfARecovery(t *testing.T) {
	for _, guard := range guards {
		c := newTally("restore" + guarding(guard) + " killed, then recover, power cut before every call")
		workers(t, func(w *world, worker, of int) {
			w.guard = guard
			moments := []string{crises[0], crises[2], crises[3], crises[4]} // each kind of work that a recovery does
			if guard == after {
				moments = guardings[:3]
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
