package restore

import (
	"os"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
)

// A restore under a running app is killed between two exchanges, and a directory
// is replaced by hand. The app stays down until the operator decides. Then it comes
// up on the chosen data, with its own restart policy.
func TestAfterADecisionTheAppComesUpOnTheChosenData(t *testing.T) {
	name := image(t)
	for _, c := range []struct {
		what, keep string
		spoil      int // the volume whose live directory is replaced
		sick       bool
		kind       fault.Kind
		action     string
	}{
		{"keep-old", journal.KeepOld, 0, false, fault.Failed, RolledBackTx},
		{"keep-new", journal.KeepNew, 1, false, fault.Failed, RolledForwardTx},
		{"keep-new with an unhealthy app", journal.KeepNew, 1, true, fault.Pending, RolledForwardTx},
	} {
		t.Run(c.what, func(t *testing.T) {
			lines, wait := appLines(name), ""
			if c.sick {
				lines, wait = briefLines(name), "1"
			}
			w := newWorld(t, t.TempDir(), 2, lines...)
			w.fill("new")
			w.deploy()
			if c.sick {
				w.sicken()
			}
			states := map[string][][]string{journal.KeepNew: w.trees()}
			sid := w.capture()
			w.fill("old")
			states[journal.KeepOld] = w.trees()
			w.killedAt("restore", sid, "exchanged v0", "SNAP_TEST_BRIEFLY="+wait)
			w.must(os.RemoveAll(w.volumes[c.spoil]))
			disktest.Write(t, w.volumes[c.spoil], map[string]string{"stranger": "s"})

			list, err := w.engine().Recover(t.Context(), RecoverRequest{})
			if fault.KindOf(err) != fault.Frozen {
				t.Fatalf("recover returned %+v, %v", list, err)
			}
			if now := w.containers(); len(now) != 1 || now[0].Running || now[0].Policy != "no" {
				t.Errorf("while it is frozen the app is %+v", now)
			}
			r, err := w.engine().Resolve(t.Context(), ResolveRequest{Workload: w.name, Keep: c.keep, Confirm: list[0].Tx})
			if (err != nil) != (c.kind == fault.Pending) || err != nil && fault.KindOf(err) != c.kind || r.Action != c.action {
				t.Fatalf("resolve returned %+v, %v", r, err)
			}
			if got := w.generation(states); got != c.keep {
				t.Errorf("all volumes are %s, expected %s", got, c.keep)
			}
			w.appRuns()
			w.clean()
			if len(r.Kept) != 1 {
				t.Errorf("preserved are %q, expected one", r.Kept)
			}
		})
	}
}

// killedAt runs a verb in its own process and kills it when it first reaches the
// point.
func (w *world) killedAt(verb, sid, point string, env ...string) {
	w.Helper()
	points, killed := w.run(verb, sid, 0, append(env, "SNAP_TEST_POINT="+point)...)
	if !killed || points[len(points)-1] != point {
		w.Fatalf("%s was not killed at %q: %q", verb, point, points)
	}
}
