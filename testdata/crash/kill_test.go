//go:build linux && amd64

package crash

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// points calls try for n = 1, 2, … until it returns false, that is, until a process
// ends before its n-th call. The workers take turns. Without `make crash` it tries
// only every sample-th n.
func points(worker, of, sample int, try func(n int) bool) { every(worker, of, 1, sample, try) }

// every is like points, but tries only every stride-th n with `make crash` too.
func every(worker, of, stride, sample int, try func(n int) bool) {
	everyFrom(1, worker, of, stride, sample, try)
}

// everyFrom is like every, but begins at another n.
func everyFrom(from, worker, of, stride, sample int, try func(n int) bool) {
	if !all {
		stride = sample
	}
	for n := from + worker*stride; try(n); n += of * stride {
	}
}

// firstOwnCall returns the number of the concerned call at which a restore with
// --guard after begins to differ from one with --guard before. The tests of the
// latter, for which it returns 1, cover the calls up to there.
func (w *world) firstOwnCall(concerns func(*call) bool) int {
	w.Helper()
	if w.guard == before {
		return 1
	}
	w.reset()
	return w.ownCall(concerns)
}

// ownCall is firstOwnCall of a world that has been reset, for --guard after.
func (w *world) ownCall(concerns func(*call) bool) int {
	w.Helper()
	n, found := 0, 0
	w.restore(func(c *call) answer {
		if concerns(c) {
			n++
		}
		if found == 0 && strings.HasPrefix(general(c.String()), killPoints[0]) {
			found = n
		}
		return answer{}
	})
	if found == 0 {
		w.Fatalf("the restore made no call %q", killPoints[0])
	}
	return found
}

// killBefore returns a judge that kills the process before its n-th changing call,
// and notes the calls before that.
func killBefore(n int, p *progress) func(*call) answer {
	i := 0
	return func(c *call) answer {
		if !c.changes {
			return answer{}
		}
		if i++; i == n {
			p.end = c.String()
			return answer{kill: true}
		}
		p.note(c)
		return answer{}
	}
}

// killAt returns a judge that kills the process before the first changing call
// whose description has this prefix. A $ stands for the end of the description.
func killAt(prefix string, p *progress) func(*call) answer {
	return func(c *call) answer {
		if !c.changes {
			return answer{}
		}
		if strings.HasPrefix(general(c.String())+"$", prefix) {
			p.end = c.String()
			return answer{kill: true}
		}
		p.note(c)
		return answer{}
	}
}

func (w *world) restore(judge func(*call) answer) exited {
	w.Helper()
	return w.run(judge, "restore", workloadName, w.sid, "--confirm", w.sid, "--guard", w.guard)
}

// expected is the generation that recovery must leave after a kill here.
func (p *progress) expected() string {
	if p.committed {
		return newer
	}
	return older
}

// A restore is killed before each changing call: all volumes old before the commit,
// all new after it.
func TestARestoreKilledBeforeAnyCall(t *testing.T) {
	for _, guard := range guards {
		c := newTally("restore" + rowSuffix(guard) + ", killed before every call")
		workers(t, func(w *world, worker, of int) {
			w.guard = guard
			w.killRestore(c, worker, of, 23)
		})
	}
}

// A capture is killed before each changing call: the data is unchanged, and every
// acknowledged snapshot exists.
func TestACaptureKilledBeforeAnyCall(t *testing.T) {
	c := newTally("capture, killed before every call")
	workers(t, func(w *world, worker, of int) {
		points(worker, of, 23, func(n int) bool {
			w.reset()
			p := &progress{}
			e := w.run(killBefore(n, p), "capture", workloadName)
			if e.code == 0 {
				p.acked = append(p.acked, strings.TrimSpace(e.out))
			} else if !e.killed {
				w.Fatalf("a capture that was not killed: exit %d: %s", e.code, e.err)
			}
			_, found := w.recovered(p, older)
			c.count(w.T, "killed before "+p.end, found)
			return e.killed
		})
	})
}

// killPoints are calls before which a restore is killed to test its recovery: one
// for each kind of work that a recovery can have.
var killPoints = []string{
	"renameat store/state/tx/ID/ready.tmp",                 // staged, ready not yet recorded
	"openat2 store/s/snapshots/app/ID/manifest.json.tmp",   // a snapshot half published
	"renameat2 v1/data",                                    // one of three volumes exchanged
	"renameat store/state/tx/ID/commit.tmp",                // all exchanged, not committed
	"renameat2 v0/.snap-ID/0 → v0/.snap-ID/0.trash",        // committed
	"unlinkat v1/.snap-ID/1.trash/generation",              // the displaced trees half deleted
	"renameat store/state/tx/ID → store/state/tx/.done-ID", // all done, transaction not yet ended
}

