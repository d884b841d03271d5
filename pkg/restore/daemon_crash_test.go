package restore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// The engine ends, or restarts, in the middle of what snap does. Plain go test
// takes the most telling points; SNAP_CRASH=all takes every one.

// everywhere reports whether the tests are to take every point.
func everywhere() bool { return os.Getenv("SNAP_CRASH") == "all" }

// fate is what becomes of dockerd at a point.
type fate struct {
	name   string
	strike func(*testing.T, *daemon)
}

var (
	restarted = fate{"restarted", func(t *testing.T, d *daemon) { d.down(t, syscall.SIGTERM); d.up(t) }}
	crashed   = fate{"killed and back", func(t *testing.T, d *daemon) { d.down(t, syscall.SIGKILL); d.up(t) }}
	stopped   = fate{"stopped", func(t *testing.T, d *daemon) { d.down(t, syscall.SIGTERM) }}
	gone      = fate{"killed", func(t *testing.T, d *daemon) { d.down(t, syscall.SIGKILL) }}
)

// keeps fails the test unless the kind of err says truly what is on disk, and
// one recovery, with the engine there, brings the rest to its end without
// moving the data again: only what froze may still go either way. Where there
// is one state only, the operation must not have changed it.
func (w *world) keeps(d *daemon, states map[string][][]string, before dockertest.Container, what string, err error) {
	w.Helper()
	want := map[Kind]string{Failed: "old", Refused: "old", Interrupted: "old", RolledBack: "old", Pending: "new"}[kindOf(err)]
	if err == nil {
		want = "new"
	}
	if len(states) == 1 {
		want = ""
	}
	if kindOf(err) == Busy || kindOf(err) == Usage {
		w.Fatalf("%s: an error of kind %d: %v", what, kindOf(err), err)
	}
	if want != "" {
		if got := w.generation(states); got != want {
			w.Errorf("%s: the data is %s, expected %s after: %v", what, got, want, err)
		}
	}
	d.up(w.T)
	w.recoverTwice()
	if got := w.generation(states); want != "" && got != want {
		w.Errorf("%s: after the recovery the data is %s, expected %s as before it: %v", what, got, want, err)
	}
	w.awaitApp()
	after := w.appRuns()
	if w.generation(states) == "old" && after.ID != before.ID {
		w.Errorf("%s: the old data is back, but not the old container", what)
	}
	if w.Failed() {
		w.Fatalf("%s: the operation returned %v", what, err)
	}
}

// awaitApp waits until dockerd has started again what ran when it ended, which
// it does by itself and after it has begun to answer.
func (w *world) awaitApp() {
	w.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if list := w.containers(); len(list) == 1 && list[0].Running {
			return
		}
	}
}

// crashing is an app on the private engine and a snapshot to restore.
func crashing(t *testing.T, more ...string) (w *world, d *daemon, sid string, states map[string][][]string) {
	t.Helper()
	d = privateEngine(t)
	lines := appLines(image(t), more...)
	// Not unless-stopped: a dockerd that finds its containers running although
	// it did not start them stops them itself, which counts as asked for.
	lines[1] = "restart: always"
	w = newWorld(t, t.TempDir(), 2, lines...)
	w.policy = "always"
	w.fill("new")
	states = map[string][][]string{"new": w.trees()}
	w.deploy()
	sid = w.capture()
	return w, d, sid, states
}

// at calls strike once, when an operation of e reaches the point; "lookup" is
// where it opens its runtime, before all else.
func at(e *Engine, point string, strike func()) {
	done := false
	once := func(p string) {
		if p == point && !done {
			done = true
			strike()
		}
	}
	e.reached = once
	open := e.Runtime
	e.Runtime = func(ctx context.Context, w *workload.Workload) (runtime.Runtime, error) {
		once("lookup")
		return open(ctx, w)
	}
}

