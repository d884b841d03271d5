package restore

import (
	"context"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// These tests stop, kill or restart the engine in the middle of an operation.
// Plain go test tries the most telling points; SNAP_CRASH=all tries every point.

// allPoints reports whether the tests try every point.
func allPoints() bool { return os.Getenv("SNAP_CRASH") == "all" }

// engineFault is what happens to dockerd at a point.
type engineFault struct {
	name   string
	inject func(*testing.T, *daemon)
}

var (
	restarted = engineFault{"restarted", func(t *testing.T, d *daemon) { d.down(t, syscall.SIGTERM); d.up(t) }}
	crashed   = engineFault{"killed and back", func(t *testing.T, d *daemon) { d.down(t, syscall.SIGKILL); d.up(t) }}
	stopped   = engineFault{"stopped", func(t *testing.T, d *daemon) { d.down(t, syscall.SIGTERM) }}
	gone      = engineFault{"killed", func(t *testing.T, d *daemon) { d.down(t, syscall.SIGKILL) }}
)

// checkOutcome fails the test unless the kind of err matches the data on disk,
// and one recovery, with the engine back, finishes the operation without moving
// the data again. Only a frozen operation may still end either way. With a
// single state, the operation must not have changed the data.
func (w *world) checkOutcome(d *daemon, states map[string][][]string, before dockertest.Container, what string, err error) {
	w.Helper()
	want := map[fault.Kind]string{fault.Failed: "old", fault.Refused: "old", fault.Interrupted: "old", fault.RolledBack: "old", fault.Pending: "new"}[fault.KindOf(err)]
	if err == nil {
		want = "new"
	}
	if len(states) == 1 {
		want = ""
	}
	if fault.KindOf(err) == fault.Busy || fault.KindOf(err) == fault.Usage {
		w.Fatalf("%s: an error of kind %d: %v", what, fault.KindOf(err), err)
	}
	if want != "" {
		if got := w.generation(states); got != want {
			w.Errorf("%s: the data is %s, expected %s after: %v", what, got, want, err)
		}
	}
	d.up(w.T)
	w.recoverTwice()
	if got := w.generation(states); want != "" && got != want {
		w.Errorf("%s: after the recovery the data is %s, expected %s as before the recovery: %v", what, got, want, err)
	}
	w.awaitApp()
	after := w.appRuns()
	if w.generation(states) == "old" && after.ID != before.ID {
		w.Errorf("%s: the old data is back, but the old container is not", what)
	}
	if w.Failed() {
		w.Fatalf("%s: the operation returned %v", what, err)
	}
}

// awaitApp waits until dockerd has restarted the app. dockerd starts containers
// by itself, and only after it has begun to answer.
func (w *world) awaitApp() {
	w.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if list := w.containers(); len(list) == 1 && list[0].Running {
			return
		}
	}
}

// newEngineWorld returns a world whose app runs on the private engine, and a
// snapshot to restore.
func newEngineWorld(t *testing.T, more ...string) (w *world, d *daemon, sid string, states map[string][][]string) {
	t.Helper()
	d = privateEngine(t)
	lines := appLines(image(t), more...)
	// Not unless-stopped: a new dockerd stops the containers that its dead
	// predecessor left running, and would count that as a stop on request.
	lines[1] = "restart: always"
	w = newWorld(t, t.TempDir(), 2, lines...)
	w.policy = "always"
	w.fill("new")
	states = map[string][][]string{"new": w.trees()}
	w.deploy()
	sid = w.capture()
	return w, d, sid, states
}

// at calls act once, when an operation of e reaches the point. The point
// "lookup" is where the operation opens its runtime, before anything else.
func at(e *Engine, point string, act func()) {
	done := false
	once := func(p string) {
		if p == point && !done {
			done = true
			act()
		}
	}
	e.reached = once
	open := e.Runtime
	e.Runtime = func(ctx context.Context, w *workload.Workload) (runtime.Runtime, error) {
		once("lookup")
		return open(ctx, w)
	}
}

