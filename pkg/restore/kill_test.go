package restore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/runtime"
)

func testTime() time.Time { return time.Now() }

// TestMain lets the test binary be the process that a test kills.
func TestMain(m *testing.M) {
	if verb := os.Getenv("SNAP_TEST_VERB"); verb != "" {
		os.Exit(child(verb))
	}
	code := m.Run()
	stopPrivate()
	os.Exit(code)
}

// child runs one operation, prints the points that it reaches, and kills itself at
// the n-th of them or at the named one.
func child(verb string) int {
	e, done, err := openEngine(os.Getenv("SNAP_TEST_CONFIG"))
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	defer done()
	at, _ := strconv.Atoi(os.Getenv("SNAP_TEST_AT"))
	n := 0
	e.reached = func(point string) {
		n++
		fmt.Println("point:", point)
		if n == at || point == os.Getenv("SNAP_TEST_POINT") {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	name, sid := os.Getenv("SNAP_TEST_WORKLOAD"), os.Getenv("SNAP_TEST_SID")
	req := RestoreRequest{Workload: name, SID: sid, Confirm: sid, OnUnhealthy: RevertUnhealthy, HealthTimeout: healthTimeout, Guard: os.Getenv("SNAP_TEST_GUARD")}
	if os.Getenv("SNAP_TEST_BRIEFLY") != "" {
		req = briefly(req)
	}
	switch verb {
	case "restore":
		_, err = e.Restore(context.Background(), req)
	case "capture":
		_, err = e.Capture(context.Background(), CaptureRequest{Workload: name, Quiesce: os.Getenv("SNAP_TEST_QUIESCE")})
	case "recover":
		_, err = e.Recover(context.Background(), RecoverRequest{})
	case "resolve":
		_, err = e.Resolve(context.Background(), ResolveRequest{Workload: name, Keep: os.Getenv("SNAP_TEST_KEEP"), Confirm: sid})
	}
	if err != nil {
		fmt.Println("error:", err)
		return 10 + int(fault.KindOf(err))
	}
	return 0
}

// run runs a verb in its own process, which is killed at the n-th point (0:
// never). It returns the points that were reached and whether it was killed.
func (w *world) run(verb, sid string, at int, env ...string) (points []string, killed bool) {
	w.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SNAP_TEST_VERB="+verb, "SNAP_TEST_CONFIG="+w.config, "SNAP_TEST_WORKLOAD="+w.name,
		"SNAP_TEST_SID="+sid, "SNAP_TEST_AT="+strconv.Itoa(at))
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.Output()
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	for lines.Scan() {
		if point, ok := strings.CutPrefix(lines.Text(), "point: "); ok {
			points = append(points, point)
		} else {
			w.Logf("%s: %s", verb, lines.Text())
		}
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		ws, _ := exit.Sys().(syscall.WaitStatus)
		return points, ws.Signaled()
	}
	w.must(err)
	return points, false
}

// killGuardAfter runs a restore with --guard after and kills it at a point.
func (w *world) killGuardAfter(sid, point string) {
	w.Helper()
	if points, killed := w.run("restore", sid, 0, "SNAP_TEST_GUARD=after", "SNAP_TEST_POINT="+point); !killed {
		w.Fatalf("the restore was not killed: %q", points)
	}
}

// recoverTwice recovers twice: the first recovery must succeed, and the second
// must find nothing to do.
func (w *world) recoverTwice() {
	w.Helper()
	if _, err := w.engine().Recover(w.Context(), RecoverRequest{}); err != nil {
		w.Fatalf("recover: %v", err)
	}
	again, err := w.engine().Recover(w.Context(), RecoverRequest{})
	if err != nil || len(again) != 0 {
		w.Fatalf("the second recover found %+v, %v", again, err)
	}
	w.clean()
}

// commitPoint is the first point after the commit.
const commitPoint = "commit"

// A restore is killed at each of its points: recovery leaves all volumes old
// before the commit, and all new after it.
func TestARestoreKilledAnywhereIsAllOldOrAllNew(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, 3)
		w.killEverywhere(func() {})
	})
}