func TestTheEngineEndsDuringARestore(t *testing.T) {
	w, d, sid, states := crashing(t)
	blows := []blow{{"ready", stopped}, {"stopped", gone}, {"exchanged v0", crashed}, {"swap", gone}, {"commit", restarted}}
	if everywhere() {
		points := w.pointsOf(func(e *Engine) error { _, err := e.Restore(t.Context(), w.request(sid)); return err })
		blows = matrix(points, gone)
		// Before, what comes back in time is not missed.
		blows = append(blows, matrix(points[slices.Index(points, "ready"):], restarted, crashed)...)
	}
	for _, b := range blows {
		w.fill("old")
		states["old"] = w.trees()
		before := w.appRuns()
		err := w.strike(d, b, func(e *Engine) error { _, err := e.Restore(t.Context(), w.request(sid)); return err })
		b.outcome(t, err)
		w.keeps(d, states, before, b.String(), err)
		t.Logf("%s: %v", b, err)
	}
}

// outcome fails the test unless a restore that met this ended as it must: an
// engine that comes back in time is not noticed, and one that stays away is
// told by what is on disk.
func (b blow) outcome(t *testing.T, err error) {
	t.Helper()
	want, code := Failed, "" // no error
	if b.fate.name == gone.name || b.fate.name == stopped.name {
		switch b.point {
		case "lookup":
			want, code = Refused, "docker_unreachable"
		case "redeployed", "before settle": // nothing more is asked of it
		case "before swap", "exchanged v0", "exchanged v1", "swap", "before commit", "commit":
			want, code = Pending, "app_not_up"
		default:
			want, code = RolledBack, "docker_unreachable"
		}
	}
	if kindOf(err) != want || codeOf(err) != code || code == "" && err != nil {
		t.Errorf("%s: the restore returned %v (kind %d, %q), expected kind %d, %q", b, err, kindOf(err), codeOf(err), want, code)
	}
}

// A recovery meets the same: what it began it ends the next time, and which way
// it goes was decided before.
func TestTheEngineEndsDuringARecovery(t *testing.T) {
	w, d, sid, states := crashing(t)
	w.must(os.WriteFile(filepath.Join(w.volumes[0], "sick"), []byte("yes"), 0o644))
	sick := w.capture()
	w.fill("old")
	whole, _ := w.run("restore", sid, 0)
	whole = append(whole, "before revert") // of a restore that goes back, at "redeployed"
	for _, c := range []struct {
		sid, point, want string
		few              []blow
	}{
		{sid, "exchanged v0", "old", []blow{{"lookup", gone}}},
		{sid, "commit", "new", nil}, // TestACommittedRestoreIsNotTakenBackBecauseTheEngineIsAway
		{sick, "commit", "old", []blow{{"revert", gone}}},
	} {
		blows := c.few
		interrupted := func() {
			w.fill("old")
			states["old"] = w.trees()
			w.killAt("restore", c.sid, c.point, whole)
		}
		recover := func(e *Engine) error { _, err := e.Recover(t.Context(), RecoverRequest{}); return err }
		if everywhere() {
			interrupted()
			blows = matrix(w.pointsOf(recover), gone)
		}
		for _, b := range blows {
			interrupted()
			err := w.strike(d, b, recover)
			d.up(t)
			w.recoverTwice()
			if got := w.generation(states); got != c.want {
				t.Errorf("killed at %q, then %s: the data is %s, expected %s", c.point, b, got, c.want)
			}
			w.awaitApp()
			w.appRuns()
			if t.Failed() {
				t.Fatalf("killed at %q, then %s: recover returned %v", c.point, b, err)
			}
			t.Logf("killed at %q, then %s: %v", c.point, b, err)
		}
	}
}

func TestTheEngineEndsDuringACapture(t *testing.T) {
	w, d, _, _ := crashing(t)
	w.fill("old")
	states := map[string][][]string{"old": w.trees()}
	for _, quiesce := range []string{runtime.Pause, runtime.Stop} {
		capture := func(e *Engine) error {
			_, err := e.Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: quiesce})
			return err
		}
		var blows []blow
		if quiesce == runtime.Pause {
			blows = []blow{{"quiesced", gone}}
		}
		if everywhere() {
			blows = matrix(w.pointsOf(capture), crashed, gone)
		}
		for _, b := range blows {
			before := w.appRuns()
			err := w.strike(d, b, capture)
			w.keeps(d, states, before, quiesce+": "+b.String(), err)
			t.Logf("%s: %s: %v", quiesce, b, err)
		}
	}
}

