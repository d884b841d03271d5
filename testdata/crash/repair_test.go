//go:build linux && amd64

package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// spoiled is what becomes of the members of a snapshot before a repair.
type spoiled struct {
	kept string            // the snapshot of the live data
	good map[string]string // file of a member → its content
	bad  map[string]string // the same after the damage; what is gone is not in it
}

// spoil captures the live data, and damages each member of the snapshot in one of three
// ways.
func (w *world) spoil() spoiled {
	w.Helper()
	s := spoiled{kept: w.capture()}
	s.good = w.memberFiles()
	list, err := w.snapshots()
	w.must(err)
	n := 0
	for i := range list {
		if list[i].SID != s.kept {
			continue
		}
		for id := range list[i].members() {
			file := filepath.Join(w.store(), "members", id[:2], id+".gz")
			data := []byte(s.good[file])
			switch n++; n % 3 {
			case 0:
				w.must(os.Remove(file))
			case 1:
				data[len(data)/2] ^= 1
				w.must(os.WriteFile(file, data, 0o600))
			case 2:
				w.must(os.WriteFile(file, data[:len(data)/2], 0o600))
			}
		}
	}
	if n < 6 {
		w.Fatalf("only %d members were damaged", n)
	}
	s.bad = w.memberFiles()
	w.saveAgain()
	return s
}

// memberFiles is what lies in the folder of members.
func (w *world) memberFiles() map[string]string {
	w.Helper()
	files, err := filepath.Glob(filepath.Join(w.store(), "members/*/*"))
	w.must(err)
	found := map[string]string{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		w.must(err)
		found[file] = string(data)
	}
	return found
}

// halfway returns what is wrong after a repair that was cut: each member is as it was, or
// whole.
func (w *world) halfway(s spoiled) (found []finding) {
	w.Helper()
	now := w.memberFiles()
	for file, good := range s.good {
		if now[file] != good && now[file] != s.bad[file] {
			found = append(found, finding{"lost", fmt.Sprintf("%s has %d bytes of neither", file, len(now[file]))})
		}
		delete(now, file)
	}
	for file := range now {
		found = append(found, finding{"stuck", "left over: " + file})
	}
	return found
}

// repairAgain repairs what a repair that was cut has left. Then everything is as if nothing
// had ever been damaged.
func (w *world) repairAgain(p *progress) (found []finding) {
	w.Helper()
	if e := w.run(nil, "verify", "--read-data", "--repair"); e.code != 0 {
		found = append(found, finding{"stuck", "the next repair: " + e.out + e.err})
	}
	_, then := w.recovered(p, older)
	if e := w.run(nil, "verify", "--read-data"); e.code != 0 {
		found = append(found, finding{"lost", e.out + e.err})
	}
	return append(found, then...)
}

// A repair is killed before each changing call: each member is as it was, or whole, and the
// next repair heals the rest.
func TestARepairKilledBeforeAnyCall(t *testing.T) {
	c := newTally("verify --repair, killed before every call")
	workers(t, func(w *world, worker, of int) {
		s := w.spoil()
		points(worker, of, 7, func(n int) bool {
			w.reset()
			p := &progress{acked: []string{s.kept}}
			e := w.run(killBefore(n, p), "verify", "--read-data", "--repair")
			found := w.halfway(s)
			if !e.killed && (e.code != 0 || !strings.Contains(e.out, "repaired: ")) {
				found = append(found, finding{"wrong", fmt.Sprintf("exit %d: %s%s", e.code, e.out, e.err)})
			}
			c.count(w.T, "killed before "+p.end, append(found, w.repairAgain(p)...))
			return e.killed
		})
	})
}

// The power of every set of disks is cut before each changing call of a repair, with the
// store on btrfs, where a sync makes durable what it names and little else. After exit 0
// all is whole.
func TestAPowerCutBeforeAnyCallOfARepair(t *testing.T) {
	c := newTally("verify --repair, power cut before every call")
	workersOn(t, "btrfs", func(w *world, worker, of int) {
		s := w.spoil()
		points(worker, of, 13, func(n int) bool {
			w.resetImages()
			p := &progress{acked: []string{s.kept}}
			e := w.run(killBefore(n, p), "verify", "--read-data", "--repair")
			if !e.killed {
				p.end = "its end"
			}
			w.cuts(p, func(lost []string) {
				found := w.halfway(s)
				if v := w.run(nil, "verify", "--read-data"); !e.killed && v.code != 0 {
					found = append(found, finding{"lost", "exit 0, and then: " + v.out + v.err})
				}
				c.count(w.T, fmt.Sprintf("power cut of %s before %s", strings.Join(lost, ", "), p.end), append(found, w.repairAgain(p)...))
			})
			return e.killed
		})
	})
}
