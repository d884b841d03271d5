//go:build linux && amd64

package crash

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// former is the name that the workload had.
const former = "former"

// A rename is killed before each changing call: all snapshots are under the one name or
// under the other, whole, and the same rename again does the rest.
func TestARenameKilledBeforeAnyCall(t *testing.T) {
	c := newTally("rename, killed before every call")
	workers(t, func(w *world, worker, of int) {
		other := w.formerly()
		points(worker, of, 5, func(n int) bool {
			w.reset()
			p, killed := w.renaming(n, other)
			c.count(w.T, "killed before "+p.end, w.renamed(p, other))
			return killed
		})
	})
}

// The same holds after a power cut before each changing call, and after the end.
func TestAPowerCutBeforeAnyCallOfARename(t *testing.T) {
	c := newTally("rename, power cut before every call")
	workersOn(t, "btrfs", func(w *world, worker, of int) {
		other := w.formerly()
		points(worker, of, 9, func(n int) bool {
			w.resetImages()
			p, killed := w.renaming(n, other)
			w.cuts(p, func(lost []string) {
				var found []finding
				if _, err := os.Stat(w.manifestPath(w.sid)); !killed && err != nil {
					found = append(found, finding{"lost", "exit 0, and after a power cut the snapshots have the old name"})
				}
				c.count(w.T, "power cut before "+p.end, append(found, w.renamed(p, other)...))
			})
			return killed
		})
	})
}

// formerly makes the world one whose snapshots, of "new" and another, are those of a former
// name of the workload, and keeps it. It returns the other.
func (w *world) formerly() (other string) {
	w.Helper()
	call := func(from, to string) {
		text, err := os.ReadFile(w.config)
		w.must(err)
		w.must(os.WriteFile(w.config, bytes.Replace(text, []byte("  "+from+":"), []byte("  "+to+":"), 1), 0o600))
	}
	snap := func(args ...string) string {
		e := w.run(nil, args...)
		if e.code != 0 {
			w.Fatalf("%v: exit %d: %s", args, e.code, e.err)
		}
		return strings.TrimSpace(e.out)
	}
	// It leaves an empty folder under the new name, and a history.
	snap("delete", workloadName, w.sid, "--confirm")
	call(workloadName, former)
	w.fill(newer)
	w.states[newer] = w.trees()
	w.sid = snap("capture", former)
	w.fill(older)
	w.states[older] = w.trees()
	other = snap("capture", former)
	call(former, workloadName)
	var err error
	w.manifest, err = os.ReadFile(filepath.Join(w.store(), "snapshots", former, w.sid, "manifest.json"))
	w.must(err)
	var s snapshot
	w.must(json.Unmarshal(w.manifest, &s))
	w.members = s.members()
	for _, name := range []string{"v0", "v1", "v2", "store", "state"} { // of newWorld
		w.must(os.RemoveAll(filepath.Join(w.scratch, name)))
	}
	w.save()
	return other
}

// renaming runs a rename that is killed before the n-th call.
func (w *world) renaming(n int, other string) (p *progress, killed bool) {
	w.Helper()
	p = &progress{acked: []string{other}}
	e := w.run(killBefore(n, p), "rename", former, workloadName)
	if !e.killed && e.code != 0 {
		w.Fatalf("a rename that was not killed: exit %d: %s", e.code, e.err)
	}
	if !e.killed {
		p.end = "its end"
	}
	return p, e.killed
}

// renamed looks at what a rename has left, and what the next one makes of it.
func (w *world) renamed(p *progress, other string) (found []finding) {
	w.Helper()
	add := func(kind, text string) { found = append(found, finding{kind, text}) }
	if v := w.run(nil, "verify", "--read-data"); v.code != 0 || !strings.HasPrefix(v.out, "2 snapshots ") {
		add("lost", v.out+v.err)
	}
	if again := w.run(nil, "rename", former, workloadName); again.code != 0 {
		add("stuck", again.err)
	}
	if v := w.run(nil, "verify", "--read-data"); v.code != 0 {
		add("lost", v.out+v.err)
	}
	_, more := w.recovered(p, older)
	found = append(found, more...)
	for dir, want := range map[string][]string{
		filepath.Join(w.store(), "snapshots"):               {workloadName},
		filepath.Join(w.store(), "snapshots", workloadName): {w.sid, other, "was.json"},
		filepath.Join(w.state(), "history"):                 {workloadName + ".jsonl"},
	} {
		slices.Sort(want)
		if got := namesIn(w.T, dir); !slices.Equal(got, want) {
			add("stuck", dir+" has "+strings.Join(got, ", "))
		}
	}
	history, err := os.ReadFile(filepath.Join(w.state(), "history", workloadName+".jsonl"))
	if err != nil || strings.Count(string(history), w.sid) != 1 || strings.Count(string(history), other) != 1 {
		add("lost", "the history is\n"+string(history))
	}
	return found
}

func namesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
