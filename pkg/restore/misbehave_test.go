package restore

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/fault"
)

// These tests have the app, an operator or another tool interfere with a restore
// at the worst moment.

func (w *world) dockerRun(args ...string) { w.Helper(); disktest.Run(w.T, "docker", args...) }

// during restores sid and calls act when the restore reaches the point.
func (w *world) during(point, sid string, act func(), change ...func(*RestoreRequest)) error {
	w.Helper()
	e, req, acted := w.engine(), w.request(sid), false
	for _, f := range change {
		f(&req)
	}
	at(e, point, func() { acted = true; act() })
	ctx, cancel := context.WithTimeout(w.Context(), 3*time.Minute)
	defer cancel()
	_, err := e.Restore(ctx, req)
	if !acted {
		w.Fatalf("the restore never reached %q: %v", point, err)
	}
	return err
}

// appWorld returns a world with the app up on the old data, and a snapshot of the
// new data.
func appWorld(t *testing.T, image string, lines ...string) (w *world, sid string, states map[string][][]string) {
	t.Helper()
	return newAppWorld(t, appLines(image, lines...))
}

// newAppWorld is appWorld with these lines of the config.
func newAppWorld(t *testing.T, lines []string) (w *world, sid string, states map[string][][]string) {
	t.Helper()
	w = newWorld(t, t.TempDir(), 2, lines...)
	w.fill("new")
	states = map[string][][]string{"new": w.trees()}
	w.deploy()
	sid = w.capture()
	w.fill("old")
	states["old"] = w.trees()
	return w, sid, states
}

// expect fails the test unless all volumes are of this generation and err has this
// kind and code.
func (w *world) expect(states map[string][][]string, generation string, err error, kind fault.Kind, code string) {
	w.Helper()
	if fault.KindOf(err) != kind || codeOf(err) != code {
		w.Errorf("the restore returned %v (kind %d, %q), expected kind %d, %q", err, fault.KindOf(err), codeOf(err), kind, code)
	}
	if got := w.generation(states); got != generation {
		w.Errorf("the data is %s, expected %s", got, generation)
	}
}

// The app ignores its stop signal. It is killed after the stop timeout, and the
// restore goes on.
func TestAnAppThatIgnoresTheSignalIsKilled(t *testing.T) {
	w, sid, states := appWorld(t, image(t), "command: stubborn", "stop_grace_period: 10m")
	before := w.appRuns()
	err := w.during("stopped", sid, func() {
		if now := dockertest.Inspect(t, before.ID); now.Running || now.ExitCode != 137 {
			t.Errorf("the container is %+v, expected it killed", now)
		}
	}, func(r *RestoreRequest) { r.StopTimeout = time.Second })
	w.expect(states, "new", err, fault.Failed, "")
	w.must(err)
	w.appRuns()
	w.clean()
	disktest.Run(t, "docker", "kill", w.name) // it ignores the signal of the clean-up too
}

// dockerd restarts between two exchanges. The fence keeps the restart policy from
// starting the app on half-swapped data.
func TestARestartPolicyDoesNotStartTheAppOnHalfSwappedData(t *testing.T) {
	w, d, sid, states := newEngineWorld(t)
	w.fill("old")
	before := w.appRuns()
	started := func() string {
		c := dockertest.Inspect(t, before.ID)
		return fmt.Sprint(c.Running, c.StartedAt)
	}
	var fenced string
	e := w.engine()
	e.reached = func(p string) {
		switch p {
		case "before swap":
			fenced = started()
		case "exchanged v0":
			restarted.inject(t, d)
			time.Sleep(2 * time.Second) // time for dockerd to start containers by itself
		case "before commit":
			if now := started(); now != fenced {
				t.Errorf("the container was %s and is %s: it started on half-swapped data", fenced, now)
			}
		}
	}
	_, err := e.Restore(t.Context(), w.request(sid))
	w.expect(states, "new", err, fault.Failed, "")
	w.must(err)
	w.appRuns()
	w.clean()
}

// removeImage removes an image that stopped containers still have. An engine with
// the containerd store keeps such an image when only its name is removed.
func removeImage(t *testing.T, name string) {
	t.Helper()
	id := strings.TrimSpace(disktest.Run(t, "docker", "image", "inspect", "--format", "{{.Id}}", name))
	disktest.Run(t, "docker", "image", "rm", "--force", id)
}

// The image of the app is removed during the restore, and the config asks for another
// container than the one that ran: the restore rolls back. If the config asks for the
// same, the old container starts on the new data.
func TestAnImageRemovedMeanwhileRollsBackUnlessTheOldContainerWillDo(t *testing.T) {
	name := image(t)
	w, sid, states := appWorld(t, name)
	before := w.appRuns()
	same := func() {
		t.Helper()
		if after := w.appRuns(); after.ID != before.ID {
			t.Error("the old container is not back")
		}
		w.clean()
	}
	config, err := os.ReadFile(w.config)
	w.must(err)
	w.must(os.WriteFile(w.config, bytes.Replace(config, []byte("restart: unless-stopped"), []byte("restart: unless-stopped\n    hostname: other"), 1), 0o600))
	err = w.during("fence", sid, func() { removeImage(t, name) })
	w.expect(states, "old", err, fault.RolledBack, "image_missing")
	same()

	w.must(os.WriteFile(w.config, config, 0o600))
	_, err = w.engine().Restore(t.Context(), w.request(sid))
	w.expect(states, "new", err, fault.Failed, "")
	w.must(err)
	same()
}

