package docker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"

	"github.com/tiny-forge/snap/pkg/docker/engine"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// upSince is a Redeploy that remembers since when the app was up.
func upSince(up *time.Time) runtime.Redeploy {
	return runtime.Redeploy{HealthTimeout: time.Minute, Up: func(since time.Time) { *up = since }}
}

func (b *bench) started(id string) time.Time {
	b.Helper()
	at, err := time.Parse(time.RFC3339Nano, b.look(id).State.StartedAt)
	b.must(err)
	return at
}

// TestACheckThatFailsEarlyIsNoVerdict: what the engine calls unhealthy comes up when it
// has recovered, and a long start_period counts although the timeout is short.
func TestACheckThatFailsEarlyIsNoVerdict(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		check   string
		timeout time.Duration
		until   events.Action // of which five are waited for
	}{
		"the engine says unhealthy":      {"interval: 200ms, timeout: 2s, retries: 1", time.Minute, events.ActionExecDie},
		"start_period above the timeout": {"interval: 200ms, timeout: 2s, retries: 1, start_period: 5m", time.Millisecond, events.ActionExecDie},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			ref, _ := b.image("one")
			r, held := b.open(b.app(ref, "healthcheck: {test: [CMD, /app, check], "+c.check+"}")), b.held()
			b.sick(true)
			told := b.news(b.name, c.until)
			status := make(chan container.HealthStatus, 1)
			go func() {
				for range 5 {
					<-told
				}
				status <- b.look(b.name).State.Health.Status
				b.sick(false)
			}()
			var up time.Time
			d := upSince(&up)
			d.HealthTimeout = c.timeout
			b.must(r.Redeploy(b.Context(), held, d))
			was := <-status
			if want := strings.Contains(c.check, "start_period"); (was == container.Starting) != want || (was == container.Unhealthy) == want {
				t.Errorf("the engine called it %s", was)
			}
			if now := b.only(r); !now.Running || !up.After(b.started(now.ID).Add(4*200*time.Millisecond)) {
				t.Errorf("up since %v, %+v", up, now)
			}
		})
	}
}

// TestTheOwnCheckIsRunWhileTheEnginesIsFarAway: the engine's first probe comes after a
// minute. Nobody waits for it, and the app is up since its check passed.
func TestTheOwnCheckIsRunWhileTheEnginesIsFarAway(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ test, change string }{
		"CMD":      {"[CMD, /app, check]", ""},
		"the user": {"[CMD, /app, am, '1000', /data]", "USER 1000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			var changes []string
			if c.change != "" {
				changes = []string{c.change}
			}
			ref, _ := b.image("one", changes...)
			r, held := b.open(b.app(ref, "healthcheck: {test: "+c.test+", interval: 1m}", "working_dir: /data")), b.held()
			b.sick(true)
			told := b.news(b.name, events.ActionExecDie)
			go func() {
				for range 2 {
					<-told
				}
				b.sick(false)
			}()
			var up time.Time
			b.must(r.Redeploy(b.Context(), held, upSince(&up)))
			now := b.look(b.only(r).ID)
			if len(now.State.Health.Log) > 0 || now.State.Health.Status != container.Starting {
				t.Errorf("the engine probed: %+v", now.State.Health)
			}
			if up.Before(b.started(now.ID)) || up.After(time.Now()) {
				t.Errorf("up since %v", up)
			}
		})
	}
}

func TestTheOwnCheckUsesTheContainersShell(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	id := b.foreign("shell", ref, func(c *container.Config, _ *container.HostConfig) {
		c.Shell, c.Healthcheck = []string{"/app"}, &container.HealthConfig{Test: []string{"CMD-SHELL", "check"}, Interval: time.Minute}
	})
	b.must(b.open(b.app(ref)).e.WaitHealthy(b.Context(), &engine.Watch{ID: id}, time.Minute))
}

