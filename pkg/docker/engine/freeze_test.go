package engine

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
)

func TestProbesAreForeseen(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	app := func(interval time.Duration, ends ...time.Duration) *container.InspectResponse {
		c := &container.InspectResponse{
			ContainerJSONBase: &container.ContainerJSONBase{State: &container.State{
				Running: true, StartedAt: start.Format(time.RFC3339Nano), Health: &container.Health{Status: container.Healthy},
			}},
			Config: &container.Config{Healthcheck: &container.HealthConfig{Interval: interval}},
		}
		for _, end := range ends {
			c.State.Health.Log = append(c.State.Health.Log, &container.HealthcheckResult{End: start.Add(end)})
		}
		return c
	}
	with := func(c *container.InspectResponse, change func(*container.InspectResponse)) *container.InspectResponse {
		change(c)
		return c
	}
	const s = time.Second
	for name, c := range map[string]struct {
		c    *container.InspectResponse
		at   time.Duration
		want bool
	}{
		"just started":                      {app(10 * s), s, false},
		"before the first":                  {app(10 * s), 9900 * time.Millisecond, true},
		"in the first":                      {app(10 * s), 10*s + 500*time.Millisecond, true},
		"a first that takes long has begun": {app(10 * s), 12*s + 1, false},
		"after the first":                   {app(10*s, 10100*time.Millisecond), 10200 * time.Millisecond, false},
		"before the third":                  {app(10*s, 10*s, 20*s), 29800 * time.Millisecond, true},
		"no interval of its own":            {app(0, 10*s), 40 * s, true},
		"started again since":               {app(10*s, -5*s), 5 * s, false},
		"after a probe of a quick check":    {app(s/5, s), s + 50*time.Millisecond, false},
		"no check":                          {with(app(10*s), func(c *container.InspectResponse) { c.Config.Healthcheck = nil }), 10 * s, false},
		"a check that is off":               {with(app(10*s), func(c *container.InspectResponse) { c.State.Health.Status = container.NoHealthcheck }), 10 * s, false},
		"paused: nobody probes":             {with(app(10*s), func(c *container.InspectResponse) { c.State.Paused = true }), 10 * s, false},
		"stopped":                           {with(app(10*s), func(c *container.InspectResponse) { c.State.Running = false }), 10 * s, false},
	} {
		if got := probed(c.c, start.Add(c.at)); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
