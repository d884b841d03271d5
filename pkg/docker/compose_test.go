package docker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/docker/endpoint"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// composed is a bench with a Compose file of these lines; its project has
// the bench's name.
func (b *bench) composed(lines ...string) *workload.Workload {
	b.Helper()
	path := filepath.Join(b.dir, "compose.yaml")
	text := "name: " + b.name + "\n" + strings.Join(lines, "\n") + "\n"
	b.must(os.WriteFile(path, []byte(text), 0o600))
	return b.workload("compose: "+path, "volumes: [{scope: absolute, source: "+b.dir+"/data, target: /data}]")
}

func byService(t *testing.T, all []runtime.Container) map[string]runtime.Container {
	t.Helper()
	out := map[string]runtime.Container{}
	for _, c := range all {
		if _, twice := out[c.Service]; twice {
			t.Fatalf("two containers of service %q: %+v", c.Service, all)
		}
		out[c.Service] = c
	}
	return out
}

func TestComposeFromNothingThroughRestoreAndBack(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, id := b.image("one")
	port := freePort(b)
	file := []string{
		"services:",
		"  web:",
		"    image: " + ref,
		"    restart: always",
		"    stop_signal: SIGKILL",
		"    ports: ['127.0.0.1:" + fmt.Sprint(port) + ":8080']",
		"    environment: {GREETING: hello}",
		"    volumes: ['./data:/data']",
		"    healthcheck: {test: [CMD, /app, check], interval: 200ms, timeout: 2s, retries: 1}",
		"    depends_on: {job: {condition: service_completed_successfully}}",
		"  job:",
		"    image: " + ref,
		"    command: exit 0",
	}
	r, held := b.open(b.composed(file...)), b.held()
	b.must(b.check(r, nil))
	b.must(r.Redeploy(b.Context(), held, runtime.Redeploy{Pull: true, HealthTimeout: time.Minute}))
	before, err := r.Containers(b.Context())
	b.must(err)
	old := byService(t, before)
	if web := old["web"]; !web.Running || web.Image != ref || web.ImageID != id || web.Policy.Name != "always" || old["job"].Running {
		t.Fatalf("deployed as %+v", before)
	}
	if got, err := get(port); err != nil || got != "hello" {
		t.Errorf("the app answers %q, %v", got, err)
	}

	pins := map[string]runtime.Pin{}
	for name, c := range old {
		pins[name] = runtime.Pin{Image: c.Image, ImageID: c.ImageID}
	}
	same := func(what string) {
		t.Helper()
		all, err := r.Containers(b.Context())
		b.must(err)
		for name, c := range byService(t, all) {
			if w := old[name]; c.ID != w.ID || c.Running != w.Running || c.Policy != w.Policy {
				t.Errorf("%s: %+v\nwant %+v", what, c, w)
			}
		}
	}
	b.must(r.FenceAndStop(b.Context(), 2*time.Second))
	b.must(r.Redeploy(b.Context(), held, runtime.Redeploy{Pins: pins, Before: before}))
	same("redeployed")

	// Unhealthy, and back.
	b.must(r.FenceAndStop(b.Context(), 2*time.Second))
	b.sick(true)
	var sick *runtime.Unhealthy
	if err := r.Redeploy(b.Context(), held, runtime.Redeploy{Pins: pins, Before: before, HealthTimeout: briefWait}); !errors.As(err, &sick) || !strings.Contains(sick.Reason, "feeling") {
		t.Errorf("got %v, want an Unhealthy", err)
	}
	b.must(r.FenceAndStop(b.Context(), 2*time.Second))
	b.sick(false)
	for range 2 {
		b.must(r.Resume(b.Context(), held, before))
		same("resumed")
	}

	// The reference moves on: the pin still wins, in Redeploy and in Resume.
	b.image("one")
	b.must(r.FenceAndStop(b.Context(), 2*time.Second))
	b.must(r.Redeploy(b.Context(), held, runtime.Redeploy{Pins: pins, Before: before}))
	after := b.service(r, "web")
	if after.ImageID != id || !after.Running || after.Policy.Name != "always" || after.Name != old["web"].Name {
		t.Errorf("redeployed on a pin as %+v", after)
	}
	b.must(b.api.ContainerRemove(b.Context(), after.ID, container.RemoveOptions{Force: true}))
	for range 2 {
		b.must(r.Resume(b.Context(), held, before))
		if now := b.service(r, "web"); now.ImageID != id || !now.Running || now.Policy.Name != "always" || now.Name != old["web"].Name {
			t.Errorf("made anew as %+v", now)
		}
	}

	gone := map[string]runtime.Pin{"web": {Image: ref, ImageID: "sha256:" + strings.Repeat("0", 64)}}
	if err := b.check(r, gone); !errors.Is(err, runtime.ErrImageMissing) {
		t.Errorf("check: %v, want runtime.ErrImageMissing", err)
	}
	b.must(r.FenceAndStop(b.Context(), 2*time.Second))
	if err := r.Redeploy(b.Context(), held, runtime.Redeploy{Pins: gone, Before: before}); !errors.Is(err, runtime.ErrImageMissing) {
		t.Errorf("redeploy: %v, want runtime.ErrImageMissing", err)
	}
}

