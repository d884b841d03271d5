package engine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/tiny-forge/snap/pkg/crew"
	"github.com/tiny-forge/snap/pkg/runtime"
)

const (
	poll = 100 * time.Millisecond
	// Steady is how long a container without a health check must run at a stretch,
	// and how long one that the engine could start again must stay down, to be judged.
	Steady = 3 * time.Second
	// Loops is how many restarts are a crash loop, once everything else is up. The
	// engine doubles its pause before each, from 100 ms (moby's restartmanager), so
	// five take three seconds and what the program itself needs.
	Loops = 5
)

// Watch is one container on its way to health.
type Watch struct {
	ID string // of the container
	// MayEnd is set for a container that does its work and exits with success.
	MayEnd bool
	// Crashed is set for a container that had crashed before: one that fails again
	// says nothing about the new data.
	Crashed bool
	group   *group
	left    bool // the group, see leave

	began time.Time // when the wait began
	run   string    // StartedAt of the run that is watched, and
	since time.Time // when it was first seen

	looked   bool
	restarts int       // RestartCount up to which no restart counts
	down     time.Time // when it was first seen down, of one that could start again
	last     string    // the last thing that kept it from being healthy

	probe probe // of its own health check, by snap
}

// verdict is what there is to say about a container at one moment.
type verdict struct {
	up  time.Time // healthy, and since when it has been up
	bad string    // it will not become healthy, and why
}

// group is what containers on their way to health know of one another.
type group struct {
	mu     sync.Mutex
	coming int       // how many are coming up, without those that crash over and over
	up     time.Time // since when all that are healthy have been so
	again  []string  // those that had crashed before, and did so again
}

// leave says that a container is no longer one that another could be waiting for.
func (g *group) leave(w *Watch) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !w.left {
		w.left = true
		g.coming--
	}
}

// alone reports whether no other container is coming up. Only one that has crashed
// asks: nobody need wait for it.
func (g *group) alone(w *Watch) bool {
	g.leave(w)
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.coming == 0
}

// WaitAll waits for containers at once. It returns a [*runtime.Unhealthy] for one that
// is not healthy, as soon as there is one, or else a [*runtime.Crashed] with those that
// had crashed before and did so again. It tells r.Up since when the others have been up.
func (e *Engine) WaitAll(ctx context.Context, watches []*Watch, r runtime.Redeploy) error {
	g := &group{coming: len(watches)}
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	errs := make([]error, len(watches))
	var wg sync.WaitGroup
	for i, w := range watches {
		w.group = g
		wg.Go(func() {
			errs[i] = crew.Catch(func() error { return e.waitOne(waiting, w, r.HealthTimeout) })
			if errs[i] != nil {
				stop()
			}
		})
	}
	wg.Wait()
	err := errors.Join(errs...)
	crew.Raise(err)
	if sick, ok := errors.AsType[*runtime.Unhealthy](err); ok && ctx.Err() == nil {
		return sick // and the others were not waited for
	}
	if err != nil {
		return err
	}
	if r.Up != nil && !g.up.IsZero() {
		r.Up(g.up)
	}
	if len(g.again) > 0 {
		return &runtime.Crashed{Containers: g.again}
	}
	return nil
}

// WaitHealthy waits for one container: see [Engine.WaitAll].
func (e *Engine) WaitHealthy(ctx context.Context, w *Watch, timeout time.Duration) error {
	return e.WaitAll(ctx, []*Watch{w}, runtime.Redeploy{HealthTimeout: timeout})
}

func (e *Engine) waitOne(ctx context.Context, w *Watch, timeout time.Duration) error {
	up, err := e.wait(ctx, w, timeout)
	w.group.leave(w)
	w.group.mu.Lock()
	defer w.group.mu.Unlock()
	if sick, ok := errors.AsType[*runtime.Unhealthy](err); ok && w.Crashed {
		w.group.again = append(w.group.again, sick.Container+" ("+sick.Reason+")")
		return nil
	}
	if up.After(w.group.up) {
		w.group.up = up
	}
	return err
}

