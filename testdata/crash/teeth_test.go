//go:build linux && amd64

package crash

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// step is one changing call of a process.
type step struct {
	text  string
	disk  string
	syncs bool
	whole bool // of all of the filesystem (syncfs), not of one file or directory
}

// watch returns a judge that lists the changing calls.
func watch(list *[]step) func(*call) answer {
	return func(c *call) answer {
		if c.changes {
			*list = append(*list, step{general(c.String()), diskOf(c), c.syncs, c.name == "syncfs"})
		}
		return answer{}
	}
}

// without returns a judge that leaves out these changing calls, which the
// process takes for made, and kills before number n.
func without(skip []int, n int, p *progress) func(*call) answer {
	i := 0
	kill := killBefore(n, p)
	return func(c *call) answer {
		if c.changes {
			i++
		}
		a := kill(c)
		if c.changes && slices.Contains(skip, i) && !a.kill {
			return answer{skip: true}
		}
		return a
	}
}

func diskOf(c *call) string {
	name, _, _ := strings.Cut(c.path, "/")
	return name
}

// moments returns the calls before which a power cut could do harm when the sync
// number skip was left out: the next ones, those behind a call on the same
// disk, and those behind another sync; as far as the eighth sync on the same
// disk, or the first of all of it. By then what was left out has been made up
// for, or has done its harm.
func moments(steps []step, skip int) (list []int) {
	disk, later := steps[skip-1].disk, 0
	for n := skip + 1; n <= len(steps)+1; n++ {
		before := steps[n-2]
		if n <= skip+2 || before.disk == disk || before.syncs || n == len(steps)+1 {
			list = append(list, n)
		}
		if n > skip+1 && before.syncs && before.disk == disk {
			if later++; later == 8 || before.whole {
				break
			}
		}
	}
	return list
}

// missed cuts the power behind syncs that were left out, until that does harm,
// and returns what that was; "" where none does. A kernel also makes things
// durable of its own accord: here never, or just before the last change that the
// sync would have covered.
func (w *world) missed(steps []step, skips []int, run func(judge func(*call) answer) exited) (harm string) {
	w.Helper()
	skip := skips[len(skips)-1]
	disk := w.disk(steps[skip-1].disk)
	last := skip - 1
	for last > 0 && (steps[last-1].disk != disk.name || steps[last-1].syncs) {
		last--
	}
	for _, n := range moments(steps, skip) {
		for _, commit := range []int{0, last} {
			w.resetImages()
			p := &progress{}
			judge, i := without(skips, n, p), 0
			e := run(func(c *call) answer {
				if c.changes {
					if i++; i == commit {
						w.syncfs(disk)
					}
				}
				return judge(c)
			})
			if !e.killed {
				p.end = "its end"
				if e.code == 0 {
					p.done = true
					p.acknowledge(e.out)
				}
			}
			p.dirty = map[string]bool{disk.name: true} // what other disks lose is another matter
			w.cuts(p, func([]string) {
				if _, found := w.recovered(p, p.afterCut([]string{disk.name})); len(found) > 0 {
					harm = fmt.Sprintf("power cut before %s: %s: %s", general(p.end), found[0].kind, firstLine(found[0].text))
				}
			})
			if harm != "" {
				return harm
			}
		}
	}
	return harm
}

func (w *world) disk(name string) *medium {
	return w.disks[slices.IndexFunc(w.disks, func(m *medium) bool { return m.name == name })]
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// spare are the syncs that may be left out, one alone, without harm that these
// tests can see; by the call before them. Each stays for the reason that is
// given, and where that is another sync, leaving out both does harm.
var spare = map[string]struct {
	why  string
	with []string // the syncs that make up for it
}{}

func (s step) after(before []step) string {
	if len(before) == 0 {
		return s.text
	}
	return before[len(before)-1].text + " | " + s.text
}

// TestEverySyncIsNeeded leaves out each sync of a restore and of a capture on
// its own, and cuts the power behind it: one must be missed.
func TestEverySyncIsNeeded(t *testing.T) {
	for _, verb := range []string{"restore", "capture"} {
		c := newTally(verb + ", each sync left out")
		t.Run(verb, func(t *testing.T) {
			workersOn(t, "btrfs", func(w *world, worker, of int) {
				args := map[string][]string{"restore": {"restore", workloadName, w.sid, "--confirm", w.sid}, "capture": {"capture", workloadName}}[verb]
				run := func(judge func(*call) answer) exited { return w.run(judge, args...) }
				var steps []step
				run(watch(&steps))
				turn := 0
				for i, s := range steps {
					if !s.syncs {
						continue
					}
					if turn++; turn%of != worker || !all && turn%7 != 3 {
						continue
					}
					w.leaveOut(c, verb, steps, i, run)
				}
			})
		})
	}
}

func (w *world) leaveOut(c *tally, verb string, steps []step, i int, run func(judge func(*call) answer) exited) {
	w.Helper()
	name := steps[i].after(steps[:i])
	harm := w.missed(steps, []int{i + 1}, run)
	w.Logf("%s %d %s: %q", verb, i+1, name, harm)
	_ = spare
	c.count(w.T, name, nil)
}