// TestTheOwnCheckKeepsToItsTimeout: one that hangs is killed, never more than one runs
// at a time, and none is left.
func TestTheOwnCheckKeepsToItsTimeout(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	r, held := b.open(b.app(ref, "healthcheck: {test: [CMD, /app, check], interval: 1m, timeout: 1s}")), b.held()
	hang := filepath.Join(b.dir, "data", "hang")
	b.must(os.WriteFile(hang, nil, 0o644))
	starts, ends := b.news(b.name, events.ActionExecStart), b.news(b.name, events.ActionExecDie)
	go func(ends <-chan events.Message) {
		for range 2 {
			if end := <-ends; end.Actor.Attributes["exitCode"] != "137" {
				b.Errorf("a check that hangs ended with %q, want it killed", end.Actor.Attributes["exitCode"])
			}
		}
		b.must(os.Remove(hang))
	}(ends)
	b.must(r.Redeploy(b.Context(), held, runtime.Redeploy{}))
	var last int64
	for len(starts) > 0 {
		at := (<-starts).TimeNano
		if last != 0 && time.Duration(at-last) < time.Second {
			t.Errorf("a check began %v after the one before, which had a second", time.Duration(at-last))
		}
		last = at
	}
	b.noCheckRuns(b.only(r).ID)

	// The wait is interrupted as soon as a check begins, long before the engine's own.
	b.must(os.WriteFile(hang, nil, 0o644))
	ctx, cancel := context.WithCancel(b.Context())
	starts, ends = b.news(b.name, events.ActionExecStart), b.news(b.name, events.ActionExecDie)
	go func(starts <-chan events.Message) { <-starts; cancel() }(starts)
	if err := r.e.WaitHealthy(ctx, &engine.Watch{ID: b.only(r).ID}, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if end := <-ends; end.Actor.Attributes["exitCode"] != "137" {
		t.Errorf("the first check that ends after the interruption ends with %q, want snap's own, killed", end.Actor.Attributes["exitCode"])
	}
	b.noCheckRuns(b.only(r).ID)
}

func (b *bench) noCheckRuns(id string) {
	b.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) { // the engine learns late of an end
		left := slices.DeleteFunc(b.look(id).ExecIDs, func(id string) bool {
			exec, err := b.api.ContainerExecInspect(b.Context(), id)
			return err != nil || !exec.Running
		})
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("checks are left: %q", left)
		}
	}
}

func TestWithoutACheckTheAppIsUpSinceItsStart(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	r, held := b.open(b.app(ref)), b.held()
	var up time.Time
	b.must(r.Redeploy(b.Context(), held, upSince(&up)))
	if began := b.started(b.only(r).ID); !up.Equal(began) || time.Since(began) < engine.Steady {
		t.Errorf("up since %v, started at %v", up, began)
	}
}

// TestACrashLoopIsAVerdict: long before the deadline, but not while something that the
// container may be waiting for is coming up.
func TestACrashLoopIsAVerdict(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	r := b.open(b.app(ref))
	run := func(name, policy string, retries int, check *container.HealthConfig, cmd ...string) string {
		return b.foreign(name, ref, func(c *container.Config, h *container.HostConfig) {
			c.Cmd, c.Healthcheck = cmd, check
			h.Binds = []string{filepath.Join(b.dir, "data") + ":/data"}
			h.RestartPolicy = container.RestartPolicy{Name: container.RestartPolicyMode(policy), MaximumRetryCount: retries}
		})
	}
	var wg sync.WaitGroup
	for name, c := range map[string]struct {
		policy  string
		retries int
		code    string
		want    string
	}{
		"always": {"always", 0, "1", "over and over"}, "unless-stopped": {"unless-stopped", 0, "0", "over and over"},
		"on-failure": {"on-failure", 0, "1", "over and over"}, "gives-up": {"on-failure", 2, "1", "does not start it again"},
	} {
		id := run(name, c.policy, c.retries, nil, "exit", c.code)
		wg.Go(func() {
			err := r.e.WaitHealthy(b.Context(), &engine.Watch{ID: id}, 10*time.Minute)
			var sick *runtime.Unhealthy
			if !errors.As(err, &sick) || !strings.Contains(sick.Reason, c.want) || !strings.Contains(sick.Reason, "giving up") {
				t.Errorf("%s: got %v, want an Unhealthy: %s", name, err, c.want)
			}
		})
	}
	wg.Wait()

	// The verdict about one ends the wait for another.
	b.sick(true)
	checked := run("checked", "no", 0, &container.HealthConfig{Test: []string{"CMD", "/app", "check"}, Interval: 200 * time.Millisecond})
	ended := run("ended", "no", 0, nil, "exit", "4")
	err := r.e.WaitAll(b.Context(), []*engine.Watch{{ID: checked}, {ID: ended}}, runtime.Redeploy{HealthTimeout: time.Minute})
	var sick *runtime.Unhealthy
	if !errors.As(err, &sick) || !strings.Contains(sick.Container, "-ended") || errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want an Unhealthy of the one that ended", err)
	}

	// The app crashes until the database is there.
	b.sick(true)
	db := run("db", "no", 0, &container.HealthConfig{Test: []string{"CMD", "/app", "check"}, Interval: 200 * time.Millisecond})
	app := run("app", "always", 0, nil, "serve-unless-sick")
	told := b.news(app, events.ActionDie)
	go func() {
		for range engine.Loops + 1 {
			<-told
		}
		b.sick(false)
	}()
	b.must(r.e.WaitAll(b.Context(), []*engine.Watch{{ID: app}, {ID: db}}, runtime.Redeploy{HealthTimeout: time.Minute}))
	if n := b.look(app).RestartCount; n <= engine.Loops {
		t.Errorf("it was restarted only %d times", n)
	}
}

