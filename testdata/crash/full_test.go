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

// fillUp takes the last free block, or the last free inode, of a filesystem.
func (w *world) fillUp(m *medium, inodes bool) {
	w.Helper()
	dir := filepath.Join(m.point, "ballast")
	w.must(os.Mkdir(dir, 0o700))
	if inodes {
		w.takeNames(dir, 0, 1<<20)
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
	// What takes no whole block: small files in the metadata of btrfs.
	w.takeNames(dir, 2000, 5000)
}

// takeNames makes files of that many bytes until there is no room, at most so
// many.
func (w *world) takeNames(dir string, size, most int) {
	w.Helper()
	for i := range most {
		err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), make([]byte, size), 0o600)
		if errors.Is(err, unix.ENOSPC) {
			return
		}
		w.must(err)
	}
}

func TestAFullDiskAtAnyStageOfARestore(t *testing.T) {
	for _, guard := range guards {
		c := newTally("restore" + guarding(guard) + ", a disk filled to the last block or inode before a call")
		workers(t, func(w *world, worker, of int) {
			w.guard = guard
			from := w.parting(changes)
			for _, disk := range w.disks {
				for _, inodes := range []bool{false, true} {
					if inodes && disk.kind != "ext4" { // the others make inodes of blocks
						continue
					}
					if guard == after && !all && (inodes || disk.name != "store") { // a sample of the sample
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

// fullAt fills a disk before the n-th changing call of a restore, which ends
// by itself; it and the recovery have to do with a disk that stays full.
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
	found := w.truth(e)
	if e.code == 6 {
		found = append(found, finding{"stuck", "frozen, for want of space: " + e.err})
	}
	if w.guard == after && p.committed && disk.name == "store" {
		found = append(found, w.waitsForRoom(p)...)
		w.must(os.RemoveAll(filepath.Join(disk.point, "ballast")))
	}
	_, then := w.recovered(p, e.wants())
	w.must(os.RemoveAll(filepath.Join(disk.point, "ballast")))
	c.count(w.T, fmt.Sprintf("%s full (inodes: %t) before %s (exit %d)", disk.name, inodes, p.end, e.code), append(found, then...))
	return p.end != ""
}

// waitsForRoom recovers a committed restore that guards after while the store
// is full: there may be no room for the snapshot of the old data, which is then
// kept.
func (w *world) waitsForRoom(p *progress) (found []finding) {
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
