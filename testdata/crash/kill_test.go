//go:build linux && amd64

package crash

import (
	"strings"
	"testing"
)

// points calls try for n = 1, 2, … until it returns false, that is, until a
// process ends before it makes its n-th call. The workers take turns. Without
// `make crash` only every sample-th is tried.
func points(worker, of, sample int, try func(n int) bool) { every(worker, of, 1, sample, try) }

// every is points that tries every stride-th even with `make crash`.
func every(worker, of, stride, sample int, try func(n int) bool) {
	everyFrom(1, worker, of, stride, sample, try)
}

// everyFrom is every that begins with another number.
func everyFrom(from, worker, of, stride, sample int, try func(n int) bool) {
	if !all {
		stride = sample
	}
	for n := from + worker*stride; try(n); n += of * stride {
	}
}

// parting is the number of the call, of those that concern, at which a restore
// goes another way than one that guards before: what comes first the tests of
// that one have tried. 1 for that one itself.
func (w *world) parting(concerns func(*call) bool) int {
	w.Helper()
	if w.guard == before {
		return 1
	}
	n, found := 0, 0
	w.reset()
	w.restore(func(c *call) answer {
		if concerns(c) {
			n++
		}
		if found == 0 && strings.HasPrefix(general(c.String()), crises[0]) {
			found = n
		}
		return answer{}
	})
	if found == 0 {
		w.Fatalf("there is no call %q", crises[0])
	}
	return found
}

// killBefore returns a judge that kills before the n-th changing call, and
// notes those before it.
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

// killAt returns a judge that kills before the first changing call whose
// description begins so; a $ is its end.
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

// expected is the generation that must be live when the process was killed here.
func (p *progress) expected() string {
	if p.committed {
		return newer
	}
	return older
}

func TestARestoreKilledBeforeAnyCall(t *testing.T) {
	for _, guard := range guards {
		c := newTally("restore" + guarding(guard) + ", killed before every call")
		workers(t, func(w *world, worker, of int) {
			w.guard = guard
			points(worker, of, 23, func(n int) bool {
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
		})
	}
}

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

// crises are calls before which a restore is killed so that its recovery has
// something to do: one of each kind.
var crises = []string{
	"renameat store/state/tx/ID/ready.tmp",                 // staged, nothing recorded
	"openat2 store/s/snapshots/app/ID/manifest.json.tmp",   // a snapshot half published
	"renameat2 v1/data",                                    // one of three exchanged
	"renameat store/state/tx/ID/commit.tmp",                // all exchanged, not committed
	"renameat2 v0/.snap-ID/0 → v0/.snap-ID/0.trash",        // committed
	"unlinkat v1/.snap-ID/1.trash/generation",              // the displaced trees half deleted
	"renameat store/state/tx/ID → store/state/tx/.done-ID", // all done but the record of it
}

// guardings are those of a restore that guards after, from the commit on.
var guardings = []string{
	"renameat store/state/tx/ID/guarding.tmp",            // committed
	"openat2 store/s/snapshots/app/ID/manifest.json.tmp", // guarding, a snapshot half published
	"fsync store/s/snapshots/app/ID$",                    // published, but that not synced
	"unlinkat v1/.snap-ID/1.trash/generation",            // guarded, the displaced trees half deleted
}

func TestARecoveryKilledBeforeAnyCall(t *testing.T) {
	for _, guard := range guards {
		c := newTally("recover" + guarding(guard) + ", killed before every call")
		workers(t, func(w *world, worker, of int) {
			w.guard = guard
			for _, moment := range map[string][]string{before: crises, after: guardings}[guard] {
				points(worker, of, map[string]int{before: 29, after: 53}[guard], func(n int) bool {
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
		})
	}
}

// interrupted kills a restore before a moment of its.
func (w *world) interrupted(moment string) *progress {
	w.Helper()
	p := &progress{}
	if e := w.restore(killAt(moment, p)); !e.killed {
		w.Fatalf("the restore never came to %q: exit %d: %s", moment, e.code, e.err)
	}
	return p
}