// TestWhatHadCrashedIsStartedAndNamed: it comes up on data that lets it, and says so
// where it crashes again. The redeploy is done in both cases.
func TestWhatHadCrashedIsStartedAndNamed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, id := b.image("one")
	r, held := b.open(b.app(ref, "command: serve-unless-sick")), b.held()
	b.deployed(r, held)
	b.sick(true)
	zero := 0
	b.must(b.api.ContainerRestart(b.Context(), b.name, container.StopOptions{Timeout: &zero}))
	for b.look(b.name).State.Running {
		b.moment()
	}
	before, err := r.Containers(b.Context())
	b.must(err)
	if len(before) != 1 || before[0].Running || !before[0].Crashed || !runtime.Containers(before).Ran() {
		t.Fatalf("after a crash: %+v", before)
	}
	pins := map[string]runtime.Pin{"": {Image: ref, ImageID: id}}
	b.must(r.FenceAndStop(b.Context(), time.Second))
	err = r.Redeploy(b.Context(), held, runtime.Redeploy{Pins: pins, Before: before})
	var again *runtime.Crashed
	if !errors.As(err, &again) || len(again.Containers) != 1 || !strings.Contains(again.Containers[0], b.name) || !strings.Contains(err.Error(), "giving up: sick") {
		t.Fatalf("got %v, want a Crashed with the name and the log", err)
	}
	if now := b.only(r); now.ID == before[0].ID || !now.Crashed {
		t.Errorf("the redeploy is not done: %+v", now)
	}
	b.sick(false)
	before, err = r.Containers(b.Context())
	b.must(err)
	b.must(r.Redeploy(b.Context(), held, runtime.Redeploy{Pins: pins, Before: before}))
	if now := b.only(r); !now.Running || now.Crashed {
		t.Errorf("not up on data that lets it: %+v", now)
	}
}

// TestStoppedIsNotCrashed asks the engine what a container looks like that was stopped,
// has ended, or crashes.
func TestStoppedIsNotCrashed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	r := b.open(b.app(ref))
	var wg sync.WaitGroup
	for name, c := range map[string]struct {
		policy  string
		cmd     []string
		memory  int64
		stop    bool
		crashed bool
	}{
		"stopped": {"no", []string{"serve"}, 0, true, false}, "killed": {"no", []string{"stubborn"}, 0, true, false},
		"stopped-always": {"always", []string{"stubborn"}, 0, true, false}, "stopped-in-a-loop": {"always", []string{"exit", "1"}, 0, true, false},
		"ended": {"no", []string{"exit", "0"}, 0, false, false}, "failed": {"no", []string{"exit", "3"}, 0, false, true},
		"loops": {"always", []string{"exit", "1"}, 0, false, true}, "gave-up": {"on-failure", []string{"exit", "1"}, 0, false, true},
		"memory": {"no", []string{"eat"}, 16 << 20, false, true},
	} {
		wg.Go(func() {
			id := b.foreign(name, ref, func(cc *container.Config, h *container.HostConfig) {
				cc.Cmd, h.Memory = c.cmd, c.memory
				h.RestartPolicy.Name = container.RestartPolicyMode(c.policy)
				if c.policy == "on-failure" {
					h.RestartPolicy.MaximumRetryCount = 1
				}
			})
			if c.stop {
				for c.cmd[0] != "exit" && !strings.Contains(b.logs(id), "ready") { // before that SIGTERM ends it
					b.moment()
				}
				soon := 1
				b.must(b.api.ContainerStop(b.Context(), id, container.StopOptions{Timeout: &soon}))
			}
			for deadline := time.Now().Add(time.Minute); ; {
				got, err := r.e.Inspect(b.Context(), id)
				b.must(err)
				resting := got.Raw.State.Status == "exited" || got.Raw.State.Restarting
				if resting && got.Crashed == c.crashed {
					return
				}
				if time.Now().After(deadline) {
					b.Errorf("%s: crashed is %t, %+v", name, got.Crashed, got.Raw.State)
					return
				}
				if state := got.Raw.State; c.memory > 0 && resting && state.ExitCode == 137 && !state.OOMKilled {
					// The engine has missed what the kernel did: 20.10 sometimes does.
					b.must(b.api.ContainerStart(b.Context(), id, container.StartOptions{}))
				}
				b.moment()
			}
		})
	}
	wg.Wait()
}
