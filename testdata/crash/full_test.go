//go:build linux && amd64

package crash

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fillUp takes all free blocks, or all free inodes, of a filesystem.
func (w *world) fillUp(m *medium, inodes bool) {
	w.Helper()
	dir := filepath.Join(m.point, "ballast")
	w.must(os.Mkdir(dir, 0o700))
	if inodes {
		w.fillWithFiles(dir, 0, 1<<20)
		return
	}
	file, err := os.Create(filepath.Join(dir, "blocks"))
	w.must(err)
	defer file.Close()
	end := int64(0)
	for step := int64(64 << 20); step >= 4096; {
		err := unix.Fallocate(int(file.Fd()), 0, end, step)
		switch {
		case err == nil:
			end += step
		case errors.Is(err, unix.ENOSPC):
			step /= 2
		default:
			w.must(err)
		}
	}
	// Small files still fit into the metadata of btrfs without a block of their own.
	w.fillWithFiles(dir, 2000, 5000)
}

// fillWithFiles creates files of this size until there is no space left, at most
// this many.
func (w *world) fillWithFiles(dir string, size, most int) {
	w.Helper()
	for i := range most {
		err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), make([]byte, size), 0o600)
		if errors.Is(err, unix.ENOSPC) {
			return
		}
		w.must(err)
	}
}

// A disk fills up to its last block or inode at any stage of a restore. The exit
// code tells the truth, and recovery works although the disk stays full.
func TestAFullDiskAtAnyStageOfARestore(t *testing.T) {
	for _, guard := range guards {
		c := newTally("restore" + rowSuffix(guard) + ", a disk filled to the last block or inode before a call")
		workers(t, func(w *world, worker, of int) {
			w.guard = guard
			from := w.firstOwnCall(changes)
			for _, disk := range w.disks {
				for _, inodes := range []bool{false, true} {
					if inodes && disk.kind != "ext4" { // the others allocate inodes on demand
						continue
					}
					if guard == after && !all && (inodes || disk.name != "store") { // a smaller sample
						continue
					}
					everyFrom(from, worker, of, 11, 131, func(n int) bool {
						return w.fullAt(c, disk, inodes, n)
					})
				}
			}
		})
	}
}

// fullAt fills a disk before the n-th changing call of a restore and lets the
// restore end. The disk stays full during the recovery.
func (w *world) fullAt(c *tally, disk *medium, inodes bool, n int) bool {
	w.reset()
	p := &progress{}
	i := 0
	e := w.restore(func(c *call) answer {
		if c.changes {
			if i++; i == n {
				p.end = c.String()
				w.fillUp(disk, inodes)
			}
			p.note(c)
		}
		return answer{}
	})
	found := w.checkExit(e)
	if e.code == 6 {
		found = append(found, finding{"stuck", "frozen for lack of space: " + e.err})
	}
	if w.guard == after && p.committed && disk.name == "store" {
		found = append(found, w.recoverWithFullStore(p)...)
		w.must(os.RemoveAll(filepath.Join(disk.point, "ballast")))
	}
	_, then := w.recovered(p, e.expected())
	w.must(os.RemoveAll(filepath.Join(disk.point, "ballast")))
	c.count(w.T, fmt.Sprintf("%s full (inodes: %t) before %s (exit %d)", disk.name, inodes, p.end, e.code), append(found, then...))
	return p.end != ""
}

// recoverWithFullStore recovers a committed restore with --guard after while the
// store is full. If there is no space for the snapshot of the old data, the old
// trees must stay.
func (w *world) recoverWithFullStore(p *progress) (found []finding) {
	w.Helper()
	e := w.run(nil, "recover", "--json")
	if e.code != 0 && (e.code != 7 || !strings.Contains(e.out, `"code":"guarding"`)) {
		found = append(found, finding{"stuck", fmt.Sprintf("recover, with the store full: exit %d: %s", e.code, e.out)})
	}
	if err := w.safe(); err != nil && !p.ended {
		found = append(found, finding{"lost", fmt.Sprintf("with the store full: %v", err)})
	}
	return found
}
