package restore

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// TestGuardingAfterTheAppWaitsForNoReading looks at a real container: it runs
// before the first byte of the old data is read.
func TestGuardingAfterTheAppWaitsForNoReading(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2, appLines(image(t))...)
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	w.deploy()
	sid := w.capture()
	w.fill("old")
	states["old"] = w.trees()
	members := func() int {
		found, err := filepath.Glob(filepath.Join(w.dir, "store/members/*/*"))
		w.must(err)
		return len(found)
	}
	const reading = 1500 * time.Millisecond
	stored := members()
	e := w.engine()
	e.reached = func(point string) {
		if point == "guarding" {
			w.appRuns()
			if now := members(); now != stored {
				t.Errorf("the store has %d members before the app is up, it had %d", now, stored)
			}
			time.Sleep(reading)
		}
	}
	r, err := e.Restore(t.Context(), w.afterRequest(sid))
	w.must(err)
	for _, phase := range []Phase{PassOne, PassTwo, Publish} {
		if _, ok := r.Phases[phase]; ok {
			t.Errorf("phase %s is in %v", phase, r.Phases)
		}
	}
	if r.Phases["guard"] < reading.Seconds() || r.Seconds-r.DowntimeSeconds < reading.Seconds() {
		t.Errorf("down %.1f s of %.1f s, phases %v: the guard counts as downtime", r.DowntimeSeconds, r.Seconds, r.Phases)
	}
	if members() == stored {
		t.Error("nothing was read at all")
	}
	m, err := w.engine().Store.Load(w.name, r.PreRestoreSID)
	w.must(err)
	if m.Reason != "pre-restore" || m.Quiesce != runtime.Stop || len(m.Images) != 1 || m.Images[0].ImageID == "" {
		t.Errorf("the pre-restore snapshot is %+v", m)
	}
	w.clean()
	w.oldIsBack(states, nil)
	w.appRuns()
}

func TestGuardingAfterAnAppThatDoesNotBecomeHealthyGoesBack(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2, appLines(image(t))...)
	w.fill("old")
	w.deploy()
	w.must(os.WriteFile(filepath.Join(w.volumes[0], "sick"), []byte("yes"), 0o644))
	sid := w.capture()
	w.fill("old")
	states := map[string][][]string{"old": w.trees()}
	before := w.appRuns()
	r, err := w.engine().Restore(t.Context(), w.afterRequest(sid))
	if kindOf(err) != RolledBack || r == nil || r.Outcome != Reverted || r.PreRestoreSID != "" {
		t.Fatalf("the restore returned %+v, %v; expected reverted, and no pre-restore snapshot", r, err)
	}
	w.generation(states)
	if after := w.appRuns(); after.ID != before.ID {
		t.Error("the container from before did not come back")
	}
	w.clean()
	list := w.snapshots()
	if len(w.before()) != 0 || len(list) != 2 || !strings.HasPrefix(list[0].Note, "taken back") {
		t.Errorf("the snapshots are %+v, expected what was captured and what was taken back", list)
	}
}

// TestGuardingAfterARecoveryLeavesTheAppAlone: the app was up on the new data,
// perhaps for days; nobody may start it, stop it or take its data back.
func TestGuardingAfterARecoveryLeavesTheAppAlone(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2, appLines(image(t))...)
	w.fill("new")
	w.deploy()
	sid := w.capture()
	w.fill("old")
	states := map[string][][]string{"old": w.trees()}
	w.dieGuardingAfter(sid, "guarding")
	before := w.appRuns()
	w.must(os.WriteFile(filepath.Join(w.volumes[0], "sick"), []byte("yes"), 0o644))
	disktest.Run(t, "docker", "stop", "-t", "1", w.name)
	w.recoverTwice()
	c := w.containers()
	if len(c) != 1 || c[0].ID != before.ID || c[0].Running {
		t.Errorf("the container is %+v, expected as the operator left it", c)
	}
	if _, err := os.Stat(filepath.Join(w.volumes[0], "sick")); err != nil {
		t.Errorf("what the app wrote is gone: %v", err)
	}
	w.oldIsBack(states, nil)
}