// wait returns since when a container has been up, once it is healthy, and a
// [*runtime.Unhealthy] when it is not at its deadline, or cannot become so.
//
// The deadline is the later of timeout and of what the container's own check allows. A
// check that fails before that, even one that the engine calls unhealthy, says little:
// a database that recovers after a crash, or an app that migrates its data, answers
// late and is well.
func (e *Engine) wait(ctx context.Context, w *Watch, timeout time.Duration) (time.Time, error) {
	w.began = time.Now()
	defer w.probe.end()
	for {
		c, err := e.Inspect(ctx, w.ID)
		if err != nil {
			return time.Time{}, err
		}
		if c == nil {
			return time.Time{}, fmt.Errorf("container %.12s was removed while snap waited for its health", w.ID)
		}
		if c.Active() && w.run != c.Raw.State.StartedAt {
			if err := e.attach(ctx, c, c); err != nil {
				return time.Time{}, err
			}
		}
		v := w.judge(c)
		if allowed := max(cmp.Or(max(timeout, 0), 2*time.Minute), patienceOf(c.Raw.Config.Healthcheck)); v == (verdict{}) && time.Since(w.began) > allowed {
			v.bad = fmt.Sprintf("not healthy after %v", allowed)
			if w.last != "" {
				v.bad += ": " + w.last
			}
			if len(probesOf(c)) == 0 {
				v.bad += told(w.probe.result())
			}
		}
		switch {
		case v.bad != "":
			return time.Time{}, &runtime.Unhealthy{Container: c.Name, Reason: v.bad + e.Evidence(ctx, c)}
		case !v.up.IsZero():
			return v.up, nil
		}
		e.probeOnce(ctx, w, c)
		if err := sleep(ctx, poll); err != nil {
			return time.Time{}, err
		}
	}
}

// patienceOf is how long a container's own check may take to fail for good.
func patienceOf(check *container.HealthConfig) time.Duration {
	if check == nil || len(check.Test) == 0 || check.Test[0] == "NONE" {
		return 0
	}
	retries := cmp.Or(max(check.Retries, 0), probeRetries)
	return check.StartPeriod + time.Duration(retries)*(intervalOf(check)+timeoutOf(check))
}

// judge says whether a container is healthy, or why it will not become so.
func (w *Watch) judge(c *Container) verdict {
	state := c.Raw.State
	if !state.Running || state.Restarting {
		return w.judgeDown(c)
	}
	w.down = time.Time{}
	if w.run != state.StartedAt {
		w.run, w.since = state.StartedAt, time.Now()
		w.probe.forget()
	}
	if reason := w.looping(c); reason != "" {
		return verdict{bad: reason}
	}
	switch c.Health() {
	case container.NoHealthcheck:
		if state.Paused || time.Since(w.since) < Steady {
			return verdict{}
		}
		return verdict{up: w.startOf(c)}
	case container.Healthy:
		return verdict{up: w.firstPass(c)}
	case container.Unhealthy:
		w.last = "its health check fails"
	default:
		w.last = "its health check has not passed yet"
		// The engine has not made up its mind, so a probe of snap's own counts, unless
		// a later one of the engine has failed.
		if passed := w.probe.passedAt(); passed.After(lastFailure(c)) {
			return verdict{up: passed}
		}
	}
	return verdict{}
}

// judgeDown judges a container that does not run.
func (w *Watch) judgeDown(c *Container) verdict {
	state := c.Raw.State
	w.run = ""
	w.probe.forget()
	w.last = fmt.Sprintf("it exited with code %d", state.ExitCode)
	if state.Error != "" {
		w.last += " (" + runtime.Printable(state.Error) + ")"
	}
	ended := !state.Restarting && state.Status == "exited"
	switch {
	case w.MayEnd && ended && state.ExitCode == 0:
		finished, err := time.Parse(time.RFC3339Nano, state.FinishedAt)
		if err != nil {
			finished = time.Now()
		}
		return verdict{up: finished}
	case c.Policy.Name == Never.Name && state.Status != "created":
		return verdict{bad: w.last}
	case !ended:
		w.down = time.Time{}
		return verdict{bad: w.looping(c)}
	}
	// The engine would start it again, and does not: it has given up, or somebody has
	// stopped the container. Not every engine shows the moment between the two.
	if w.down.IsZero() {
		w.down = time.Now()
	}
	if time.Since(w.down) < Steady {
		return verdict{}
	}
	return verdict{bad: w.last + ", and the engine does not start it again"}
}

