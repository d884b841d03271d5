package restore

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// These tests lose the answer to each changing request in turn, after the engine
// has carried the request out. With SNAP_CRASH=all they also kill dockerd just
// before each request.

// trial is one operation that is repeated from the same state.
type trial struct {
	*world
	d       *daemon
	p       *proxy
	arrange func()                       // sets up the initial state
	operate func() error                 // the operation
	check   func(what string, err error) // checks that the state matches err, and recovers
	lost    map[string]error             // request → what the operation returned when its answer was lost
	noKill  bool                         // dockerd is not killed, even with SNAP_CRASH=all
}

// newTrial returns a trial of an operation in a newEngineWorld. Each run begins on
// the old data with the app up, and ends with checkOutcome.
func newTrial(t *testing.T, more ...string) (x *trial, sid string) {
	t.Helper()
	w, d, sid, states := newEngineWorld(t, more...)
	var before dockertest.Container
	x = &trial{world: w, d: d, p: newProxy(t, d.host), lost: map[string]error{}}
	x.arrange = func() {
		w.fill("old")
		states["old"] = w.trees()
		before = w.appRuns()
	}
	x.check = func(what string, err error) { w.checkOutcome(d, states, before, what, err) }
	return x, sid
}

// each runs the operation once for each of its requests, which must include the
// wanted ones.
func (x *trial) each(wanted ...string) {
	x.Helper()
	x.arrange()
	x.p.arm(0, nil, 0, false)
	err := x.operate()
	whole := x.p.disarm()
	x.check("without a fault", err)
	for _, request := range wanted {
		if !slices.Contains(whole, request) {
			x.Fatalf("the requests %q do not include %q", whole, request)
		}
	}
	kill := func() { gone.inject(x.T, x.d) }
	for n := range whole {
		x.lost[whole[n]] = x.try(n+1, "answer lost", nil, 0, true)
		if allPoints() && !x.noKill {
			x.try(n+1, "dockerd killed", kill, 0, false)
		}
	}
}

// try runs the operation once, with a fault at the n-th request.
func (x *trial) try(n int, fault string, before func(), late time.Duration, lose bool) error {
	x.Helper()
	x.arrange()
	x.p.arm(n, before, late, lose)
	err := x.operate()
	seen := x.p.disarm()
	if len(seen) < n {
		x.Fatalf("only %d requests, expected at least %d: %q", len(seen), n, seen)
	}
	what := fmt.Sprintf("%s at request %d, %s", fault, n, seen[n-1])
	x.Logf("%s: %v", what, err)
	x.check(what, err)
	return err
}

const (
	update  = "POST /containers/{id}/update"
	stop    = "POST /containers/{id}/stop"
	rename  = "POST /containers/{id}/rename"
	create  = "POST /containers/create"
	start   = "POST /containers/{id}/start"
	remove  = "DELETE /containers/{id}"
	pause   = "POST /containers/{id}/pause"
	unpause = "POST /containers/{id}/unpause"
	connect = "POST /networks/create"
)

// An answer is lost during a restore. Where snap can see that the request was
// carried out, the restore succeeds; a late answer is not a lost one.
func TestAnAnswerIsLostDuringARestore(t *testing.T) {
	x, sid := newTrial(t)
	x.operate = func() error { _, err := x.restore(sid); return err }
	x.each(update, stop, rename, create, start, remove)
	for _, request := range []string{stop, remove} { // snap can see that these were carried out
		if err := x.lost[request]; err != nil {
			t.Errorf("the answer to %s was lost, and the restore returned %v", request, err)
		}
	}
	if err := x.try(2, "answer late", nil, time.Second, false); err != nil {
		t.Errorf("a slow engine failed the restore: %v", err)
	}
}

// An answer is lost while a restore rolls back from an unhealthy app. The old data
// and the old container come back.
func TestAnAnswerIsLostWhileARestoreRollsBack(t *testing.T) {
	x, _ := newTrial(t, givesUp)
	x.sicken()
	sid := x.capture()
	states := map[string][][]string{}
	arrange, before := x.arrange, dockertest.Container{}
	x.arrange = func() { arrange(); states["old"], before = x.trees(), x.appRuns() }
	x.operate = func() error { _, err := x.restore(sid); return err }
	x.check = func(what string, err error) {
		// When the engine fails before it reports the app as unhealthy, the new
		// data stays until a recovery learns of it.
		if k := fault.KindOf(err); k != fault.RolledBack && k != fault.Pending && k != fault.Frozen {
			x.Errorf("%s: %v", what, err)
		}
		if fault.KindOf(err) == fault.RolledBack {
			x.generation(states)
		}
		x.d.up(x.T)
		if _, err := x.engine().Recover(x.Context(), RecoverRequest{}); err != nil {
			x.Fatalf("%s: recover: %v", what, err)
		}
		x.generation(states)
		x.awaitApp()
		if after := x.appRuns(); after.ID != before.ID {
			x.Errorf("%s: the old container is not back", what)
		}
		x.recoverTwice()
	}
	if !allPoints() {
		x.try(5, "answer lost", nil, 0, true)
		return
	}
	x.noKill = true
	x.each(update, stop, rename, create, start, remove)
}

