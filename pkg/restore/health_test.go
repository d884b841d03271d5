package restore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// crash makes the app's data such that it gives up at its start, and starts it anew.
func (w *world) crash() {
	w.Helper()
	w.sicken()
	since := time.Now()
	c := w.appRuns()
	disktest.Run(w.T, "docker", "restart", "-t", "0", w.name)
	// The first end is that of the restart.
	for deadline := time.Now().Add(time.Minute); !dockertest.HappenedTwice(w.T, c.ID, "die", since); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatal("the app did not crash")
		}
	}
}

// An app that has crashed, or crashes over and over, was not stopped on purpose: it comes
// up on data that lets it. Where it crashes again, the restore is done and says so.
func TestWhatHadCrashedComesUpOnTheRestoredData(t *testing.T) {
	name := image(t)
	for _, policy := range []string{"no", "always", "on-failure:1"} {
		t.Run(policy, func(t *testing.T) {
			w := newWorld(t, t.TempDir(), 1, "image: "+name, "restart: "+policy, "command: serve-unless-sick")
			w.policy, _, _ = strings.Cut(policy, ":")
			w.fill("new")
			states := map[string][][]string{"new": w.trees()}
			w.deploy()
			good := w.capture()
			w.fill("old")
			w.crash()
			bad, err := w.engine().Capture(w.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.None})
			w.must(err)

			// The same data again: it crashes as before.
			r, err := w.restore(bad.Manifest.SID)
			if fault.KindOf(err) != fault.Pending || codeOf(err) != "service_crashed" || !strings.Contains(err.Error(), w.name) || !strings.Contains(err.Error(), "giving up: sick") {
				t.Fatalf("the restore returned %v, expected service_crashed with the container and its log", err)
			}
			if r == nil || r.Outcome != Restored {
				t.Errorf("the result is %+v, expected restored", r)
			}
			w.clean()

			_, err = w.restore(good)
			w.must(err)
			w.generation(states)
			w.appRuns()
			w.clean()
		})
	}
}

// reporting is a runtime whose redeploys end so, after the containers are up.
type reporting struct {
	runtime.Runtime
	with error
}

func (r reporting) Redeploy(ctx context.Context, held runtime.Lock, what runtime.Redeploy) error {
	return cmp.Or(r.Runtime.Redeploy(ctx, held, what), r.with)
}

// Whoever crashes again and whoever is missing are both named, also where the clean-up or
// the guard is not finished either, and by a deploy.
func TestWhoIsMissingIsNamedWithWhatElseIsLeft(t *testing.T) {
	name := image(t)
	again, missing := &runtime.Crashed{Containers: []string{"c-crashed (bad)"}}, &runtime.Missing{Containers: []string{"c-missing"}}
	both := fmt.Errorf("%w; and %w", again, missing)
	for what, c := range map[string]struct {
		with  error
		guard string
		held  bool
		code  string
		says  []string // in the message or the hint
	}{
		"both":                  {both, "", false, "service_missing", []string{"c-crashed", "c-missing", "start them by hand", "read the app's log", "snap restore"}},
		"both and held":         {both, "", true, "held", []string{"c-crashed", "c-missing", "kill"}},
		"missing and unguarded": {missing, workload.GuardAfter, true, "guarding", []string{"c-missing", "kill"}},
		"crashed and unguarded": {again, workload.GuardAfter, true, "guarding", []string{"c-crashed", "kill"}},
		"missing alone":         {missing, "", false, "service_missing", []string{"c-missing", "start them by hand"}},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, t.TempDir(), 1, appLines(name)...)
			w.fill("data")
			w.deploy()
			sid := w.capture()
			e := w.engine()
			open := e.Runtime
			e.Runtime = func(ctx context.Context, w *workload.Workload) (runtime.Runtime, error) {
				rt, err := open(ctx, w)
				return reporting{rt, c.with}, err
			}
			var u *uploader
			e.reached = func(point string) {
				if point == "redeployed" && c.held {
					u = upload(t, w.displaced()[0])
				}
			}
			req := w.request(sid)
			req.Guard = c.guard
			_, err := e.Restore(t.Context(), req)
			if fault.KindOf(err) != fault.Pending || codeOf(err) != c.code {
				t.Errorf("the restore returned %v, expected %s", err, c.code)
			}
			for _, part := range c.says {
				if !strings.Contains(fmt.Sprint(err)+hintOf(err), part) {
					t.Errorf("%v, hint %q: nothing says %q", err, hintOf(err), part)
				}
			}
			if u != nil {
				u.stop()
				w.recoverTwice()
			}
			if what != "both" {
				return
			}
			w.edit("restart: unless-stopped", "restart: always")
			e = w.engine()
			e.Runtime = func(ctx context.Context, w *workload.Workload) (runtime.Runtime, error) {
				rt, err := open(ctx, w)
				return reporting{rt, c.with}, err
			}
			_, err = e.Deploy(t.Context(), DeployRequest{Workload: w.name})
			for _, part := range []string{"c-crashed", "c-missing", "start them by hand", "docker logs"} {
				if codeOf(err) != "service_missing" || !strings.Contains(fmt.Sprint(err)+hintOf(err), part) {
					t.Errorf("deploy returned %v, hint %q: nothing says %q", err, hintOf(err), part)
				}
			}
			w.clean()
		})
	}
}