// The engine ends at a point of a restore: the error matches the data on disk, and
// a recovery with the engine back finishes the rest.
func TestTheEngineEndsDuringARestore(t *testing.T) {
	w, d, sid, states := newEngineWorld(t)
	outages := []outage{{"ready", stopped}, {"stopped", gone}, {"exchanged v0", crashed}, {"swap", gone}, {"commit", restarted}}
	if allPoints() {
		points := w.pointsOf(func(e *Engine) error { _, err := e.Restore(t.Context(), w.request(sid)); return err })
		outages = atEach(points, gone)
		// Before "ready", an engine that comes back in time goes unnoticed.
		outages = append(outages, atEach(points[slices.Index(points, "ready"):], restarted, crashed)...)
	}
	for _, b := range outages {
		w.fill("old")
		states["old"] = w.trees()
		before := w.appRuns()
		err := w.runWith(d, b, func(e *Engine) error { _, err := e.Restore(t.Context(), w.request(sid)); return err })
		b.checkError(t, err)
		w.checkOutcome(d, states, before, b.String(), err)
		t.Logf("%s: %v", b, err)
	}
}

// checkError fails the test unless a restore that met this outage returned the
// right error. An engine that comes back in time goes unnoticed; for one that
// stays away, the error depends on the data on disk.
func (b outage) checkError(t *testing.T, err error) {
	t.Helper()
	want, code := fault.Failed, "" // no error
	if b.fault.name == gone.name || b.fault.name == stopped.name {
		switch b.point {
		case "lookup":
			want, code = fault.Refused, "docker_unreachable"
		case "redeployed", "redeploy", "before settle", "let go", "settled", "settle": // the engine is not asked again
		case "before swap", "exchanged v0", "exchanged v1", "swap", "before commit", "commit", "follow":
			want, code = fault.Pending, "app_not_up"
		default:
			want, code = fault.RolledBack, "docker_unreachable"
		}
	}
	if fault.KindOf(err) != want || codeOf(err) != code || code == "" && err != nil {
		t.Errorf("%s: the restore returned %v (kind %d, %q), expected kind %d, %q", b, err, fault.KindOf(err), codeOf(err), want, code)
	}
}

// The engine ends during a recovery: the next recovery finishes it, in the
// direction that the records had already decided.
func TestTheEngineEndsDuringARecovery(t *testing.T) {
	w, d, sid, states := newEngineWorld(t, givesUp)
	w.sicken()
	sick := w.capture()
	w.fill("old")
	whole, _ := w.run("restore", sid, 0)
	whole = append(whole, "before revert") // where a restore that rolls back has "redeployed"
	for _, c := range []struct {
		sid, point, want string
		few              []outage
	}{
		{sid, "exchanged v0", "old", []outage{{"lookup", gone}}},
		{sid, "commit", "new", nil}, // TestACommittedRestoreIsNotRolledBackWhileTheEngineIsAway
		{sick, "commit", "old", []outage{{"revert", gone}}},
	} {
		outages := c.few
		interrupted := func() {
			w.fill("old")
			states["old"] = w.trees()
			w.killAt("restore", c.sid, c.point, whole)
		}
		recover := func(e *Engine) error { _, err := e.Recover(t.Context(), RecoverRequest{}); return err }
		if allPoints() {
			interrupted()
			outages = atEach(w.pointsOf(recover), gone)
		}
		for _, b := range outages {
			interrupted()
			err := w.runWith(d, b, recover)
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

// The engine ends while a capture has the app paused or stopped. The data is
// unchanged, and the app runs after a recovery.
func TestTheEngineEndsDuringACapture(t *testing.T) {
	w, d, _, _ := newEngineWorld(t)
	w.fill("old")
	states := map[string][][]string{"old": w.trees()}
	for _, quiesce := range []string{runtime.Pause, runtime.Stop} {
		capture := func(e *Engine) error {
			_, err := e.Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: quiesce})
			return err
		}
		var outages []outage
		if quiesce == runtime.Pause {
			outages = []outage{{"quiesced", gone}}
		}
		if allPoints() {
			outages = atEach(w.pointsOf(capture), crashed, gone)
		}
		for _, b := range outages {
			before := w.appRuns()
			err := w.runWith(d, b, capture)
			w.checkOutcome(d, states, before, quiesce+": "+b.String(), err)
			t.Logf("%s: %s: %v", quiesce, b, err)
		}
	}
}

// The engine ends while a capture has the app stopped, and no restart policy
// starts the app. Only the record of the capture brings the app back.
func TestTheEngineEndsWhileACaptureHasTheAppStopped(t *testing.T) {
	w, d, _, _ := newEngineWorld(t)
	w.edit("restart: always", "restart: unless-stopped")
	w.policy = "unless-stopped"
	w.deploy()
	before := w.appRuns()
	err := w.runWith(d, outage{"quiesced", gone}, func(e *Engine) error {
		_, err := e.Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.Stop})
		return err
	})
	if fault.KindOf(err) != fault.Pending {
		t.Errorf("the capture returned %v, expected pending", err)
	}
	d.up(t)
	if w.containers()[0].Running {
		t.Fatal("the app came up by itself: the test proves nothing")
	}
	list, err := w.engine().Recover(t.Context(), RecoverRequest{})
	if err != nil || len(list) != 1 || list[0].Action != Thawed {
		t.Errorf("recover returned %+v, %v; expected one thawed", list, err)
	}
	w.recoverTwice()
	if after := w.appRuns(); after.ID != before.ID {
		t.Error("the original container is not back")
	}
}