// The same with an app in a container, which runs again after each recovery.
func TestARestoreKilledAnywhereBringsTheAppBack(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2, appLines(image(t))...)
	w.fill("new")
	w.deploy()
	w.killEverywhere(func() { w.appRuns() })
}

// killEverywhere kills a restore at each of its points in turn, and recovers.
func (w *world) killEverywhere(appRuns func()) { w.killEvery(1, 1, appRuns) }

// killEvery kills a restore at every stride-th of its points from the first on.
func (w *world) killEvery(first, stride int, appRuns func()) {
	w.Helper()
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	sid := w.capture()
	for at := first; ; at += stride {
		w.fill("old")
		states["old"] = w.trees()
		points, killed := w.run("restore", sid, at)
		if !killed {
			if at < 15 {
				w.Fatalf("only %d points: %q", at-1, points)
			}
			if got := w.generation(states); got != "new" {
				w.Errorf("a restore that was not killed left the %s data", got)
			}
			appRuns()
			w.clean()
			return
		}
		last := points[len(points)-1]
		want := "old"
		for _, p := range points {
			if p == commitPoint {
				want = "new"
			}
		}
		w.checkGuarded(points)
		w.recoverTwice()
		if got := w.generation(states); got != want {
			w.Errorf("killed at %q: the volumes are %s, expected %s", last, got, want)
		}
		appRuns()
		if w.Failed() {
			w.Fatalf("after a kill at %q", last)
		}
	}
}

// checkGuarded fails the test if a live directory moved before the pre-restore
// snapshot was published.
func (w *world) checkGuarded(points []string) {
	w.Helper()
	for _, p := range points {
		if !strings.HasPrefix(p, "exchanged") {
			continue
		}
		list := w.snapshots()
		if len(list) == 0 || list[0].Reason != "pre-restore" {
			w.Fatalf("a directory was exchanged, and no pre-restore snapshot exists")
		}
		return
	}
}

// A recovery is killed at each of its points. The next one ends in the same
// direction.
func TestARecoveryKilledAnywhereIsFinishedByTheNext(t *testing.T) {
	for _, point := range []string{"exchanged v0", "swap", "commit", "discarded"} {
		t.Run(point, func(t *testing.T) {
			w := newWorld(t, disktest.Mount(t, "ext4", 256), 3)
			w.fill("new")
			states := map[string][][]string{"new": w.trees()}
			sid := w.capture()
			whole, _ := w.run("restore", sid, 0)
			want := map[string]string{"exchanged v0": "old", "swap": "old", "commit": "new", "discarded": "new"}[point]
			for at := 1; ; at++ {
				w.fill("old")
				states["old"] = w.trees()
				w.killAt("restore", sid, point, whole)
				_, killed := w.run("recover", "", at)
				if killed {
					w.recoverTwice()
				}
				if got := w.generation(states); got != want {
					t.Fatalf("recovery killed at point %d: the volumes are %s, expected %s", at, got, want)
				}
				w.clean()
				if !killed {
					return
				}
			}
		})
	}
}

// killAt runs a verb and kills it at the point, whose number is that in the whole
// run.
func (w *world) killAt(verb, sid, point string, whole []string) {
	w.Helper()
	points, killed := w.run(verb, sid, slices.Index(whole, point)+1)
	if !killed || points[len(points)-1] != point {
		w.Fatalf("%s was not killed at %q: %q", verb, point, points)
	}
}

