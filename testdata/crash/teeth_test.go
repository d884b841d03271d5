//go:build linux && amd64

package crash

import (
	"fmt"
	"strings"
	"testing"
)

// syncCall is one call of a process that makes something durable.
type syncCall struct {
	nth  int // among its syncs, from 1
	at   int // among its changing calls, from 1
	text string
}

// watch returns a judge that lists the syncs.
func watch(list *[]syncCall, total *int) func(*call) answer {
	return func(c *call) answer {
		if c.changes {
			*total++
		}
		if c.syncs {
			*list = append(*list, syncCall{len(*list) + 1, *total, general(c.String())})
		}
		return answer{}
	}
}

// without returns a judge that leaves out the nth sync, which the process takes
// for made, and kills before the n-th changing call.
func without(nth, n int, p *progress) func(*call) answer {
	syncs := 0
	kill := killBefore(n, p)
	return func(c *call) answer {
		if c.syncs {
			syncs++
		}
		clean := p.dirty[diskOf(c)]
		a := kill(c)
		if c.syncs && syncs == nth && !a.kill {
			p.dirty[diskOf(c)] = clean || p.dirty[diskOf(c)]
			return answer{skip: true}
		}
		return a
	}
}

func diskOf(c *call) string {
	name, _, _ := strings.Cut(c.path, "/")
	return name
}

// missed tries every power cut behind a sync that was left out, until one does
// harm, and returns what that was; "" where none does.
func (w *world) missed(s syncCall, syncs []syncCall, total int, run func(judge func(*call) answer) exited) string {
	w.Helper()
	name, _, _ := strings.Cut(strings.Fields(s.text)[1], "/")
	harm := ""
	for n := s.at + 1; n <= total+1 && harm == ""; n++ {
		w.resetImages()
		p := &progress{}
		e := run(without(s.nth, n, p))
		if !e.killed {
			p.end = "its end"
			if e.code == 0 {
				p.acknowledge(e.out)
			}
		}
		w.cuts(p, func(lost []string) {
			if harm != "" {
				return
			}
			if _, found := w.recovered(p, p.afterCut(lost)); len(found) > 0 {
				harm = fmt.Sprintf("power cut of %s before %s: %s: %s", strings.Join(lost, ", "), general(p.end), found[0].kind, firstLine(found[0].text))
			}
		})
		// From the next sync of the whole filesystem on all is well again.
		for _, later := range syncs[s.nth:] {
			if later.at == n && later.text[:6] == "syncfs" && strings.HasPrefix(strings.Fields(later.text)[1]+"/", name+"/") {
				return harm
			}
		}
	}
	return harm
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func TestEverySyncIsNeeded(t *testing.T) {
	for verb, args := range map[string]func(w *world) []string{
		"restore": func(w *world) []string { return []string{"restore", workloadName, w.sid, "--confirm", w.sid} },
		"capture": func(*world) []string { return []string{"capture", workloadName} },
	} {
		t.Run(verb, func(t *testing.T) {
			workers(t, func(w *world, worker, of int) {
				run := func(judge func(*call) answer) exited { return w.run(judge, args(w)...) }
				var syncs []syncCall
				total := 0
				run(watch(&syncs, &total))
				for i, s := range syncs {
					if i%of != worker {
						continue
					}
					harm := w.missed(s, syncs, total, run)
					w.Logf("%s %d %s: %s", verb, s.nth, s.text, harm)
				}
			})
		})
	}
}
