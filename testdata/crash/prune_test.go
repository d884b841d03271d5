//go:build linux && amd64

package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A deletion is killed before each changing call: the snapshot that is deleted is whole
// or gone, all others are whole, and the next deletion leaves no data that no snapshot has.
func TestADeletionKilledBeforeAnyCall(t *testing.T) {
	c := newTally("delete, killed before every call")
	workers(t, func(w *world, worker, of int) {
		drop, kept := w.toDelete()
		points(worker, of, 11, func(n int) bool {
			w.reset()
			p := &progress{acked: []string{kept}}
			e := w.run(killBefore(n, p), "delete", workloadName, drop, "--confirm")
			c.count(w.T, "killed before "+p.end, w.afterDeletion(p, e, drop))
			return e.killed
		})
	})
}

// The power of every set of disks is cut before each changing call of a deletion, and after
// its end. After exit 0 the snapshot does not come back.
func TestAPowerCutBeforeAnyCallOfADeletion(t *testing.T) {
	c := newTally("delete, power cut before every call")
	workersOn(t, "btrfs", func(w *world, worker, of int) {
		drop, kept := w.toDelete()
		points(worker, of, 11, func(n int) bool {
			w.resetImages()
			p := &progress{}
			e := w.run(killBefore(n, p), "delete", workloadName, drop, "--confirm")
			if !e.killed {
				p.end = "its end"
			}
			p.acked = []string{kept}
			w.cuts(p, func(lost []string) {
				c.count(w.T, fmt.Sprintf("power cut of %s before %s", strings.Join(lost, ", "), p.end), w.afterDeletion(p, e, drop))
			})
			return e.killed
		})
	})
}

// toDelete makes two snapshots, one to be deleted and one that is to stay.
func (w *world) toDelete() (drop, kept string) {
	w.Helper()
	w.fill("dropped")
	w.states["dropped"] = w.trees()
	drop = w.capture()
	w.other = map[string]string{drop: "dropped"}
	w.fill(older)
	w.states[older] = w.trees()
	kept = w.capture()
	w.saveAgain()
	return drop, kept
}

// afterDeletion returns what is wrong after a deletion that ended, or was cut.
func (w *world) afterDeletion(p *progress, e exited, drop string) []finding {
	w.Helper()
	if !e.killed && e.code != 0 {
		w.Fatalf("a deletion that was not killed: exit %d: %s", e.code, e.err)
	}
	_, found := w.recovered(p, older)
	add := func(kind, text string) { found = append(found, finding{kind, text}) }
	if v := w.run(nil, "verify", "--read-data"); v.code != 0 {
		add("lost", v.out+v.err)
	}
	if _, err := os.Stat(w.manifestPath(drop)); err == nil && !e.killed {
		add("wrong", "exit 0, and the snapshot is still there")
	}
	// Whatever was left of it goes with the next.
	if _, err := os.Stat(w.manifestPath(drop)); err == nil {
		if d := w.run(nil, "delete", workloadName, drop, "--confirm"); d.code != 0 {
			add("stuck", d.err)
		}
	} else if d := w.run(nil, "prune", workloadName, "--keep-last=-1"); d.code != 0 {
		add("stuck", d.err)
	}
	if v := w.run(nil, "verify", "--read-data"); v.code != 0 {
		add("lost", v.out+v.err)
	}
	if left := w.unnamed(); len(left) > 0 {
		add("stuck", "members that no snapshot names: "+strings.Join(left, ", "))
	}
	return found
}

// saveAgain is save for a world that newWorld has saved before.
func (w *world) saveAgain() {
	w.Helper()
	for _, name := range []string{"v0", "v1", "v2", "store", "state"} {
		w.must(os.RemoveAll(filepath.Join(w.scratch, name)))
	}
	w.save()
}

// unnamed returns the members that no manifest names.
func (w *world) unnamed() (left []string) {
	w.Helper()
	list, err := w.snapshots()
	w.must(err)
	named := map[string]bool{}
	for i := range list {
		for id := range list[i].members() {
			named[id] = true
		}
	}
	files, err := filepath.Glob(filepath.Join(w.store(), "members/*/*"))
	w.must(err)
	for _, file := range files {
		if id, _, _ := strings.Cut(filepath.Base(file), "."); !named[id] {
			left = append(left, id)
		}
	}
	return left
}