// An app that the capture stopped, and that no policy starts: only what the
// capture has recorded brings it back.
func TestTheEngineEndsWhileACaptureHasTheAppStopped(t *testing.T) {
	w, d, _, _ := crashing(t)
	w.edit("restart: always", "restart: unless-stopped")
	w.policy = "unless-stopped"
	w.deploy()
	before := w.appRuns()
	err := w.strike(d, blow{"quiesced", gone}, func(e *Engine) error {
		_, err := e.Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.Stop})
		return err
	})
	if kindOf(err) != Pending {
		t.Errorf("the capture returned %v, expected pending", err)
	}
	d.up(t)
	if w.containers()[0].Running {
		t.Fatal("the app came up by itself: this shows nothing")
	}
	list, err := w.engine().Recover(t.Context(), RecoverRequest{})
	if err != nil || len(list) != 1 || list[0].Action != Thawed {
		t.Errorf("recover returned %+v, %v; expected one thawed", list, err)
	}
	w.recoverTwice()
	if after := w.appRuns(); after.ID != before.ID {
		t.Error("not the container from before")
	}
}

// The volumes are exchanged, the restore has to go back, and the engine that must
// first say that nothing runs is away: that freezes, for whether the app is up
// on what would be exchanged under it nobody knows.
func TestARestoreThatGoesBackWithoutTheEngineFreezes(t *testing.T) {
	w, d, sid, states := crashing(t)
	w.fill("old")
	states["old"] = w.trees()
	before := w.appRuns()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	e := w.engine()
	at(e, "exchanged v0", func() {
		gone.strike(t, d)
		cancel(&Signal{Name: "SIGTERM", Code: 143})
	})
	_, err := e.Restore(ctx, w.request(sid))
	for _, again := range []string{"the restore", "a recovery", "another"} {
		if kindOf(err) != Frozen || codeOf(err) != "docker_unreachable" {
			t.Errorf("%s without the engine returned %v, expected frozen", again, err)
		}
		if got := w.generation(states); got != "new" {
			t.Errorf("%s left the data %s, expected that nothing moves", again, got)
		}
		_, err = w.engine().Recover(t.Context(), RecoverRequest{})
	}
	d.up(t)
	w.recoverTwice()
	if got := w.generation(states); got != "old" {
		t.Errorf("the data is %s, expected old", got)
	}
	if after := w.appRuns(); after.ID != before.ID {
		t.Error("not the old container")
	}
}

// blow is what happens to the engine, and when.
type blow struct {
	point string
	fate  fate
}

func (b blow) String() string { return fmt.Sprintf("the engine was %s at %q", b.fate.name, b.point) }

func matrix(points []string, fates ...fate) []blow {
	var blows []blow
	for _, point := range points {
		for _, fate := range fates {
			blows = append(blows, blow{point, fate})
		}
	}
	return blows
}

// strike runs an operation during which the engine meets its fate.
func (w *world) strike(d *daemon, b blow, operate func(*Engine) error) error {
	w.Helper()
	struck := false
	e := w.engine()
	at(e, b.point, func() { struck = true; b.fate.strike(w.T, d) })
	err := operate(e)
	if !struck {
		w.Fatalf("there was no point %q: %v", b.point, err)
	}
	return err
}

// pointsOf returns the points of a whole operation, each once, up to the clean-up,
// which asks nothing of the engine.
func (w *world) pointsOf(operate func(*Engine) error) []string {
	w.Helper()
	points := []string{"lookup"}
	e := w.engine()
	e.reached = func(p string) {
		if !slices.Contains(points, p) && !slices.Contains([]string{"discarded", "removed", "settled"}, p) {
			points = append(points, p)
		}
	}
	w.must(operate(e))
	return points
}
