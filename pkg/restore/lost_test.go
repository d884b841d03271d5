package restore

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// Every request that changes something at the engine, in turn, is carried out
// and its answer is lost; with SNAP_CRASH=all, dockerd is also killed as each
// comes in.

// trial is one operation, tried from the same state again and again.
type trial struct {
	*world
	d       *daemon
	p       *proxy
	arrange func()                       // brings about the state to begin from
	operate func() error                 // the operation
	settle  func(what string, err error) // looks that all is as err says, and recovers
	lost    map[string]error             // request → what its lost answer made of the operation
	calm    bool                         // dockerd is not killed, even where everything is tried
}

// newTrial is a trial of an operation on the app of crashing: it begins on old
// data with the app up, and ends as keeps demands.
func newTrial(t *testing.T) (x *trial, sid string) {
	t.Helper()
	w, d, sid, states := crashing(t)
	var before dockertest.Container
	x = &trial{world: w, d: d, p: between(t, d.host), lost: map[string]error{}}
	x.arrange = func() {
		w.fill("old")
		states["old"] = w.trees()
		before = w.appRuns()
	}
	x.settle = func(what string, err error) { w.keeps(d, states, before, what, err) }
	return x, sid
}

// each tries the operation once for each of its requests, of which there must
// be those that are wanted.
func (x *trial) each(wanted ...string) {
	x.Helper()
	x.arrange()
	x.p.meddle(0, nil, 0, false)
	err := x.operate()
	whole := x.p.stop()
	x.settle("without a fault", err)
	for _, request := range wanted {
		if !slices.Contains(whole, request) {
			x.Fatalf("no %q among the requests %q", request, whole)
		}
	}
	kill := func() { gone.strike(x.T, x.d) }
	for n := range whole {
		x.lost[whole[n]] = x.try(n+1, "answer lost", nil, 0, true)
		if everywhere() && !x.calm {
			x.try(n+1, "dockerd killed", kill, 0, false)
		}
	}
}

func (x *trial) try(n int, fault string, before func(), late time.Duration, lose bool) error {
	x.Helper()
	x.arrange()
	x.p.meddle(n, before, late, lose)
	err := x.operate()
	seen := x.p.stop()
	if len(seen) < n {
		x.Fatalf("only %d requests of %d: %q", len(seen), n, seen)
	}
	what := fmt.Sprintf("%s at request %d, %s", fault, n, seen[n-1])
	x.Logf("%s: %v", what, err)
	x.settle(what, err)
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

func TestAnAnswerIsLostDuringARestore(t *testing.T) {
	x, sid := newTrial(t)
	x.operate = func() error { _, err := x.restore(sid); return err }
	x.each(update, stop, rename, create, start, remove)
	for _, request := range []string{stop, remove} { // a look tells that it was carried out
		if err := x.lost[request]; err != nil {
			t.Errorf("the answer to %s was lost, and the restore returned %v", request, err)
		}
	}
	// One that comes late is not lost.
	if err := x.try(2, "answer late", nil, time.Second, false); err != nil {
		t.Errorf("a slow engine failed the restore: %v", err)
	}
}

func TestAnAnswerIsLostWhileARestoreGoesBack(t *testing.T) {
	x, _ := newTrial(t)
	x.must(os.WriteFile(filepath.Join(x.volumes[0], "sick"), []byte("yes"), 0o644))
	sid := x.capture()
	states := map[string][][]string{}
	arrange, before := x.arrange, dockertest.Container{}
	x.arrange = func() { arrange(); states["old"], before = x.trees(), x.appRuns() }
	x.operate = func() error { _, err := x.restore(sid); return err }
	x.settle = func(what string, err error) {
		// Where the engine went before it could say that the app is sick, the
		// new data stays until the recovery hears it.
		if k := kindOf(err); k != RolledBack && k != Pending && k != Frozen {
			x.Errorf("%s: %v", what, err)
		}
		if kindOf(err) == RolledBack {
			x.generation(states)
		}
		x.d.up(x.T)
		if _, err := x.engine().Recover(x.Context(), RecoverRequest{}); err != nil {
			x.Fatalf("%s: recover: %v", what, err)
		}
		x.generation(states)
		x.awaitApp()
		if after := x.appRuns(); after.ID != before.ID {
			x.Errorf("%s: not the old container", what)
		}
		x.recoverTwice()
	}
	if !everywhere() {
		x.try(5, "answer lost", nil, 0, true)
		return
	}
	x.calm = true
	x.each(update, stop, rename, create, start, remove)
}

func TestAnAnswerIsLostDuringACapture(t *testing.T) {
	x, _ := newTrial(t)
	x.calm = true // TestTheEngineEndsDuringACapture does that
	for quiesce, requests := range map[string][]string{runtime.Pause: {pause, unpause}, runtime.Stop: {stop, start}} {
		states, before := map[string][][]string{}, dockertest.Container{}
		x.arrange = func() { x.fill("old"); states["old"], before = x.trees(), x.appRuns() }
		x.settle = func(what string, err error) { x.keeps(x.d, states, before, quiesce+": "+what, err) }
		x.operate = func() error {
			_, err := x.engine().Capture(t.Context(), CaptureRequest{Workload: x.name, Quiesce: quiesce})
			return err
		}
		x.each(requests...)
	}
}

func TestAnAnswerIsLostDuringAFirstDeploy(t *testing.T) {
	x, _ := newTrial(t)
	x.arrange = x.undeploy
	x.operate = func() error {
		_, err := x.engine().Deploy(t.Context(), DeployRequest{Workload: x.name})
		return err
	}
	x.settle = func(what string, err error) {
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
	x.settle = func(what string, err error) {
		x.d.up(t)
		x.recoverTwice()
		x.awaitApp()
		after := x.appRuns()
		if err != nil && after.ID != before.ID {
			t.Errorf("%s: the old container is not back after: %v", what, err)
		}
		if err == nil && after.ID == before.ID {
			t.Errorf("%s: the old container still stands", what)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	x.edit("restart: always", "restart: always\n    command: [serve, \"0\"]")
	if !everywhere() { // the requests are those of a restore's redeploy
		x.try(4, "answer lost", nil, 0, true)
		return
	}
	x.each(update, stop, rename, create, start, remove)
}

func TestAnAnswerIsLostDuringARecovery(t *testing.T) {
	x, sid := newTrial(t)
	x.calm = true // TestTheEngineEndsDuringARecovery does that
	whole, _ := x.run("restore", sid, 0)
	states := map[string][][]string{"new": x.trees()}
	points := map[string]string{"exchanged v0": "old", "commit": "new"}
	if !everywhere() {
		delete(points, "commit")
	}
	for point, want := range points {
		x.arrange = func() {
			x.fill("old")
			states["old"] = x.trees()
			x.killAt("restore", sid, point, whole)
		}
		x.operate = func() error { _, err := x.engine().Recover(t.Context(), RecoverRequest{}); return err }
		x.settle = func(what string, err error) {
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
		if !everywhere() {
			x.try(2, "answer lost", nil, 0, true)
			return
		}
		x.each(start, update)
	}
}
