package docker

import (
	"context"
	"slices"
	"time"

	"github.com/docker/docker/api/types/container"
)

const (
	// probeInterval is the engine's, where a health check has none of its own.
	probeInterval = 30 * time.Second
	// probeStarts is how long behind its time a probe may still be starting.
	probeStarts = 2 * time.Second
	// pauseTakes is more than passes from a look at a container to its freezing.
	pauseTakes = 250 * time.Millisecond
	// calmPatience bounds the wait for a moment without a probe, for probes that
	// come one behind the other.
	calmPatience = 4 * time.Second
)

// calm waits, a few seconds at most, for a moment in which the engine starts no
// health probe in any of the containers, which run meanwhile: to pause them
// then. `runc exec` joins the container's cgroup before it has started the
// probe; frozen there, it never says that it has, and until the engine gives
// the probe up, after 30 s unless configured, the container's shim answers
// nobody: no unpause, no update, no stop gets through.
func (e *engine) calm(ctx context.Context, boxes []*box) error {
	boxes = slices.Clone(boxes)
	for deadline := time.Now().Add(calmPatience); ; {
		now := time.Now()
		if now.After(deadline) || !slices.ContainsFunc(boxes, func(b *box) bool { return probed(&b.raw, now) }) {
			return nil
		}
		if err := sleep(ctx, poll/5); err != nil {
			return err
		}
		for i, b := range boxes {
			fresh, err := e.inspect(ctx, b.ID)
			if err != nil {
				return err
			}
			if fresh != nil {
				boxes[i] = fresh
			}
		}
	}
}

// probed says whether the engine is about to start a probe in a container, or
// may be at it. A probe is due an interval after the end of the one before,
// which the engine logs (monitor in moby's daemon/health.go).
func probed(c *container.InspectResponse, now time.Time) bool {
	check, health := c.Config.Healthcheck, c.State.Health
	if check == nil || health == nil || health.Status == container.NoHealthcheck || !c.State.Running || c.State.Paused {
		return false
	}
	interval := check.Interval
	if interval <= 0 {
		interval = probeInterval
	}
	began, err := time.Parse(time.RFC3339Nano, c.State.StartedAt)
	if err != nil {
		return false
	}
	if n := len(health.Log); n > 0 && health.Log[n-1].End.After(began) {
		began = health.Log[n-1].End
	}
	due := began.Add(interval)
	return now.After(due.Add(-min(pauseTakes, interval/2))) && now.Before(due.Add(probeStarts))
}