// The app's port is taken during the restore, which rolls back but cannot start
// the app either. A recovery starts the app once the port is free.
func TestAPortTakenMeanwhileRollsBackAndARecoveryStartsTheApp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	w, sid, states := appWorld(t, image(t), `ports: ["`+address+`:8080"]`)
	before := w.appRuns()
	err = w.during("fence", sid, func() {
		if l, err = net.Listen("tcp", address); err != nil {
			t.Fatal(err)
		}
	})
	defer l.Close()
	w.expect(states, "old", err, fault.RolledBack, "port_taken")
	// The old container cannot get the port either.
	list, err := w.engine().Recover(t.Context(), RecoverRequest{})
	if fault.KindOf(err) != fault.RolledBack || codeOf(err) != "app_not_up" || len(list) != 1 || !list[0].Pending {
		t.Errorf("recover returned %+v, %v; expected app_not_up", list, err)
	}
	l.Close()
	w.recoverTwice()
	w.expect(states, "old", nil, fault.Failed, "")
	if after := w.appRuns(); after.ID != before.ID {
		t.Error("the old container is not back")
	}
}

// The health check hangs on the new data. What the check itself may take ends the wait,
// since the health timeout is shorter, and the restore rolls back.
func TestAHealthCheckThatNeverEndsIsUnhealthy(t *testing.T) {
	w, _, _ := newAppWorld(t, briefLines(image(t)))
	w.must(os.WriteFile(filepath.Join(w.volumes[0], "hang"), nil, 0o644))
	sid := w.capture()
	w.fill("old")
	states := map[string][][]string{"old": w.trees()}
	before := w.appRuns()
	err := w.during("redeployed", sid, func() {
		if n := len(w.containers()); n != 2 {
			t.Errorf("%d containers, expected the old and the new", n)
		}
	}, func(r *RestoreRequest) { r.HealthTimeout = time.Second })
	w.expect(states, "old", err, fault.RolledBack, "unhealthy")
	if err == nil || !strings.Contains(err.Error(), "not healthy after 2.5s") {
		t.Errorf("the restore returned %v, expected the health timeout to end the wait", err)
	}
	if after := w.appRuns(); after.ID != before.ID {
		t.Error("the old container is not back")
	}
	w.clean()
}

// The app's container is removed by hand during the restore. It is recreated from
// the config, on the new data and also when the restore rolls back.
func TestAContainerRemovedByHandIsRecreated(t *testing.T) {
	w, sid, states := appWorld(t, image(t), givesUp)
	points := []string{"fence", "commit"}
	if allPoints() {
		points = []string{"stage", "ready", "stopped", "fence", "publish", "before swap", "exchanged v0", "swap", "commit"}
	}
	for _, point := range points {
		w.fill("old")
		before := w.appRuns()
		err := w.during(point, sid, func() { w.dockerRun("rm", "-f", before.ID) })
		w.expect(states, "new", err, fault.Failed, "")
		w.must(err)
		if after := w.appRuns(); after.ID == before.ID {
			t.Errorf("at %q: the container has the id of the removed one", point)
		}
		w.clean()
	}
	// The same with new data that makes the app unhealthy: only the config is left
	// to recreate the old container from.
	w.sicken()
	sid = w.capture()
	w.fill("old")
	states = map[string][][]string{"old": w.trees()}
	err := w.during("fence", sid, func() { w.dockerRun("rm", "-f", w.name) })
	w.expect(states, "old", err, fault.RolledBack, "unhealthy")
	w.appRuns()
	w.clean()
}

// The app's own container, or another one on a volume, is started during the swap.
// The restore rolls back: the container saw old and new data mixed, and its writes
// to the displaced trees would be lost.
func TestAContainerStartedDuringTheSwapRollsBack(t *testing.T) {
	w, sid, states := appWorld(t, image(t))
	type start struct{ point, who string }
	starts := []start{{"before swap", "own"}, {"exchanged v0", "foreign"}}
	if allPoints() {
		starts = nil
		for _, point := range []string{"fence", "before swap", "exchanged v0", "exchanged v1", "swap"} {
			starts = append(starts, start{point, "own"}, start{point, "foreign"})
		}
	}
	for _, s := range starts {
		w.fill("old")
		states["old"] = w.trees()
		before := w.appRuns()
		remove := func() {}
		err := w.during(s.point, sid, func() {
			if s.who == "own" {
				w.dockerRun("start", before.ID)
			} else {
				remove = w.stranger(w.volumes[1], true)
			}
		})
		remove()
		w.expect(states, "old", err, fault.RolledBack, "in_use")
		if s.who == "foreign" && (s.point == "exchanged v1" || s.point == "swap") {
			w.recoverTwice() // it held the new tree, which stays until nobody does
		}
		if after := w.appRuns(); after.ID != before.ID {
			t.Error("the old container is not back")
		}
		w.clean()
		if t.Failed() {
			t.Fatalf("after the %s container was started at %q", s.who, s.point)
		}
	}
}