// What the operator has stopped stays so, whatever its policy; and so does work that is
// done.
func TestWhatWasStoppedOrHasEndedIsNotStarted(t *testing.T) {
	name := image(t)
	for what, c := range map[string]struct{ policy, command, stop string }{
		"stopped":               {"no", "serve", "stop"},
		"killed":                {"always", "serve", "kill"},
		"done":                  {"no", "exit 0", "wait"},
		"done under on-failure": {"on-failure", "exit 0", "wait"},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, t.TempDir(), 1, "image: "+name, "restart: '"+c.policy+"'", "command: "+c.command)
			w.fill("new")
			w.Cleanup(w.undeploy)
			_, err := w.engine().Deploy(w.Context(), DeployRequest{Workload: w.name}) // what ends is not healthy
			if c.stop != "wait" {
				w.must(err)
			}
			sid := w.capture()
			disktest.Run(t, "docker", c.stop, w.name)
			before := w.containers()[0]
			_, err = w.restore(sid)
			w.must(err)
			if after := w.containers(); len(after) != 1 || after[0].Running || after[0].Run() != before.Run() {
				t.Errorf("the container is %+v, before it was %+v", after, before)
			}
			w.clean()
		})
	}
}

// The downtime ends when the app is up, not when its container was watched long enough,
// nor when the engine looks for the first time.
func TestTheDowntimeEndsWhenTheAppIsUp(t *testing.T) {
	name := image(t)
	for what, more := range map[string][]string{
		"without a check":        nil,
		"with one once a minute": {"healthcheck: {test: [CMD, /app, check], interval: 1m}"},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, t.TempDir(), 1, append([]string{"image: " + name, "restart: unless-stopped"}, more...)...)
			w.fill("new")
			w.deploy()
			sid := w.capture()
			begin := time.Now()
			var down, back time.Time
			e := w.engine()
			e.reached = func(point string) {
				switch point {
				case "stopped":
					down = time.Now()
				case "redeployed":
					back = time.Now()
				}
			}
			r, err := e.Restore(t.Context(), w.request(sid))
			w.must(err)
			c := w.appRuns()
			up, err := time.Parse(time.RFC3339Nano, c.StartedAt)
			w.must(err)
			reported := time.Duration(r.DowntimeSeconds * float64(time.Second))
			if least := up.Sub(down); reported < least {
				t.Errorf("%v are reported, and the container was down for %v", reported, least)
			}
			// The wait that follows the start of a container without a check is not in it.
			if most := back.Sub(begin); more == nil && reported > most-2*time.Second || reported > most {
				t.Errorf("%v are reported, of %v in all", reported, most)
			}
			if back.Sub(up) > 30*time.Second {
				t.Errorf("the restore waited %v after the start", back.Sub(up))
			}
		})
	}
}

// An app that is not healthy on a snapshot of a paused app may be one that cannot stand a
// power cut. The hint says so, and does not where the app was shut down.
func TestTheHintTellsOfAnAppThatWasOnlyPaused(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1, briefLines(image(t))...)
	w.fill("old")
	w.deploy()
	w.sicken()
	for _, quiesce := range []string{runtime.Pause, runtime.Stop} {
		r, err := w.engine().Capture(w.Context(), CaptureRequest{Workload: w.name, Quiesce: quiesce})
		w.must(err)
		_, err = w.engine().Restore(w.Context(), briefly(w.request(r.Manifest.SID)))
		if hint := fault.Classify(err).Remedy.Text(nil); codeOf(err) != "unhealthy" || strings.Contains(hint, "--quiesce stop") != (quiesce == runtime.Pause) {
			t.Errorf("%s: %v, hint %q", quiesce, err, hint)
		}
	}
}

func TestTheHintNamesTheDigestOfAMissingImage(t *testing.T) {
	for pull, want := range map[string]string{"ghost@sha256:1": "docker pull ghost@sha256:1, then try again", "": "load or pull the image, then try again"} {
		e := fault.Classify(&runtime.MissingImage{Image: "ghost:5", ImageID: "sha256:2", Pull: pull})
		if hint := e.Remedy.Text(nil); e.Kind != fault.Refused || e.Code != "image_missing" || hint != want {
			t.Errorf("%q: %+v, hint %q", pull, e, hint)
		}
	}
}

// heard is what an operation says.
type heard struct {
	nobody
	mu    sync.Mutex
	lines []string
}

func (h *heard) Line(line string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, line)
}

func TestAContainerOfAlsoStopIsAnnounced(t *testing.T) {
	name := image(t)
	w := newWorld(t, t.TempDir(), 1)
	disktest.Run(t, "docker", "run", "-d", "--name", w.name+"-also", "-l", "snap.workload="+w.name, "-v", w.volumes[0]+":/data", name)
	w.Cleanup(w.undeploy)
	w.write(map[string][]string{w.name: {"also_stop: [" + w.name + "-also]", "volumes: [{name: v0, scope: absolute, source: " + w.volumes[0] + "}]"}})
	w.fill("new")
	also := " container " + w.name + "-also, which is listed in also_stop"
	capture := func(quiesce string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := w.engine().Capture(ctx, CaptureRequest{Workload: w.name, Quiesce: quiesce})
			return err
		}
	}
	for _, op := range []struct {
		name, want string
		do         func(context.Context) error
	}{
		{"capture, pause", "pausing" + also, capture(runtime.Pause)},
		{"capture, stop", "stopping" + also, capture(runtime.Stop)},
		{"capture, none", "", capture(runtime.None)},
		{"restore", "stopping" + also, func(ctx context.Context) error {
			_, err := w.engine().Restore(ctx, w.request(w.capture()))
			return err
		}},
	} {
		said := &heard{}
		w.must(op.do(Observe(t.Context(), said)))
		told := slices.DeleteFunc(said.lines, func(line string) bool { return !strings.HasSuffix(line, also) })
		if op.want == "" && len(told) > 0 || op.want != "" && !slices.Equal(told, []string{op.want}) {
			t.Errorf("%s: it says %q, expected %q", op.name, told, op.want)
		}
	}
}