// docker compose is told which engine snap uses: neither the environment nor a context
// decides.
func TestComposeUsesTheChosenEngine(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, _ := b.image("one")
	w, held, host := b.composed("services:", "  web: {image: "+ref+", stop_signal: SIGKILL, volumes: ['./data:/data']}"), b.held(), b.api.DaemonHost()
	t.Setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
	t.Setenv("DOCKER_CONTEXT", "nonexistent")
	r, err := Open(w, Options{Engine: endpoint.Choice{Host: host}})
	b.must(err)
	defer r.Close()
	b.must(r.Redeploy(b.Context(), held, runtime.Redeploy{}))
	if now := b.only(r); !now.Running {
		t.Errorf("%+v", now)
	}
}

// Compose makes the new container under a name of its own before it removes
// the old one. Killed between the two, it leaves both.
func TestComposeHalvesAreCleared(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, _ := b.image("one")
	r, held := b.open(b.composed("services:", "  web: {image: "+ref+", stop_signal: SIGKILL, volumes: ['./data:/data'], healthcheck: {test: [CMD, /app, check], interval: 200ms}}")), b.held()
	b.must(r.Redeploy(b.Context(), held, runtime.Redeploy{}))
	before, err := r.Containers(b.Context())
	b.must(err)
	for what, finish := range map[string]func() error{
		"redeploy": func() error { return r.Redeploy(b.Context(), held, runtime.Redeploy{Before: before}) },
		"resume":   func() error { return r.Resume(b.Context(), held, before) },
	} {
		raw := b.look(before[0].ID)
		_, err := b.api.ContainerCreate(b.Context(), raw.Config, nil, nil, nil, "0123456789ab_"+before[0].Name)
		b.must(err)
		b.must(finish())
		if now := b.only(r); now.ID != before[0].ID || now.Name != before[0].Name || !now.Running {
			t.Errorf("%s: %+v", what, now)
		}
	}
}

// A service without a restart policy that finds no database gives up for good.
func TestComposeStartsADependencyFirst(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, _ := b.image("one")
	r, held := b.open(b.composed("services:",
		"  app: {image: "+ref+", stop_signal: SIGKILL, depends_on: {db: {condition: service_healthy}}}",
		"  db: {image: "+ref+", stop_signal: SIGKILL, volumes: ['./data:/data'], healthcheck: {test: [CMD, /app, check], interval: 500ms}}")), b.held()
	b.must(r.Redeploy(b.Context(), held, runtime.Redeploy{}))
	before, err := r.Containers(b.Context())
	b.must(err)
	inOrder := func(what string) {
		t.Helper()
		db, app := b.look(byService(t, before)["db"].ID).State, b.look(byService(t, before)["app"].ID).State
		started, err := time.Parse(time.RFC3339Nano, app.StartedAt)
		b.must(err)
		if !app.Running || db.Health.Status != "healthy" || started.Before(db.Health.Log[0].End) {
			t.Errorf("%s: app started at %v, db is %s since %v", what, started, db.Health.Status, db.Health.Log[0].End)
		}
	}
	b.must(r.FenceAndStop(b.Context(), time.Second))
	b.must(r.Resume(b.Context(), held, before))
	inOrder("resume")
	thaw, err := r.Quiesce(b.Context(), runtime.Stop, time.Second)
	b.must(err)
	b.must(thaw(b.Context()))
	inOrder("thaw")
}

