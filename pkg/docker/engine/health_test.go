package engine

import (
	"slices"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// TestTheEnginesWordIsTheLast: where the engine says unhealthy, a check that passes
// between its probes is not believed.
func TestTheEnginesWordIsTheLast(t *testing.T) {
	now := time.Now()
	at := func(ago time.Duration) string { return now.Add(-ago).Format(time.RFC3339Nano) }
	app := func(status container.HealthStatus, log ...*container.HealthcheckResult) *Container {
		return &Container{Raw: container.InspectResponse{Config: &container.Config{}, ContainerJSONBase: &container.ContainerJSONBase{State: &container.State{
			Running: true, Status: "running", StartedAt: at(time.Minute), Health: &container.Health{Status: status, Log: log}}}}}
	}
	probed := func(ago time.Duration, code int) *container.HealthcheckResult {
		return &container.HealthcheckResult{End: now.Add(-ago), ExitCode: code}
	}
	const s = time.Second
	for name, c := range map[string]struct {
		c    *Container
		own  time.Duration // ago, when snap's own passed first; 0: it has not
		want time.Duration // ago, since when the app is up; 0: it is not
	}{
		"the engine has not spoken, nor has snap": {app(container.Starting), 0, 0},
		"snap's own passed first":                 {app(container.Starting), 20 * s, 20 * s},
		"it passed after a probe that failed":     {app(container.Starting, probed(30*s, 1)), 20 * s, 20 * s},
		"it passed before one that failed":        {app(container.Starting, probed(10*s, 1)), 20 * s, 0},
		"the engine says unhealthy":               {app(container.Unhealthy, probed(30*s, 1)), 20 * s, 0},
		"healthy, as snap knew":                   {app(container.Healthy, probed(5*s, 0)), 20 * s, 20 * s},
		"healthy, and snap's own was too early":   {app(container.Healthy, probed(10*s, 1), probed(5*s, 0)), 20 * s, 5 * s},
		"healthy for several probes":              {app(container.Healthy, probed(40*s, 1), probed(30*s, 0), probed(20*s, 0)), 0, 30 * s},
		"probes of the run before":                {app(container.Healthy, probed(90*s, 0), probed(30*s, 0)), 0, 30 * s},
		"podman: no check is \"\"":                {app(""), 0, 60 * s},
	} {
		w := &Watch{group: &group{}, run: at(time.Minute), since: now.Add(-time.Minute)}
		if c.own != 0 {
			w.probe.passed = now.Add(-c.own)
		}
		v := w.judge(c.c)
		if v.bad != "" || v.up.IsZero() != (c.want == 0) || c.want != 0 && v.up.Sub(now.Add(-c.want)).Abs() > time.Millisecond {
			t.Errorf("%s: %+v, want up %v ago", name, v, c.want)
		}
	}
}

// TestBetweenTwoRestartsAContainerStillCrashes: it runs at that moment.
func TestBetweenTwoRestartsAContainerStillCrashes(t *testing.T) {
	for name, c := range map[string]struct {
		restarts int
		ago      time.Duration
		want     bool
	}{
		"just started again": {3, time.Second, true}, "started, and never again": {0, time.Second, false},
		"has run since": {3, time.Minute, false},
	} {
		raw := &container.InspectResponse{Config: &container.Config{}, ContainerJSONBase: &container.ContainerJSONBase{
			RestartCount: c.restarts,
			State:        &container.State{Status: "running", Running: true, StartedAt: time.Now().Add(-c.ago).Format(time.RFC3339Nano)},
		}}
		if got := crashed(raw, runtime.Policy{Name: "always"}); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestAnEndedContainerIsJudgedByItsPolicy(t *testing.T) {
	exited := func(code int, policy string) *Container {
		return &Container{Container: runtime.Container{Policy: runtime.Policy{Name: policy}}, Raw: container.InspectResponse{
			ContainerJSONBase: &container.ContainerJSONBase{State: &container.State{Status: "exited", ExitCode: code, FinishedAt: "2026-01-02T03:04:05.5Z"}}}}
	}
	for _, c := range []struct {
		code    int
		policy  string
		mayEnd  bool
		healthy bool
		sick    bool
	}{
		{0, "no", true, true, false},
		{0, "no", false, false, true},
		{1, "no", true, false, true},
		{1, "always", false, false, false}, // the engine starts it again: wait
	} {
		w := &Watch{MayEnd: c.mayEnd, group: &group{}}
		if v := w.judge(exited(c.code, c.policy)); v.up.IsZero() == c.healthy || (v.bad != "") != c.sick {
			t.Errorf("%+v: %+v", c, v)
		}
	}
}

func TestTheCommandOfACheckIsThatOfTheEngine(t *testing.T) {
	for _, c := range []struct{ test, shell, want []string }{
		{[]string{"CMD", "a", "b"}, nil, []string{"a", "b"}},
		{[]string{"CMD-SHELL", "a b"}, nil, []string{"/bin/sh", "-c", "a b"}},
		{[]string{"NONE"}, nil, nil},
		{[]string{"curl", "localhost"}, nil, nil}, // which no engine runs
		{nil, nil, nil},
	} {
		raw := &container.InspectResponse{Config: &container.Config{Shell: c.shell, Healthcheck: &container.HealthConfig{Test: c.test}}}
		if got := commandOf(raw); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.test, got, c.want)
		}
	}
}
