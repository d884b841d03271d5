//go:build linux && amd64

package crash

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// step is one changing call of a process.
type step struct {
	text  string
	disk  string
	syncs bool
	whole bool // syncs a whole filesystem (syncfs), not one file or directory
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

// without returns a judge that skips these changing calls, so that they seem to
// succeed, and kills the process before call n.
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

// moments returns the calls before which a power cut could do harm if call skip, a
// sync, was left out: the next two, each call after one on the same disk, and each
// call after another sync. The list ends at the tenth later sync on the same disk,
// or at the first syncfs of it: by then other syncs have made up for the missing
// one, or it has done its harm.
func moments(steps []step, skip int) (list []int) {
	disk, later := steps[skip-1].disk, 0
	for n := skip + 1; n <= len(steps)+1; n++ {
		before := steps[n-2]
		if n <= skip+2 || before.disk == disk || before.syncs || n == len(steps)+1 {
			list = append(list, n)
		}
		if n > skip+1 && before.syncs && before.disk == disk {
			if later++; later == 10 || before.whole {
				break
			}
		}
	}
	return list
}

// harmWithout leaves out these syncs and cuts the power at each later moment that
// matters. It returns the first harm, or "" if there is none. A kernel may also make
// writes durable by itself; here it never does, or just before the last change that
// the sync would have covered.
func (w *world) harmWithout(steps []step, skips []int, run func(judge func(*call) answer) exited) (harm string) {
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
			p.dirty = map[string]bool{disk.name: true} // losses of other disks are not tested here
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

// spare are the syncs that can be left out one at a time without visible harm. A
// key has the verb, the call, and its number among such calls; "after" is a
// restore with --guard after. Each sync stays for the given reason. If the reason is
// other syncs, leaving all of them out does harm.
var spare = map[string]struct {
	why  string
	with []string // other syncs that make up for it
}{
	"restore fsync store/state/tx/.new-ID 1": {why: parentToo},
	"restore fsync store/state/tx/.new-ID 2": {why: parentToo},
	"capture fsync store/state/tx/.new-ID 1": {why: parentToo},
	"restore fsync store/s/snapshots/app 1":  {why: parentToo},
	"capture fsync store/s/snapshots/app 1":  {why: parentToo},

	"restore fsync store/state/tx 2": {why: endsAgain},
	"capture fsync store/state/tx 2": {why: endsAgain},
	"capture fsync store/state/tx 1": {why: "the record tells a recovery which app to thaw; this world has no app"},

	"restore fsync store/state/tx/.new-ID/commit.tmp 1": {
		"publishing the pre-restore snapshot syncs all of the store before the commit",
		[]string{"restore syncfs store/s/scratch/ID 1", "restore syncfs store/s/members 1"},
	},
	"restore fsync store/state/tx/.new-ID/revert.tmp 1": {why: "the same, before the revert; this world has no app that could be unhealthy"},
	"restore fsync store/state/tx/ID 1": {
		"the sync after the times record covers the same directory before the first exchange; until then, ready is needed for the restart policies",
		[]string{"restore fsync store/state/tx/ID 2"},
	},
	"restore syncfs store/s/scratch/ID 1": {why: "the syncfs of the publication does the same, but while the app is down"},
	"restore syncfs store/s/scratch/ID 2": {why: contentFirst},
	"capture syncfs store/s/scratch/ID 1": {why: contentFirst},

	"restore syncfs v0/.snap-ID/0 1": {stagedEarly, []string{"restore syncfs v0/data 1", "restore syncfs v0 2", "restore syncfs v0 3"}},
	"restore syncfs v1/.snap-ID/1 1": {stagedEarly, []string{"restore syncfs v1/data 1", "restore syncfs v1 2", "restore syncfs v1 3"}},
	"restore syncfs v2/.snap-ID/2 1": {stagedEarly, []string{"restore syncfs v2/data 1", "restore syncfs v2 2", "restore syncfs v2 3"}},
	"restore syncfs v0/data 1":       {why: provesOnly},
	"restore syncfs v1/data 1":       {why: provesOnly},
	"restore syncfs v2/data 1":       {why: provesOnly},
	"capture syncfs v0/data 1":       {why: provesOnly},
	"capture syncfs v1/data 1":       {why: provesOnly},
	"capture syncfs v2/data 1":       {why: provesOnly},
	"restore syncfs v0 2":            {why: exchangedAgain},
	"restore syncfs v2 2":            {why: exchangedAgain},
	"restore syncfs v0 3":            {why: unknownBefore},
	"restore syncfs v1 3":            {why: unknownBefore},
	"restore syncfs v2 3":            {why: unknownBefore},
	"restore syncfs v0 4":            {why: inOrder},
	"restore syncfs v1 4":            {why: inOrder},
	"restore syncfs v2 4":            {why: inOrder},

	"after fsync store/state/tx/.new-ID 1":            {why: parentToo},
	"after fsync store/state/tx/.new-ID 2":            {why: parentToo},
	"after fsync store/s/snapshots/app 1":             {why: parentToo},
	"after fsync store/state/tx 2":                    {why: endsAgain},
	"after fsync store/state/tx 4":                    {why: endsAgain + "; with --guard before, it comes back without its decisions"},
	"after fsync store/state/tx/.new-ID/revert.tmp 1": {why: "this world has no app that could be unhealthy"},
	"after fsync store/state/tx/ID 1": {
		"as for a restore with --guard before",
		[]string{"after fsync store/state/tx/ID 2"},
	},
	"after fsync store/state/tx/ID 4":   {why: "the guarding record says that the app was up; this world has no app"},
	"after syncfs store/s/scratch/ID 1": {why: contentFirst},
	"after syncfs v0/.snap-ID/0 1":      {stagedEarly, []string{"after syncfs v0 2", "after syncfs v0 3"}},
	"after syncfs v1/.snap-ID/1 1":      {stagedEarly, []string{"after syncfs v1 2", "after syncfs v1 3"}},
	"after syncfs v2/.snap-ID/2 1":      {stagedEarly, []string{"after syncfs v2 2", "after syncfs v2 3"}},
	"after syncfs v0/.snap-ID/0 2":      {why: provesOnly},
	"after syncfs v1/.snap-ID/1 2":      {why: provesOnly},
	"after syncfs v2/.snap-ID/2 2":      {why: provesOnly},
	"after syncfs v0 2":                 {why: exchangedAgain},
	"after syncfs v2 2":                 {why: exchangedAgain},
	"after syncfs v0 3":                 {why: unknownBefore},
	"after syncfs v1 3":                 {why: unknownBefore},
	"after syncfs v2 3":                 {why: unknownBefore},
	"after syncfs v0 4":                 {why: inOrder},
	"after syncfs v1 4":                 {why: inOrder},
	"after syncfs v2 4":                 {why: inOrder},
}

const (
	parentToo      = "on the filesystems at hand the next sync makes these names durable too, but fsync(2) promises only the directory itself"
	endsAgain      = "a transaction that comes back whole is ended again"
	contentFirst   = "a kernel may make names durable before content; these tests cannot make it do so"
	stagedEarly    = "the sync after the exchange does the same, but while the app is down, and a failing disk would be noticed only then"
	provesOnly     = "it is for the times of mapped files, not for the disk; TestTwoPassesGiveTheFrozenTree fails without it"
	exchangedAgain = "recovery repeats a committed exchange that was lost, as long as the staged tree is on disk"
	unknownBefore  = "a recovery takes this step too, and does not know what the dead process had synced"
	inOrder        = "the filesystems at hand make names durable in order; a partial tree must not come back under its own name"
)

// keys returns the number of each sync in the list of steps, by its key in spare.
func keys(verb string, steps []step) map[string]int {
	count, names := map[string]int{}, map[string]int{}
	for i, s := range steps {
		if s.syncs {
			count[s.text]++
			names[fmt.Sprintf("%s %s %d", verb, s.text, count[s.text])] = i + 1
		}
	}
	return names
}

// Each sync of a restore and of a capture is left out in turn, and the power is cut
// afterwards. That must do harm, unless spare says why it does none.
func TestEverySyncIsNeeded(t *testing.T) {
	for _, one := range []struct {
		verb, name string
		sample     int // without `make crash`
	}{{"restore", "restore", 9}, {"after", "restore" + rowSuffix(after), 50}, {"capture", "capture", 9}} {
		verb := one.verb
		c := newTally(one.name + ", each sync left out in turn")
		workersOn(t, "btrfs", func(w *world, worker, of int) {
			if verb == "after" {
				w.guard = after
			}
			run := func(judge func(*call) answer) exited {
				if verb == "capture" {
					return w.run(judge, "capture", workloadName)
				}
				return w.restore(judge)
			}
			var steps []step
			run(watch(&steps))
			names := keys(verb, steps)
			for turn, name := range slices.Sorted(maps.Keys(names)) {
				if turn%of != worker || !all && turn%one.sample != 4 {
					continue
				}
				c.count(w.T, name, w.leaveOut(name, names, steps, run))
			}
			for name := range spare {
				if strings.HasPrefix(name, verb) && names[name] == 0 {
					w.Errorf("spare has %q, but there is no such sync", name)
				}
			}
		})
	}
}

// leaveOut leaves out one sync, or one of spare together with those that make up
// for it, and finds fault if that does no harm.
func (w *world) leaveOut(name string, names map[string]int, steps []step, run func(judge func(*call) answer) exited) []finding {
	w.Helper()
	skips := []int{names[name]}
	known, ok := spare[name]
	for _, other := range known.with {
		skips = append(skips, names[other])
	}
	if ok && len(skips) == 1 {
		w.Logf("%s: no harm expected: %s", name, known.why)
		return nil
	}
	harm := w.harmWithout(steps, skips, run)
	w.Logf("%s: %s", name, harm)
	if harm == "" {
		return []finding{{"wrong", fmt.Sprintf("leaving it out, together with %q, does no harm", known.with)}}
	}
	return nil
}