// looping says that a container is in a crash loop, "" where it is not.
func (w *Watch) looping(c *Container) string {
	n := c.Raw.RestartCount
	switch {
	case !w.looked || n < w.restarts: // the first look, or somebody has started it
		w.looked, w.restarts = true, n
	case n > w.restarts && !w.group.alone(w):
		w.restarts = n // it may crash until what it needs is there
	case n-w.restarts >= Loops:
		return fmt.Sprintf("it ends and is started again, over and over; %s", cmp.Or(w.last, "it runs for a moment each time"))
	}
	return ""
}

// startOf is when the run of a container began, by the engine's clock, which is the
// host's.
func (w *Watch) startOf(c *Container) time.Time {
	began, err := time.Parse(time.RFC3339Nano, c.Raw.State.StartedAt)
	if err != nil || began.After(w.since) {
		return w.since
	}
	return began
}

// Health is what the container's health check says; NoHealthcheck without one.
func (c *Container) Health() container.HealthStatus {
	if h := c.Raw.State.Health; h != nil {
		return cmp.Or(h.Status, container.NoHealthcheck) // podman 4 says "" where there is none
	}
	return container.NoHealthcheck
}

// probesOf returns what the engine's probes of this run of the container found, the
// latest last. The engine remembers five.
func probesOf(c *Container) []*container.HealthcheckResult {
	if c.Raw.State.Health == nil {
		return nil
	}
	began, _ := time.Parse(time.RFC3339Nano, c.Raw.State.StartedAt)
	return slices.DeleteFunc(slices.Clone(c.Raw.State.Health.Log), func(r *container.HealthcheckResult) bool { return !r.End.After(began) })
}

// lastFailure is when the last probe of the engine failed.
func lastFailure(c *Container) (at time.Time) {
	for _, r := range probesOf(c) {
		if r.ExitCode != 0 {
			at = r.End
		}
	}
	return at
}

// firstPass is since when every probe has passed: the engine's, and those of snap.
func (w *Watch) firstPass(c *Container) time.Time {
	failed := lastFailure(c)
	if own := w.probe.passedAt(); own.After(failed) {
		return own
	}
	for _, r := range probesOf(c) {
		if r.ExitCode == 0 && r.End.After(failed) {
			return r.End
		}
	}
	return time.Now()
}

// Evidence is the end of what the health check and the container's log said.
func (e *Engine) Evidence(ctx context.Context, c *Container) string {
	var text string
	if probes := probesOf(c); c.Running && len(probes) > 0 {
		text = told(probes[len(probes)-1])
	}
	if said := e.logs(ctx, c); said != "" {
		text += "; its log ends with: " + said
	}
	return text
}

// told is what a health check said.
func told(result *container.HealthcheckResult) string {
	if result == nil {
		return ""
	}
	text := fmt.Sprintf("; the check exited with code %d", result.ExitCode)
	if said := runtime.Tail(result.Output); said != "" {
		text += " and said: " + said
	}
	return text
}

// logs returns the last lines that a container logged, "" where it cannot read them.
func (e *Engine) logs(ctx context.Context, c *Container) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	body, err := e.API.ContainerLogs(ctx, c.ID, container.LogsOptions{ShowStdout: true, ShowStderr: true, Tail: "10"})
	if err != nil {
		return ""
	}
	defer body.Close()
	var text bytes.Buffer
	limited := io.LimitReader(body, 64<<10)
	if c.Raw.Config.Tty {
		_, _ = io.Copy(&text, limited)
	} else {
		_, _ = stdcopy.StdCopy(&text, &text, limited)
	}
	return runtime.Tail(text.String())
}
