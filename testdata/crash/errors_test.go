//go:build linux && amd64

package crash

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// failing returns a judge that makes the n-th of the concerned calls fail. If
// lasting is set, all later ones fail too, as on a disk that stays full or
// read-only.
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

// expected is the generation that the exit code of a restore promises, and that a
// recovery must leave; "" if it promises neither.
func (e *exited) expected() string {
	switch e.code {
	case 0, 7:
		return newer
	case 6:
		return ""
	}
	return older
}

// checkExit compares the exit code of a restore with the live data, by the table of
// exit codes in docs/operating.md.
func (w *world) checkExit(e exited) []finding {
	w.Helper()
	live, diff := w.generation()
	wrong := func(format string, args ...any) []finding {
		return []finding{{"wrong", fmt.Sprintf("exit %d, but ", e.code) + fmt.Sprintf(format, args...) + ": " + e.err}}
	}
	switch {
	case e.hung:
		return []finding{{"stuck", "the restore never ended"}}
	case e.code == 6: // frozen promises neither generation
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
		return wrong("a restore has no such exit code")
	}
	return nil
}

const readError = "EIO of a read (every second read)"

// One call of a restore fails, or all calls from one on: the exit code tells the
// truth about the data, and a recovery agrees with it.
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
			if guard == after && !all && kind.sample > 90 { // a smaller sample
				continue
			}
			t.Run(kind.name+rowSuffix(guard), func(t *testing.T) {
				c := newTally("restore" + rowSuffix(guard) + ", every call: " + kind.name)
				workers(t, func(w *world, worker, of int) {
					w.reads, w.guard = kind.name == readError, guard
					everyFrom(w.firstOwnCall(kind.concerns), worker, of, kind.stride, kind.sample, func(n int) bool {
						w.reset()
						p := &progress{}
						e := w.restore(failing(n, kind.errno, kind.lasting, kind.concerns, p))
						found := w.checkExit(e)
						_, then := w.recovered(p, e.expected())
						c.count(w.T, fmt.Sprintf("%s of %s (exit %d)", kind.name, p.end, e.code), append(found, then...))
						return p.end != ""
					})
				})
			})
		}
	}
}

// Calls are interrupted with EINTR: every tenth call of a run, and every call in
// one of ten runs. The restore succeeds all the same.
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
