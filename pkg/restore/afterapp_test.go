package restore

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// With --guard after, a real container runs again before the old data is read, and
// the time of that reading is not downtime.
func TestGuardAfterTheAppRunsBeforeTheOldDataIsRead(t *testing.T) {
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
				t.Errorf("the store has %d members when the app comes up, before the restore it had %d", now, stored)
			}
			time.Sleep(reading)
		}
	}
	r, err := e.Restore(t.Context(), w.guardAfterRequest(sid))
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
		t.Error("no member was added to the store")
	}
	m, err := w.engine().Store.Load(w.name, r.PreRestoreSID)
	w.must(err)
	if m.Reason != "pre-restore" || m.Quiesce != runtime.Stop || len(m.Images) != 1 || m.Images[0].ImageID == "" {
		t.Errorf("the pre-restore snapshot is %+v", m)
	}
	w.clean()
	w.oldDataRestores(states, nil)
	w.appRuns()
}

// The app is unhealthy on the new data. The restore reverts, and makes no
// pre-restore snapshot because the old data is live again.
func TestGuardAfterAnUnhealthyAppRollsBack(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2, appLines(image(t), givesUp)...)
	w.fill("old")
	w.deploy()
	w.sicken()
	sid := w.capture()
	w.fill("old")
	states := map[string][][]string{"old": w.trees()}
	before := w.appRuns()
	r, err := w.engine().Restore(t.Context(), w.guardAfterRequest(sid))
	if fault.KindOf(err) != fault.RolledBack || r == nil || r.Outcome != Reverted || r.PreRestoreSID != "" {
		t.Fatalf("the restore returned %+v, %v; expected reverted, and no pre-restore snapshot", r, err)
	}
	w.generation(states)
	if after := w.appRuns(); after.ID != before.ID {
		t.Error("the old container is not back")
	}
	w.clean()
	list := w.snapshots()
	if len(w.preRestoreSIDs()) != 0 || len(list) != 2 || !strings.HasPrefix(list[0].Note, "taken back") {
		t.Errorf("the snapshots are %+v, expected the captured one and that of the reverted data", list)
	}
}

// snap was killed while it guarded, and the app has been using the new data since,
// perhaps for days. Recovery neither starts nor stops the app nor reverts its data.
func TestGuardAfterRecoveryLeavesTheAppAlone(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2, appLines(image(t))...)
	w.fill("new")
	w.deploy()
	sid := w.capture()
	w.fill("old")
	states := map[string][][]string{"old": w.trees()}
	w.killGuardAfter(sid, "guarding")
	before := w.appRuns()
	w.sicken()
	disktest.Run(t, "docker", "stop", "-t", "1", w.name)
	w.recoverTwice()
	c := w.containers()
	if len(c) != 1 || c[0].ID != before.ID || c[0].Running {
		t.Errorf("the container is %+v, expected as the operator left it", c)
	}
	if _, err := os.Stat(filepath.Join(w.volumes[0], "sick")); err != nil {
		t.Errorf("the file that the app wrote is gone: %v", err)
	}
	w.oldDataRestores(states, nil)
}
