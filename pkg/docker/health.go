package docker

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/tiny-forge/snap/pkg/runtime"
)

const (
	poll = 100 * time.Millisecond
	// steady is how long a container without a health check must run at a stretch.
	steady = 3 * time.Second
)

// watch is one container on its way to health.
type watch struct {
	id string
	// mayEnd is set for a container that does its work and exits with success.
	mayEnd bool

	began    string // StartedAt, and
	restarts int    // RestartCount, both at the time
	since    time.Time
	last     string // the last thing that kept it from being healthy
}

// waitHealthy returns nil once a container is healthy, and a [*runtime.Unhealthy]
// when its health check fails, when it ends, or when the time is up. A container
// that the engine itself restarts has until then.
func (e *engine) waitHealthy(ctx context.Context, w *watch, timeout time.Duration) error {
	if timeout <= 0 {
		timeout = 2 * time.Minute
	}
	for deadline := time.Now().Add(timeout); ; {
		c, err := e.inspect(ctx, w.id)
		if err != nil {
			return err
		}
		if c == nil {
			return fmt.Errorf("container %.12s was removed while snap waited for its health", w.id)
		}
		done, reason := w.judge(c)
		if done {
			return nil
		}
		if reason == "" && time.Now().After(deadline) {
			reason = fmt.Sprintf("not healthy after %v", timeout)
			if w.last != "" {
				reason += ": " + w.last
			}
		}
		if reason != "" {
			return &runtime.Unhealthy{Container: c.Name, Reason: reason + e.evidence(ctx, c)}
		}
		if err := sleep(ctx, poll); err != nil {
			return err
		}
	}
}

// judge says whether a container is healthy, or why it will not become so.
func (w *watch) judge(c *inspected) (healthy bool, reason string) {
	state := c.raw.State
	if !state.Running || state.Restarting {
		w.began = ""
		w.last = fmt.Sprintf("it exited with code %d", state.ExitCode)
		if state.Error != "" {
			w.last += " (" + runtime.Printable(state.Error) + ")"
		}
		switch {
		case w.mayEnd && !state.Running && state.ExitCode == 0 && state.Status == "exited":
			return true, ""
		case c.Policy.Name == never.Name && state.Status != "created":
			return false, w.last
		}
		return false, ""
	}
	switch c.health() {
	case container.NoHealthcheck:
	case container.Healthy:
		return true, ""
	case container.Unhealthy:
		return false, "its health check fails"
	default:
		w.last = "its health check has not passed yet"
		return false, ""
	}
	if w.began != state.StartedAt || w.restarts != c.raw.RestartCount {
		w.began, w.restarts, w.since = state.StartedAt, c.raw.RestartCount, time.Now()
	}
	return !state.Paused && time.Since(w.since) >= steady, ""
}

// health is what the container's health check says; NoHealthcheck without one.
func (c *inspected) health() container.HealthStatus {
	if h := c.raw.State.Health; h != nil {
		return h.Status
	}
	return container.NoHealthcheck
}

// evidence is the end of what the health check said, or else the container's log.
func (e *engine) evidence(ctx context.Context, c *inspected) string {
	if h := c.raw.State.Health; c.Running && h != nil && len(h.Log) > 0 {
		last := h.Log[len(h.Log)-1]
		text := fmt.Sprintf("; the check exited with code %d", last.ExitCode)
		if said := runtime.Tail(last.Output); said != "" {
			text += " and said: " + said
		}
		return text
	}
	if said := e.logs(ctx, c); said != "" {
		return "; its log ends with: " + said
	}
	return ""
}

// logs returns the last lines that a container logged, "" where it cannot read them.
func (e *engine) logs(ctx context.Context, c *inspected) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	body, err := e.api.ContainerLogs(ctx, c.ID, container.LogsOptions{ShowStdout: true, ShowStderr: true, Tail: "10"})
	if err != nil {
		return ""
	}
	defer body.Close()
	var text bytes.Buffer
	limited := io.LimitReader(body, 64<<10)
	if c.raw.Config.Tty {
		_, _ = io.Copy(&text, limited)
	} else {
		_, _ = stdcopy.StdCopy(&text, &text, limited)
	}
	return runtime.Tail(text.String())
}