// The order does not depend on the label with the dependencies: it is empty where
// somebody has made a container with --no-deps, as snap itself does. And nobody waits for
// the engine's first probe, which comes after a minute.
func TestComposeStartsADependencyFirstWhateverTheLabelSays(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, _ := b.image("one")
	file := func(release string) string {
		return b.file("compose.yaml", "name: "+b.name, "services:",
			"  app: {image: "+ref+", labels: {release: '"+release+"'}, stop_signal: SIGKILL, depends_on: {db: {condition: service_healthy}}}",
			"  db: {image: "+ref+", labels: {release: '"+release+"'}, stop_signal: SIGKILL, volumes: ['./data:/data'], healthcheck: {test: [CMD, /app, check], interval: 1m}}")
	}
	path := file("1")
	for _, service := range []string{"db", "app"} {
		b.byHand(nil, "up", "-d", "--no-deps", service)
	}
	for _, how := range []struct {
		name, release string
		then          runtime.Then
	}{
		{"made by hand", "1", runtime.StartsAgain},
		{"made anew", "2", runtime.MadeAnew},
		{"made by snap", "2", runtime.StartsAgain},
	} {
		file(how.release)
		began := time.Now()
		fates, err := b.again(b.open(b.compose(path)), runtime.Want{})
		b.must(err)
		took := time.Since(began)
		app := b.look(b.name + "-app-1")
		if label := app.Config.Labels[composeDepends]; label != "" {
			t.Errorf("%s: the label is %q, so this test shows nothing", how.name, label)
		}
		if fates["app-1"].Then != how.then || !b.started(app.ID).After(b.started(b.name+"-db-1")) || took > 25*time.Second {
			t.Errorf("%s: app %s, started at %v, db at %v, and it took %v", how.name, fates["app-1"].Then, b.started(app.ID), b.started(b.name+"-db-1"), took)
		}
	}
}

func (b *bench) service(r *Runtime, name string) runtime.Container {
	b.Helper()
	all, err := r.Containers(b.Context())
	b.must(err)
	return byService(b.T, all)[name]
}

func TestComposeTellsUnhealthyDependenciesFromFailures(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, _ := b.image("one")
	b.sick(true)
	port := freePort(b)
	r, held := b.open(b.composed("services:",
		"  web: {image: "+ref+", depends_on: {db: {condition: service_healthy}}, ports: ['127.0.0.1:"+fmt.Sprint(port)+":8080']}",
		"  db: {image: "+ref+", volumes: ['./data:/data'], healthcheck: {test: [CMD, /app, check], interval: 200ms, timeout: 2s, retries: 1}}")), b.held()
	err := r.Redeploy(b.Context(), held, runtime.Redeploy{StopTimeout: time.Second})
	var sick *runtime.Unhealthy
	if !errors.As(err, &sick) || !strings.Contains(sick.Container, "db") || !strings.Contains(sick.Reason, "feeling") {
		t.Errorf("got %v, want an Unhealthy of db", err)
	}
	b.sick(false)
	b.must(r.FenceAndStop(b.Context(), time.Second))
	b.foreign("thief", ref, func(c *container.Config, h *container.HostConfig) {
		s, err := specOf(b.app(ref, "ports: ['"+fmt.Sprint(port)+":8080']"), wanted{name: ref})
		b.must(err)
		c.ExposedPorts, h.PortBindings = s.ExposedPorts, s.HostConfig.PortBindings
	})
	if err := b.check(r, nil); !errors.Is(err, runtime.ErrPortTaken) {
		t.Errorf("check: %v, want runtime.ErrPortTaken", err)
	}
	err = r.Redeploy(b.Context(), held, runtime.Redeploy{StopTimeout: time.Second})
	if !errors.Is(err, runtime.ErrPortTaken) || !strings.Contains(err.Error(), b.name+"-web-1") {
		t.Errorf("got %v, want runtime.ErrPortTaken with what compose said", err)
	}
	all, err := r.Containers(b.Context())
	b.must(err)
	for _, c := range all {
		if c.Running || c.Policy.Name != "no" {
			t.Errorf("after a failure: %+v", c)
		}
	}
}

func TestAListedVolumeMustBeMounted(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, _ := b.image("one")
	r := b.open(b.composed("services: {web: {image: " + ref + ", volumes: ['./other:/data']}}"))
	if err := b.check(r, nil); !errors.Is(err, errNotMounted) {
		t.Errorf("got %v, want errNotMounted", err)
	}
}