// The app is unhealthy on the new data, and the restore is killed while it
// reverts. Recovery leaves the old data, with the app up.
func TestARestoreKilledWhileItRevertsIsAllOld(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2, appLines(image(t), givesUp)...)
	w.fill("new")
	w.deploy()
	// The new data makes the app unhealthy; the app that runs now is healthy.
	w.sicken()
	sid := w.capture()
	whole, _ := w.run("restore", sid, 0)
	seen := map[string]bool{}
	// TestARestoreKilledAnywhereBringsTheAppBack has the points before that.
	for at := slices.Index(whole, "before commit") + 1; ; at++ {
		w.fill("old")
		states := map[string][][]string{"old": w.trees()}
		before := w.appRuns()
		points, killed := w.run("restore", sid, at)
		last := points[len(points)-1]
		seen[last] = true
		if killed {
			w.recoverTwice()
		}
		w.generation(states)
		if c := w.appRuns(); c.ID != before.ID && !killed {
			t.Errorf("the old container was %s, but %s runs", before.ID, c.ID)
		}
		w.clean()
		if t.Failed() {
			t.Fatalf("after a kill at %q", last)
		}
		if !killed {
			break
		}
	}
	if !seen["before revert"] || !seen["revert"] {
		t.Errorf("the restore never reverted: %v", seen)
	}
}

// A capture is killed at each of its points, also while the app is paused or
// stopped. Recovery brings the same container back.
func TestACaptureKilledAnywhereLeavesTheAppRunning(t *testing.T) {
	name := image(t)
	for _, quiesce := range []string{runtime.Pause, runtime.Stop} {
		t.Run(quiesce, func(t *testing.T) {
			w := newWorld(t, t.TempDir(), 1, appLines(name)...)
			w.fill("data")
			w.deploy()
			before := w.appRuns()
			quiesced := false
			for at := 1; ; at++ {
				points, killed := w.run("capture", "", at, "SNAP_TEST_QUIESCE="+quiesce)
				if !killed {
					break
				}
				if points[len(points)-1] == "quiesced" {
					c := w.containers()[0]
					quiesced = c.Paused || !c.Running
					list, err := w.engine().Recover(t.Context(), RecoverRequest{})
					if err != nil || len(list) != 1 || list[0].Action != Thawed {
						t.Errorf("recover found %+v, %v; expected one thawed", list, err)
					}
				}
				w.recoverTwice()
				if c := w.appRuns(); c.ID != before.ID {
					t.Errorf("the container was replaced")
				}
			}
			if !quiesced {
				t.Error("the app was never quiesced")
			}
		})
	}
}

// A capture is killed at each of its points. Nobody recovers: the next night's clears
// away what it left and succeeds, unless the app is at rest, which a person has to see.
func TestANightThatIsKilledDoesNotStopTheNext(t *testing.T) {
	name := image(t)
	for _, quiesce := range []string{runtime.Pause, runtime.Stop, runtime.None} {
		t.Run(quiesce, func(t *testing.T) {
			var lines []string
			if quiesce != runtime.None {
				lines = appLines(name)
			}
			w := newWorld(t, t.TempDir(), 1, lines...)
			w.fill("data")
			if quiesce != runtime.None {
				w.deploy()
			}
			cleared, refused := 0, 0
			for at := 1; ; at++ {
				points, killed := w.run("capture", "", at, "SNAP_TEST_QUIESCE="+quiesce)
				if !killed {
					break
				}
				left, err := w.engine().Journal.List()
				w.must(err)
				atRest := false
				for _, c := range w.containers() {
					atRest = atRest || c.Paused || !c.Running
				}
				_, err = w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: quiesce})
				if atRest {
					if codeOf(err) != "unfinished" {
						t.Errorf("killed at %s with the app at rest: %v", points[len(points)-1], err)
					}
					refused++
					w.recoverTwice()
				} else if err != nil {
					t.Errorf("killed at %s: the next capture failed: %v", points[len(points)-1], err)
				} else if cleared += len(left); quiesce != runtime.None {
					w.appRuns()
				}
				w.clean()
			}
			if cleared == 0 || (refused == 0) != (quiesce == runtime.None) {
				t.Errorf("%d transactions were cleared away, and %d captures refused", cleared, refused)
			}
		})
	}
}
