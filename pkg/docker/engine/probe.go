package engine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/tiny-forge/snap/pkg/crew"
)

// The engine's own settings of a health check (moby's daemon/health.go), where it has
// none.
const (
	probeInterval = 30 * time.Second
	probeTimeout  = 30 * time.Second
	probeRetries  = 3
)

// often is how often snap runs a health check while the engine's next probe is further
// away than that.
const often = time.Second

func intervalOf(check *container.HealthConfig) time.Duration {
	return cmp.Or(max(check.Interval, 0), probeInterval)
}

func timeoutOf(check *container.HealthConfig) time.Duration {
	return cmp.Or(max(check.Timeout, 0), probeTimeout)
}

// nextProbe is when the engine's next probe is due: an interval after the end of the
// one before, which the engine logs (monitor in moby's daemon/health.go). It is false
// where there will be none.
func nextProbe(c *container.InspectResponse) (time.Time, bool) {
	check, health := c.Config.Healthcheck, c.State.Health
	if check == nil || health == nil || health.Status == "" || health.Status == container.NoHealthcheck || !c.State.Running || c.State.Paused {
		return time.Time{}, false
	}
	began, err := time.Parse(time.RFC3339Nano, c.State.StartedAt)
	if err != nil {
		return time.Time{}, false
	}
	if n := len(health.Log); n > 0 && health.Log[n-1].End.After(began) {
		began = health.Log[n-1].End
	}
	return began.Add(intervalOf(check)), true
}

// commandOf is the command of a container's health check, nil where it has none.
func commandOf(c *container.InspectResponse) []string {
	check := c.Config.Healthcheck
	if check == nil || len(check.Test) < 2 {
		return nil
	}
	switch check.Test[0] {
	case "CMD":
		return check.Test[1:]
	case "CMD-SHELL":
		shell := []string(c.Config.Shell)
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		return append(shell[:len(shell):len(shell)], check.Test[1])
	}
	return nil
}

// probe is snap's own use of a container's health check. The engine's first probe comes
// an interval after the start, often half a minute, and an app that is up after one
// second would count as down until then.
type probe struct {
	wg   sync.WaitGroup
	stop context.CancelFunc // of the check that runs

	mu     sync.Mutex
	runs   bool
	next   time.Time // not before
	of     string    // StartedAt of the run of the container that the rest is about
	passed time.Time // the end of the first of those that have passed without a failure since
	last   *container.HealthcheckResult
	err    error // of the last one: a panic, or what kept it from being run
}

// probeOnce starts the check of a container, unless it runs, ran just now, or the
// engine itself is about to run it.
func (e *Engine) probeOnce(ctx context.Context, w *Watch, c *Container) {
	due, probed := nextProbe(&c.Raw)
	command := commandOf(&c.Raw)
	if !probed || command == nil || c.Raw.State.Restarting || time.Until(due) < often || !w.probe.begin(c.Raw.State.StartedAt) {
		return
	}
	ctx, w.probe.stop = context.WithCancel(ctx)
	w.probe.wg.Go(func() {
		var result *container.HealthcheckResult
		err := crew.Catch(func() (err error) { result, err = e.check(ctx, c, command); return err })
		w.probe.ended(c.Raw.State.StartedAt, result, err)
	})
}

func (p *probe) begin(run string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.runs || errors.Is(p.err, errStuck) || time.Now().Before(p.next) {
		return false
	}
	p.runs, p.next = true, time.Now().Add(often)
	if p.of != run {
		p.of, p.passed, p.last = run, time.Time{}, nil
	}
	return true
}

func (p *probe) ended(run string, result *container.HealthcheckResult, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.runs, p.err = false, err
	if result == nil || p.of != run {
		return
	}
	switch p.last = result; {
	case result.ExitCode != 0:
		p.passed = time.Time{}
	case p.passed.IsZero():
		p.passed = result.End
	}
}

// forget drops what was found out: the container has ended.
func (p *probe) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of, p.passed, p.last = "", time.Time{}, nil
}

func (p *probe) passedAt() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.passed
}

func (p *probe) result() *container.HealthcheckResult {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// end returns when no check runs any more. One that runs is ended.
func (p *probe) end() {
	if p.stop != nil {
		p.stop()
	}
	p.wg.Wait()
	crew.Raise(p.err)
}

// check runs a container's health check once, as the engine does: with the container's
// user, environment and directory, and killed when it takes longer than its timeout or
// when ctx ends. After an error nothing is known about the app.
func (e *Engine) check(ctx context.Context, c *Container, command []string) (*container.HealthcheckResult, error) {
	result := &container.HealthcheckResult{Start: time.Now()}
	within := timeoutOf(c.Raw.Config.Healthcheck)
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var said limited
	code, err := e.exec(ctx, c, container.ExecOptions{Cmd: command}, &said, nil)
	switch {
	case errors.Is(err, errKilled):
		result.ExitCode, result.Output = -1, fmt.Sprintf("it took longer than %v", within)
	case err != nil:
		return nil, fmt.Errorf("run the health check of container %s: %w", c.Name, err)
	default:
		result.ExitCode, result.Output = code, said.String()
	}
	result.End = time.Now()
	return result, nil
}

// limited keeps the beginning of what is written to it, as the engine does of a probe.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	const most = 4096
	_, _ = l.Buffer.Write(p[:min(len(p), max(0, most-l.Len()))])
	return len(p), nil
}