// An answer is lost during a capture. The data is unchanged and the app runs.
func TestAnAnswerIsLostDuringACapture(t *testing.T) {
	x, _ := newTrial(t)
	x.noKill = true // TestTheEngineEndsDuringACapture kills dockerd
	for quiesce, requests := range map[string][]string{runtime.Pause: {pause, unpause}, runtime.Stop: {stop, start}} {
		states, before := map[string][][]string{}, dockertest.Container{}
		x.arrange = func() { x.fill("old"); states["old"], before = x.trees(), x.appRuns() }
		x.check = func(what string, err error) { x.checkOutcome(x.d, states, before, quiesce+": "+what, err) }
		x.operate = func() error {
			_, err := x.engine().Capture(t.Context(), CaptureRequest{Workload: x.name, Quiesce: quiesce})
			return err
		}
		x.each(requests...)
	}
}

// An answer is lost during the first deploy. The app runs, or no container is left.
func TestAnAnswerIsLostDuringAFirstDeploy(t *testing.T) {
	x, _ := newTrial(t)
	x.arrange = x.undeploy
	x.operate = func() error {
		_, err := x.engine().Deploy(t.Context(), DeployRequest{Workload: x.name})
		return err
	}
	x.check = func(what string, err error) {
		x.d.up(t)
		x.recoverTwice()
		list := x.containers()
		if err != nil && len(list) > 0 {
			t.Errorf("%s: %d containers are left after: %v", what, len(list), err)
		}
		if err == nil {
			x.awaitApp()
			x.appRuns()
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	x.each(connect, create, start, update)
}

// An answer is lost during a deploy of a changed config. The new container runs,
// or the old one is back.
func TestAnAnswerIsLostDuringADeploy(t *testing.T) {
	x, _ := newTrial(t)
	n, before := 0, dockertest.Container{}
	x.arrange = func() {
		before = x.appRuns()
		x.edit("command: [serve, \""+fmt.Sprint(n)+"\"]", "command: [serve, \""+fmt.Sprint(n+1)+"\"]")
		n++
	}
	x.operate = func() error {
		_, err := x.engine().Deploy(t.Context(), DeployRequest{Workload: x.name})
		return err
	}
	x.check = func(what string, err error) {
		x.d.up(t)
		x.recoverTwice()
		x.awaitApp()
		after := x.appRuns()
		if err != nil && after.ID != before.ID {
			t.Errorf("%s: the old container is not back after: %v", what, err)
		}
		if err == nil && after.ID == before.ID {
			t.Errorf("%s: the old container was not replaced", what)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	x.edit("restart: always", "restart: always\n    command: [serve, \"0\"]")
	if !allPoints() { // a restore makes the same requests when it redeploys
		x.try(4, "answer lost", nil, 0, true)
		return
	}
	x.each(update, stop, rename, create, start, remove)
}

// An answer is lost during a recovery. Recovery ends in the direction that the
// records had decided.
func TestAnAnswerIsLostDuringARecovery(t *testing.T) {
	x, sid := newTrial(t)
	x.noKill = true // TestTheEngineEndsDuringARecovery kills dockerd
	whole, _ := x.run("restore", sid, 0)
	states := map[string][][]string{"new": x.trees()}
	points := map[string]string{"exchanged v0": "old", "commit": "new"}
	if !allPoints() {
		delete(points, "commit")
	}
	for point, want := range points {
		x.arrange = func() {
			x.fill("old")
			states["old"] = x.trees()
			x.killAt("restore", sid, point, whole)
		}
		x.operate = func() error { _, err := x.engine().Recover(t.Context(), RecoverRequest{}); return err }
		x.check = func(what string, err error) {
			x.d.up(t)
			x.recoverTwice()
			if got := x.generation(states); got != want {
				t.Errorf("%s: the data is %s, expected %s after: %v", what, got, want, err)
			}
			x.awaitApp()
			x.appRuns()
			if t.Failed() {
				t.FailNow()
			}
		}
		if !allPoints() {
			x.try(2, "answer lost", nil, 0, true)
			return
		}
		x.each(start, update)
	}
}