// The engine is away when a restore has to roll its exchange back. Without the
// engine snap cannot tell whether the app is running on these directories, so
// the restore freezes.
func TestARollBackWithoutTheEngineFreezes(t *testing.T) {
	w, d, sid, states := newEngineWorld(t)
	w.fill("old")
	states["old"] = w.trees()
	before := w.appRuns()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	e := w.engine()
	at(e, "exchanged v0", func() {
		gone.inject(t, d)
		cancel(&fault.Signal{Name: "SIGTERM", Code: 143})
	})
	_, err := e.Restore(ctx, w.request(sid))
	for _, again := range []string{"the restore", "a recovery", "another"} {
		if fault.KindOf(err) != fault.Frozen || codeOf(err) != "docker_unreachable" {
			t.Errorf("%s without the engine returned %v, expected frozen", again, err)
		}
		if got := w.generation(states); got != "new" {
			t.Errorf("%s left the data %s, expected no change", again, got)
		}
		_, err = w.engine().Recover(t.Context(), RecoverRequest{})
	}
	d.up(t)
	w.recoverTwice()
	if got := w.generation(states); got != "old" {
		t.Errorf("the data is %s, expected old", got)
	}
	if after := w.appRuns(); after.ID != before.ID {
		t.Error("the old container is not back")
	}
}

// outage is a fault of the engine and the point at which it happens.
type outage struct {
	point string
	fault engineFault
}

func (b outage) String() string { return fmt.Sprintf("the engine was %s at %q", b.fault.name, b.point) }

func atEach(points []string, faults ...engineFault) []outage {
	var outages []outage
	for _, point := range points {
		for _, f := range faults {
			outages = append(outages, outage{point, f})
		}
	}
	return outages
}

// runWith runs an operation with an outage in the middle.
func (w *world) runWith(d *daemon, b outage, operate func(*Engine) error) error {
	w.Helper()
	happened := false
	e := w.engine()
	at(e, b.point, func() { happened = true; b.fault.inject(w.T, d) })
	err := operate(e)
	if !happened {
		w.Fatalf("the operation never reached %q: %v", b.point, err)
	}
	return err
}

// pointsOf returns the points of an undisturbed operation, each once, up to the
// clean-up, which does not use the engine.
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
