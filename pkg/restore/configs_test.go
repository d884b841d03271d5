package restore

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
)

// Two configs of a host have one state and the same roots. What one of them has left is no
// matter of the other, unless the one that had it is gone.
func TestATransactionIsShownByItsOwnConfig(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2)
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	sid := w.capture()
	own, other := w.config, filepath.Join(w.dir, "other.yaml")
	link := filepath.Join(w.dir, "link.yaml")
	w.must(os.Symlink(own, link))
	mine := w.read(own)
	w.must(os.MkdirAll(w.dir+"/live/theirs", 0o755))
	theirs := strings.NewReplacer(w.name+":", "theirs:", "/live/v0", "/live/theirs").Replace(mine)
	theirs, _, _ = strings.Cut(theirs, "  - {name: v1")
	w.must(os.WriteFile(other, []byte(theirs), 0o600))
	without := strings.Replace(theirs, "theirs:", "mine:", 1)

	shown := func(config string) bool {
		t.Helper()
		w.config = config
		defer func() { w.config = own }()
		list, err := w.engine().Status(t.Context(), "")
		w.must(err)
		for _, st := range list {
			if st.Workload == w.name && st.Pending != nil {
				return true
			}
		}
		return false
	}
	for _, cut := range []string{"exchanged v0", "commit", "spoilt"} {
		w.fill("old")
		states["old"] = w.trees()
		point := strings.Replace(cut, "spoilt", "commit", 1)
		if points, killed := w.run("restore", sid, 0, "SNAP_TEST_POINT="+point); !killed {
			t.Fatalf("not killed: %q", points)
		}
		record, err := filepath.Glob(w.dir + "/state/tx/*/ready")
		w.must(err)
		ready := w.read(record[0])
		if cut == "spoilt" {
			w.must(os.WriteFile(record[0], []byte(ready[:20]), 0o600))
		}
		if !shown(own) || !shown(link) || shown(other) {
			t.Errorf("%s: shown by its own config %t, by a link to that %t, by another %t", cut, shown(own), shown(link), shown(other))
		}
		w.must(os.WriteFile(own, []byte(without), 0o600)) // the config no longer has the workload
		if !shown(own) || shown(other) {
			t.Errorf("%s, without the workload: shown by its own config %t, by another %t", cut, shown(own), shown(other))
		}
		w.must(os.Remove(own)) // or is gone, perhaps renamed
		if !shown(other) {
			t.Errorf("%s: without its config nobody shows it", cut)
		}
		w.must(os.WriteFile(own, []byte(mine), 0o600))
		w.must(os.WriteFile(record[0], []byte(ready), 0o600))
		w.config = other
		list, err := w.engine().Recover(t.Context(), RecoverRequest{})
		w.config = own
		if err != nil || len(list) != 0 {
			t.Errorf("%s: the other config recovers %+v, %v", cut, list, err)
		}
		w.recoverTwice()
		w.generation(states)
	}
}

// A transaction of an earlier version says nothing of its config: then the directories
// tell.
func TestATransactionWithoutAConfigIsShownByItsRoots(t *testing.T) {
	s := newScene(newWorld(t, t.TempDir(), 2))
	if s.tx.Begin.Config != "" {
		t.Fatalf("the record names %q", s.tx.Begin.Config)
	}
	text := s.read(s.config)
	for roots, want := range map[string]bool{s.dir + "/live": true, s.dir + "/elsewhere": false} {
		s.must(os.MkdirAll(roots+"/x", 0o755))
		other := strings.NewReplacer(s.name+":", "theirs:", "["+s.dir+"/live]", "["+roots+"]", s.volumes[0], roots+"/x", "base: "+s.dir+"\n", "").Replace(text)
		other, _, _ = strings.Cut(other, "  - {name: v1")
		s.must(os.WriteFile(s.config, []byte(other), 0o600))
		list, err := s.engine().Status(t.Context(), "")
		s.must(err)
		if got := len(list) == 2 && list[1].Workload == s.name && list[1].Pending != nil; got != want {
			t.Errorf("with the roots %s: %+v", roots, list)
		}
		if want {
			if _, err := s.engine().Recover(t.Context(), RecoverRequest{}); fault.KindOf(err) != fault.Frozen {
				t.Errorf("recover returned %v, expected frozen", err)
			}
		}
	}
}

// A transaction names its config, whichever operation began it (see session.open).
func TestATransactionNamesItsConfig(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1)
	w.fill("data")
	real, err := filepath.EvalSymlinks(w.config)
	w.must(err)
	seen := map[journal.Kind]bool{}
	look := func(e *Engine) func(string) {
		return func(string) {
			ids, err := e.Journal.List()
			w.must(err)
			for _, id := range ids {
				tx, err := e.Journal.Load(id)
				w.must(err)
				if tx.Begin.Config != real {
					t.Errorf("a %s names the config %q", tx.Begin.Kind, tx.Begin.Config)
				}
				seen[tx.Begin.Kind] = true
				tx.Close()
			}
		}
	}
	e := w.engine()
	e.reached = look(e)
	r, err := e.Capture(t.Context(), CaptureRequest{Workload: w.name})
	w.must(err)
	_, err = e.Restore(t.Context(), w.request(r.Manifest.SID))
	w.must(err)
	for _, kind := range []journal.Kind{journal.Capture, journal.Restore} {
		if !seen[kind] {
			t.Errorf("no %s was seen", kind)
		}
	}
}