// guardKillPoints are the same for --guard after, from the commit on.
var guardKillPoints = []string{
	"renameat store/state/tx/ID/guarding.tmp",            // committed
	"openat2 store/s/snapshots/app/ID/manifest.json.tmp", // guarding, a snapshot half published
	"fsync store/s/snapshots/app/ID$",                    // published, but not yet synced
	"unlinkat v1/.snap-ID/1.trash/generation",            // guarded, the displaced trees half deleted
}

// A recovery is killed before each changing call. The next one ends in the same
// direction.
func TestARecoveryKilledBeforeAnyCall(t *testing.T) {
	for _, guard := range guards {
		c := newTally("recover" + rowSuffix(guard) + ", killed before every call")
		workers(t, func(w *world, worker, of int) {
			w.guard = guard
			for _, moment := range map[string][]string{before: killPoints, after: guardKillPoints}[guard] {
				w.killRecovery(c, moment, worker, of, map[string]int{before: 29, after: 53}[guard])
			}
		})
	}
}

// The power goes after the first of three exchanges. Before a recovery runs, somebody
// writes to the volume that has the new data. The recovery is killed before each changing
// call: what was written is in a snapshot.
func TestWhatIsWrittenBeforeARecoveryIsKept(t *testing.T) {
	c := newTally("recover of new data that was written to, killed before every call")
	workers(t, func(w *world, worker, of int) {
		points(worker, of, 37, func(n int) bool {
			w.reset()
			p := w.interrupted(killPoints[2])
			w.writeToNew()
			defer func() { w.written = nil }()
			e := w.run(killBefore(n, p), "recover")
			if !e.killed && e.code != 0 {
				w.Fatalf("a recovery that was not killed: exit %d: %s", e.code, e.err)
			}
			_, found := w.recovered(p, older)
			if !e.killed && !strings.Contains(e.out, "the data that was taken away is snapshot ") {
				found = append(found, finding{"wrong", "the recovery does not name the snapshot: " + e.out})
			}
			c.count(w.T, "recover killed before "+p.end, append(found, w.lacksWritten()...))
			return e.killed
		})
	})
}

// writeToNew changes the new tree of v0, which is live.
func (w *world) writeToNew() {
	w.Helper()
	live := w.volumes()[0].live
	f, err := os.OpenFile(filepath.Join(live, "large"), os.O_WRONLY, 0)
	w.must(err)
	_, err = f.WriteAt([]byte("written late"), 1000)
	w.must(errors.Join(err, f.Close(), os.Remove(filepath.Join(live, "dir", newer)), os.WriteFile(filepath.Join(live, "late"), []byte("x"), 0o600)))
	tree := disktest.Tree(w.T, live)
	tree[0] = w.states[newer][0][0] // an exchange may change the time of the root
	w.written = append([][]string{tree}, w.states[newer][1:]...)
}

// lacksWritten returns what is wrong unless exactly one snapshot has what was written.
func (w *world) lacksWritten() []finding {
	w.Helper()
	list, err := w.snapshots()
	w.must(err)
	list = slices.DeleteFunc(list, func(s snapshot) bool { return w.holds(s, w.written) != nil })
	if len(list) != 1 {
		return []finding{{"lost", fmt.Sprintf("%d snapshots have what was written to the new data", len(list))}}
	}
	return nil
}

// killRestore kills a restore before each changing call.
func (w *world) killRestore(c *tally, worker, of, sample int) {
	w.Helper()
	points(worker, of, sample, func(n int) bool {
		w.reset()
		p := &progress{}
		e := w.restore(killBefore(n, p))
		if !e.killed && e.code != 0 {
			w.Fatalf("a restore that was not killed: exit %d: %s", e.code, e.err)
		}
		_, found := w.recovered(p, p.expected())
		c.count(w.T, "killed before "+p.end, found)
		return e.killed
	})
}

// killRecovery interrupts a restore at a moment, and kills its recovery before each
// changing call.
func (w *world) killRecovery(c *tally, moment string, worker, of, sample int) {
	w.Helper()
	points(worker, of, sample, func(n int) bool {
		w.reset()
		p := w.interrupted(moment)
		e := w.run(killBefore(n, p), "recover")
		if !e.killed && e.code != 0 {
			w.Fatalf("a recovery that was not killed: exit %d: %s", e.code, e.err)
		}
		_, found := w.recovered(p, p.expected())
		c.count(w.T, "restore killed before "+moment+", recover before "+p.end, found)
		return e.killed
	})
}

// interrupted runs a restore and kills it before this call.
func (w *world) interrupted(moment string) *progress {
	w.Helper()
	p := &progress{}
	if e := w.restore(killAt(moment, p)); !e.killed {
		w.Fatalf("the restore never reached %q: exit %d: %s", moment, e.code, e.err)
	}
	return p
}
