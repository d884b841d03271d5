//go:build linux && amd64

package crash

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// failing returns a judge that lets the n-th call that concerns fail, and with
// lasting all further ones too: a disk that has become full, or read-only,
// stays so.
func failing(n int, errno syscall.Errno, lasting bool, concerns func(*call) bool, p *progress) func(*call) answer {
	i := 0
	return func(c *call) answer {
		if concerns(c) {
			if i++; i == n || lasting && i > n {
				if i == n {
					p.end = c.String()
				}
				return answer{errno: errno}
			}
		}
		if c.changes {
			p.note(c)
		}
		return answer{}
	}
}

func changes(c *call) bool { return c.changes }
func reads(c *call) bool   { return !c.changes && c.name != "flock" }

// wants is the generation that an exit code of a restore speaks of: what a
// recovery has to leave.
func (e *exited) wants() string {
	switch e.code {
	case 0, 7:
		return newer
	case 6:
		return ""
	}
	return older
}

// truth says what is wrong with an exit code, given what is live: the table of
// exit codes in docs/operating.md.
func (w *world) truth(e exited) []finding {
	w.Helper()
	live, diff := w.generation()
	wrong := func(format string, args ...any) []finding {
		return []finding{{"wrong", fmt.Sprintf("exit %d, but ", e.code) + fmt.Sprintf(format, args...) + ": " + e.err}}
	}
	switch {
	case e.hung:
		return []finding{{"stuck", "it never ended"}}
	case e.code == 6: // frozen: it says that it does not know
		return nil
	case live == "":
		return []finding{{"mixed", fmt.Sprintf("exit %d, and the volumes are neither all old nor all new:\n%s", e.code, diff)}}
	case e.code == 0, e.code == 7:
		if live != newer {
			return wrong("the data is %s", live)
		}
	case e.code == 1, e.code >= 3 && e.code <= 5, e.code == 64: // 2: snap itself has crashed
		if live != older {
			return wrong("the data is %s", live)
		}
	default:
		return wrong("that is no exit code of a restore")
	}
	return nil
}

const readError = "EIO of a read (of every second)"

func TestAnErrorOfAnyCallOfARestore(t *testing.T) {
	for _, kind := range []struct {
		name     string
		errno    syscall.Errno
		lasting  bool
		concerns func(*call) bool
		stride   int // with make crash
		sample   int // without
	}{
		{"EIO", unix.EIO, false, changes, 1, 43},
		{"ENOSPC", unix.ENOSPC, false, changes, 1, 89},
		{"EDQUOT", unix.EDQUOT, false, changes, 1, 97},
		{"EROFS", unix.EROFS, false, changes, 1, 97},
		{"EPERM", unix.EPERM, false, changes, 1, 97},
		{"EXDEV", unix.EXDEV, false, changes, 1, 97},
		{"EIO from then on", unix.EIO, true, changes, 1, 97},
		{"ENOSPC from then on", unix.ENOSPC, true, changes, 1, 89},
		{"EROFS from then on", unix.EROFS, true, changes, 1, 97},
		{readError, unix.EIO, false, reads, 2, 113},
	} {
		for _, guard := range guards {
			if guard == after && !all && kind.sample > 90 { // a sample of the sample
				continue
			}
			t.Run(kind.name+guarding(guard), func(t *testing.T) {
				c := newTally("restore" + guarding(guard) + ", every call: " + kind.name)
				workers(t, func(w *world, worker, of int) {
					w.reads, w.guard = kind.name == readError, guard
					everyFrom(w.parting(kind.concerns), worker, of, kind.stride, kind.sample, func(n int) bool {
						w.reset()
						p := &progress{}
						e := w.restore(failing(n, kind.errno, kind.lasting, kind.concerns, p))
						found := w.truth(e)
						_, then := w.recovered(p, e.wants())
						c.count(w.T, fmt.Sprintf("%s of %s (exit %d)", kind.name, p.end, e.code), append(found, then...))
						return p.end != ""
					})
				})
			})
		}
	}
}

// TestAnInterruptedCallIsMadeAgain lets every tenth call be interrupted, each
// of them in one of ten runs: nothing may come of it.
func TestAnInterruptedCallIsMadeAgain(t *testing.T) {
	const runs = 10
	c := newTally("restore, EINTR of every call")
	w := newWorld(t, "ext4")
	w.reads = true
	for run := range runs {
		w.reset()
		p := &progress{}
		var hit []string
		i := 0
		e := w.restore(func(c *call) answer {
			if i++; i%runs == run {
				hit = append(hit, general(c.String()))
				return answer{errno: unix.EINTR}
			}
			if c.changes {
				p.note(c)
			}
			return answer{}
		})
		var found []finding
		if e.code != 0 {
			found = append(found, finding{"wrong", fmt.Sprintf("exit %d: %s; the last interrupted calls: %q", e.code, e.err, hit[max(0, len(hit)-3):])})
		}
		if strings.Contains(e.err, "interrupted system call") {
			found = append(found, finding{"wrong", e.err})
		}
		_, after := w.recovered(p, newer)
		c.count(t, fmt.Sprint("run ", run), append(found, after...))
		c.points += len(hit) - 1
	}
}
