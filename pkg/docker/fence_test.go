package docker

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/tiny-forge/snap/pkg/docker/engine"
	"github.com/tiny-forge/snap/pkg/runtime"
)

func TestFenceAndStopOutlivesPoliciesPausesAndDeafness(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	also := b.foreign("also", ref, func(c *container.Config, h *container.HostConfig) {
		forever := 3600 // seconds, unless whoever stops it asks for less
		c.Cmd, c.StopTimeout = []string{"stubborn"}, &forever
		h.RestartPolicy.Name = container.RestartPolicyUnlessStopped
	})
	idle := b.foreign("idle", ref, func(_ *container.Config, h *container.HostConfig) {
		h.RestartPolicy.Name = container.RestartPolicyAlways
	})
	b.must(b.api.ContainerStop(b.Context(), idle, container.StopOptions{}))
	// It exits and is started again, over and over.
	loop := b.foreign("loop", ref, func(c *container.Config, h *container.HostConfig) {
		c.Cmd = []string{"exit", "1"}
		h.RestartPolicy.Name = container.RestartPolicyAlways
	})
	w := b.app(ref, "restart: always", healthy,
		"also_stop: ["+b.name+"-also, "+b.name+"-idle, "+b.name+"-loop, "+b.name+"-absent, "+idle[:3]+"]")
	r, held := b.open(w), b.held()
	b.must(r.Redeploy(b.Context(), held, runtime.Redeploy{}))
	before, err := r.Containers(b.Context())
	b.must(err)
	if len(before) != 4 {
		t.Fatalf("containers %+v", before)
	}
	app, err := r.e.Inspect(b.Context(), before[0].ID)
	b.must(err)
	b.must(r.e.Calm(b.Context(), []*engine.Container{app}))
	b.must(r.e.SetPaused(b.Context(), app, true))
	before[0].Paused = true

	soon, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	b.must(r.FenceAndStop(soon, time.Second))
	for _, c := range before {
		raw := b.look(c.ID)
		if raw.State.Running || raw.State.Restarting || raw.HostConfig.RestartPolicy.Name != "no" {
			t.Errorf("%s: %+v, policy %s", c.Name, raw.State, raw.HostConfig.RestartPolicy.Name)
		}
		if c.ID == also && raw.State.ExitCode != 137 {
			t.Errorf("the stubborn one exited with %d, want 137: killed", raw.State.ExitCode)
		}
		if c.Paused && raw.State.ExitCode != 0 {
			t.Errorf("the paused one exited with %d, want 0: it did not hear the signal", raw.State.ExitCode)
		}
	}
	b.must(r.FenceAndStop(b.Context(), time.Second)) // all is done already

	for range 2 {
		b.must(r.Resume(b.Context(), held, before))
		now, err := r.Containers(b.Context())
		b.must(err)
		for i, c := range now {
			was := before[i]
			if c.ID != was.ID || c.Running != was.Running || c.Paused != was.Paused || c.Policy != was.Policy || c.Also != was.Also {
				if c.ID != loop { // whether that one runs is chance
					t.Errorf("resumed as %+v\nrecorded %+v", c, was)
				}
			}
		}
	}
	// A container that the operator stopped or paused while snap was at it.
	b.must(b.api.ContainerUnpause(b.Context(), before[0].ID))
	b.must(b.api.ContainerStart(b.Context(), idle, container.StartOptions{}))
	b.must(r.Resume(b.Context(), held, before))
	if !b.look(before[0].ID).State.Paused || b.look(idle).State.Running {
		t.Error("not as recorded")
	}
}

// The policies are set before anything stops. The connection is cut after the
// last policy, so that a stop which came earlier would show.
func TestAllAreFencedBeforeTheFirstStops(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	always := func(_ *container.Config, h *container.HostConfig) {
		h.RestartPolicy.Name = container.RestartPolicyAlways
	}
	ids := []string{b.foreign("a", ref, always), b.foreign("b", ref, always)}
	w := b.app(ref, "also_stop: ["+b.name+"-a, "+b.name+"-b]")
	f, opt := b.faults(2, true) // after the second policy, nothing more
	if err := b.open(w, opt).FenceAndStop(b.Context(), time.Second); err == nil || !f.dead {
		t.Fatalf("got %v", err)
	}
	for _, id := range ids {
		if raw := b.look(id); !raw.State.Running || raw.HostConfig.RestartPolicy.Name != "no" {
			t.Errorf("running %v, policy %s; want running and fenced", raw.State.Running, raw.HostConfig.RestartPolicy.Name)
		}
	}
}

func TestAContainerThatRemovesItselfIsNotStopped(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	id := b.foreign("rm", ref, func(_ *container.Config, h *container.HostConfig) { h.AutoRemove = true })
	r := b.open(b.app(ref, "also_stop: ["+b.name+"-rm]"))
	for what, err := range map[string]error{"check": b.check(r, nil), "fence": r.FenceAndStop(b.Context(), time.Second)} {
		if err == nil || !strings.Contains(err.Error(), "--rm") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if !b.look(id).State.Running {
		t.Error("it was stopped")
	}
}

func TestUsers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	data := filepath.Join(b.dir, "data")
	b.must(os.MkdirAll(filepath.Join(data, "in"), 0o755))
	b.must(os.MkdirAll(filepath.Join(b.dir, "database"), 0o755)) // begins with the same letters
	b.must(os.Symlink(data, filepath.Join(b.dir, "link")))
	mount := func(source string) func(*container.Config, *container.HostConfig) {
		return func(_ *container.Config, h *container.HostConfig) { h.Binds = []string{source + ":/data"} }
	}
	b.foreign("same", ref, mount(filepath.Join(b.dir, "link")))
	stopped := b.foreign("inside", ref, mount(filepath.Join(data, "in")))
	b.must(b.api.ContainerStop(b.Context(), stopped, container.StopOptions{}))
	b.foreign("above", ref, mount(b.dir))
	b.foreign("reader", ref, func(_ *container.Config, h *container.HostConfig) { h.Binds = []string{data + ":/data:ro"} })
	b.foreign("beside", ref, mount(filepath.Join(b.dir, "database")))
	b.foreign("also", ref, mount(data))
	w := b.app(ref, "also_stop: ["+b.name+"-also]", healthy)
	r := b.open(w)
	b.deployedBesides(r)

	check := func(path string) {
		t.Helper()
		users, err := r.Users(b.Context(), []string{path})
		b.must(err)
		got := map[string]runtime.User{}
		for _, u := range users {
			if name, ours := strings.CutPrefix(u.Name, b.name+"-"); ours {
				got[name] = u
			} else if u.Name == b.name {
				t.Error("the workload's own container is reported")
			}
		}
		want := map[string]runtime.Relation{"same": runtime.Same, "inside": runtime.Inside, "above": runtime.Above, "reader": runtime.Same}
		for name, rel := range want {
			if u := got[name]; u.Relation != rel || u.Path != path || u.Running == (name == "inside") || u.ReadOnly != (name == "reader") {
				t.Errorf("%s: %s is %+v, want %s", path, name, u, rel)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: users %+v", path, got)
		}
	}
	check(data)
	check(filepath.Join(b.dir, "link")) // the same by another name
}

// deployedBesides deploys where also_stop makes the workload more than one
// container.
func (b *bench) deployedBesides(r *Runtime) {
	b.Helper()
	b.must(r.Redeploy(b.Context(), b.held(), runtime.Redeploy{}))
}
