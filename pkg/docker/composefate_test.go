package docker

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"

	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// file writes a file of the bench's folder, and returns its path.
func (b *bench) file(name string, lines ...string) string {
	b.Helper()
	path := filepath.Join(b.dir, name)
	b.must(os.MkdirAll(filepath.Dir(path), 0o755))
	b.must(os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	return path
}

// byHand runs docker compose as an operator does, in the bench's folder, with more
// variables in the shell.
func (b *bench) byHand(variables []string, args ...string) string {
	b.Helper()
	cmd := exec.Command("docker", append([]string{"compose"}, args...)...)
	cmd.Dir, cmd.Env = b.dir, append(os.Environ(), variables...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("docker compose %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// shape is what a redeploy must leave of a container as it was.
type shape struct {
	ID, State, Image, Networks, Env string
}

func (b *bench) shapes() map[string]shape {
	b.Helper()
	list, err := b.api.ContainerList(b.Context(), container.ListOptions{All: true})
	b.must(err)
	out := map[string]shape{}
	for _, c := range list {
		name := strings.TrimPrefix(c.Names[0], "/")
		if !strings.HasPrefix(name, b.name) {
			continue
		}
		raw := b.look(c.ID)
		state := raw.State.Status
		if state == container.StateRunning {
			state += " " + string(raw.HostConfig.RestartPolicy.Name)
		}
		out[strings.TrimPrefix(name, b.name+"-")] = shape{
			ID: c.ID, State: state, Image: raw.Config.Image,
			Networks: fmt.Sprint(slices.Sorted(maps.Keys(raw.NetworkSettings.Networks))), Env: fmt.Sprint(raw.Config.Env),
		}
	}
	return out
}

// planned returns what the plan says of each container, by the name without the
// bench's.
func (b *bench) planned(r *Runtime, want runtime.Want) (map[string]runtime.Fate, *runtime.Plan) {
	b.Helper()
	if want.Before == nil {
		before, err := r.Containers(b.Context())
		b.must(err)
		want.Before = before
	}
	plan, err := r.Plan(b.Context(), want)
	b.must(err)
	out := map[string]runtime.Fate{}
	for _, f := range plan.Fates {
		out[strings.TrimPrefix(f.Name, b.name+"-")] = f
	}
	return out, plan
}

// again stops everything and brings it up as a restore does, with what the plan says.
func (b *bench) again(r *Runtime, want runtime.Want) (map[string]runtime.Fate, error) {
	b.Helper()
	before, err := r.Containers(b.Context())
	b.must(err)
	want.Before = before
	fates, plan := b.planned(r, want)
	b.must(r.FenceAndStop(b.Context(), 2*time.Second))
	return fates, r.Redeploy(b.Context(), b.held(), runtime.Redeploy{Pins: plan.Pins, Before: before, StopTimeout: 2 * time.Second})
}

// compose is the workload with this value of the key compose.
func (b *bench) compose(value string) *workload.Workload {
	b.Helper()
	return b.workload("compose: "+value, "volumes: [{scope: absolute, source: "+b.dir+"/data, target: /data}]")
}

const check = "stop_signal: SIGKILL, healthcheck: {test: [CMD, /app, check], interval: 200ms, retries: 1}"

// As many as ran run, and as they were: the same containers. Compose has nothing to do
// afterwards.
func TestComposeWhatRanRunsAgain(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, _ := b.image("one")
	b.file("x.env", "SECRET=a$$b<&>")
	lines := []string{
		"name: " + b.name, "services:",
		"  db: {image: " + ref + ", restart: always, env_file: [x.env], volumes: ['./data:/data'], " + check + "}",
		"  web: {image: " + ref + ", network_mode: 'service:db', depends_on: {db: {condition: service_healthy}}, " + check + "}",
		// Joined by name, which Compose knows nothing of, and first in the alphabet.
		"  aside: {image: " + ref + ", network_mode: 'container:" + b.name + "-db-1', " + check + "}",
		"  debug: {image: " + ref + ", profiles: [debug], " + check + "}",
		"  idle: {image: " + ref + ", profiles: [idle], " + check + "}",
		"  once: {image: " + ref + ", command: exit 0}",
		"  worker: {image: " + ref + ", restart: unless-stopped, environment: {WHO: \"a'b\"}, deploy: {replicas: 1, resources: {limits: {memory: 64m}}}, " + check + "}",
		"  resting: {image: " + ref + ", " + check + "}",
	}
	b.file("compose.yaml", append(slices.Clone(lines), "  orphan: {image: "+ref+", restart: always, "+check+"}")...)
	b.byHand(nil, "up", "-d", "--scale", "worker=3", "--scale", "aside=0")
	b.byHand(nil, "up", "-d", "--no-deps", "aside")
	b.byHand(nil, "up", "-d", "--scale", "worker=3", "debug", "worker")
	b.byHand(nil, "run", "-d", "--name", b.name+"-oneoff", "--entrypoint", "/app", "worker", "serve")
	b.byHand(nil, "stop", "resting")
	b.byHand(nil, "run", "--name", b.name+"-ended", "--entrypoint", "/app", "worker", "exit", "0")
	path := b.file("compose.yaml", lines...) // the orphan's service is gone
	net, err := b.api.NetworkCreate(t.Context(), b.name+"-byhand", network.CreateOptions{})
	b.must(err)
	b.must(b.api.NetworkConnect(t.Context(), net.ID, b.name+"-worker-2", &network.EndpointSettings{Aliases: []string{"second"}}))

	before := b.shapes()
	r := b.open(b.compose(path))
	fates, err := b.again(r, runtime.Want{})
	b.must(err)
	after := b.shapes()
	if len(before) != 12 || !maps.Equal(before, after) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	if !strings.Contains(after["worker-2"].Networks, "byhand") || !strings.HasSuffix(after["db-1"].State, "always") {
		t.Errorf("after: %+v", after)
	}
	delete(before, "ended")
	if _, listed := fates["ended"]; listed {
		t.Error("a container of docker compose run that has ended is in the plan")
	}
	for name := range before {
		want := runtime.StartsAgain
		if name == "once-1" || name == "resting-1" {
			want = runtime.StaysStopped
		}
		if f := fates[name]; f.Then != want || f.Why != "" || f.Up.Image != ref {
			t.Errorf("the plan says of %s: %s because %q, on %s; want %s", name, f.Then, f.Why, f.Up.Image, want)
		}
	}
	b.nothingToDo("--profile", "debug", "up", "-d", "--scale", "worker=3")
}

// nothingToDo fails the test where a docker compose up would make a container anew.
func (b *bench) nothingToDo(args ...string) {
	b.Helper()
	if said := b.byHand(nil, append([]string{"--dry-run"}, args...)...); recreated.MatchString(said) || strings.Contains(said, "Creating") {
		b.Errorf("docker compose %q would do something:\n%s", args, said)
	}
}

// Only what has changed is made anew, with whoever joins it, and as often as it ran.
func TestComposeMakesAnewOnlyWhatHasChanged(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, _ := b.image("one")
	two, _ := b.image("two")
	file := func(image, greeting string) string {
		return b.file("compose.yaml", "name: "+b.name, "services:",
			"  db: {image: "+image+", volumes: ['./data:/data'], "+check+"}",
			"  web: {image: "+ref+", network_mode: 'service:db', "+check+"}",
			"  worker: {image: "+ref+", environment: {GREETING: "+greeting+"}, depends_on: [db], configs: [text], "+check+"}",
			"  debug: {image: "+ref+", profiles: [debug], environment: {GREETING: "+greeting+"}, "+check+"}",
			"  same: {image: "+ref+", depends_on: [worker], "+check+"}",
			"configs: {text: {content: put into the container when it starts}}")
	}
	path := file(ref, "hello")
	b.byHand(nil, "--profile", "debug", "up", "-d", "--scale", "worker=2")
	net, err := b.api.NetworkCreate(t.Context(), b.name+"-byhand", network.CreateOptions{})
	b.must(err)
	b.must(b.api.NetworkConnect(t.Context(), net.ID, b.name+"-worker-2", &network.EndpointSettings{Aliases: []string{"second"}}))
	b.byHand(nil, "stop", "--timeout", "0", "same")
	b.byHand(nil, "start", "same")

	before := b.shapes()
	file(two, "goodbye")
	r := b.open(b.compose(path))
	fates, err := b.again(r, runtime.Want{})
	b.must(err)
	for name, why := range map[string]string{"db-1": "image", "web-1": "joins", "worker-1": "changed", "worker-2": "changed", "debug-1": "changed"} {
		if f := fates[name]; f.Then != runtime.MadeAnew || !strings.Contains(f.Why, why) {
			t.Errorf("the plan says of %s: %s because %q", name, f.Then, f.Why)
		}
	}
	after := b.shapes()
	if len(after) != 6 || after["same-1"] != before["same-1"] || fates["same-1"].Then != runtime.StartsAgain {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	if after["db-1"].Image != two || after["db-1"].ID == before["db-1"].ID || !strings.Contains(after["worker-1"].Env, "goodbye") ||
		!strings.Contains(after["worker-2"].Networks, "byhand") || !strings.Contains(after["worker-2"].Env, "goodbye") {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	for name, c := range after {
		if !strings.HasPrefix(c.State, "running") {
			t.Errorf("%s is %s", name, c.State)
		}
	}
	b.nothingToDo("--profile", "debug", "up", "-d", "--scale", "worker=2")
}

// A container that ran and can be neither started nor made is named.
func TestComposeNamesWhoIsMissing(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, _ := b.image("one")
	lines := []string{"name: " + b.name, "services:", "  web: {image: " + ref + ", volumes: ['./data:/data'], " + check + "}"}
	b.file("compose.yaml", append(slices.Clone(lines), "  gone: {image: "+ref+", "+check+"}")...)
	b.byHand(nil, "up", "-d")
	r := b.open(b.compose(b.file("compose.yaml", lines...)))
	before, err := r.Containers(t.Context())
	b.must(err)
	b.must(r.FenceAndStop(t.Context(), time.Second))
	b.must(b.api.ContainerRemove(t.Context(), b.name+"-gone-1", container.RemoveOptions{Force: true}))
	err = r.Redeploy(t.Context(), b.held(), runtime.Redeploy{Before: before, Pins: runtime.Containers(before).Pins()})
	missing, ok := errors.AsType[*runtime.Missing](err)
	if !ok || !slices.Equal(missing.Containers, []string{b.name + "-gone-1"}) {
		t.Errorf("got %v, want a Missing of gone", err)
	}
	if now := b.shapes(); !strings.HasPrefix(now["web-1"].State, "running") {
		t.Errorf("the others do not run: %+v", now)
	}
}

// One container crashes as it did before, and another cannot be had any more: a redeploy
// and a deploy name both.
func TestComposeNamesWhoCrashesAndWhoIsMissing(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, _ := b.image("one")
	lines := []string{"name: " + b.name, "services:", "  web: {image: " + ref + ", command: serve-unless-sick, volumes: ['./data:/data']}"}
	whole := b.file("whole.yaml", append(slices.Clone(lines), "  gone: {image: "+ref+", "+check+"}")...)
	r := b.open(b.compose(b.file("compose.yaml", lines...)))
	held, zero := b.held(), 0
	for _, pull := range []bool{false, true} {
		b.sick(false)
		b.byHand(nil, "-f", whole, "up", "-d")
		b.sick(true)
		web := b.name + "-web-1"
		b.must(b.api.ContainerRestart(t.Context(), web, container.StopOptions{Timeout: &zero}))
		for b.look(web).State.Running {
			b.moment()
		}
		before, err := r.Containers(t.Context())
		b.must(err)
		b.must(r.FenceAndStop(t.Context(), time.Second))
		b.must(b.api.ContainerRemove(t.Context(), b.name+"-gone-1", container.RemoveOptions{Force: true}))
		err = r.Redeploy(t.Context(), held, runtime.Redeploy{Before: before, Pins: runtime.Containers(before).Pins(), Pull: pull})
		missing, isMissing := errors.AsType[*runtime.Missing](err)
		again, hasCrashed := errors.AsType[*runtime.Crashed](err)
		if !isMissing || !hasCrashed || !slices.Equal(missing.Containers, []string{b.name + "-gone-1"}) || len(again.Containers) != 1 ||
			!strings.Contains(err.Error(), web) || !strings.Contains(err.Error(), b.name+"-gone-1") {
			t.Errorf("pull %t: got %v, want both", pull, err)
		}
	}
}

// A redeploy that was cut short after Compose had removed a container goes on, and a
// resume makes as many as there were.
func TestComposeGoesOnAfterACut(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, _ := b.image("one")
	r := b.open(b.compose(b.file("compose.yaml", "name: "+b.name, "services:", "  worker: {image: "+ref+", restart: always, volumes: ['./data:/data'], "+check+"}")))
	b.byHand(nil, "up", "-d", "--scale", "worker=3")
	held := b.held()
	for what, finish := range map[string]func(before []runtime.Container) error{
		"redeploy": func(before []runtime.Container) error {
			return r.Redeploy(t.Context(), held, runtime.Redeploy{Before: before, Pins: runtime.Containers(before).Pins()})
		},
		"resume": func(before []runtime.Container) error { return r.Resume(t.Context(), held, before) },
	} {
		before, err := r.Containers(t.Context())
		b.must(err)
		b.must(r.FenceAndStop(t.Context(), time.Second))
		b.must(b.api.ContainerRemove(t.Context(), before[1].ID, container.RemoveOptions{Force: true}))
		b.must(finish(before))
		now := b.shapes()
		if len(now) != 3 {
			t.Errorf("%s: %+v", what, now)
		}
		for name, c := range now {
			if c.State != "running always" {
				t.Errorf("%s: %s is %s", what, name, c.State)
			}
		}
	}
}

// Compose puts configs that are no files into a container when it starts it. A
// container that a resume makes anew has them too, and a replica that rested rests.
func TestComposeResumesWithConfigs(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, _ := b.image("one")
	r := b.open(b.compose(b.file("compose.yaml", "name: "+b.name, "services:",
		"  web: {image: "+ref+", volumes: ['./data:/data'], configs: [{source: text, target: /sick}], "+check+"}",
		"configs: {text: {content: put into the container when it starts}}")))
	b.byHand(nil, "up", "-d", "--scale", "web=2")
	b.must(b.api.ContainerStop(t.Context(), b.name+"-web-2", container.StopOptions{}))
	before, err := r.Containers(t.Context())
	b.must(err)
	b.must(r.FenceAndStop(t.Context(), time.Second))
	for _, c := range before {
		b.must(b.api.ContainerRemove(t.Context(), c.ID, container.RemoveOptions{}))
	}
	held := b.held()
	for range 2 {
		b.must(r.Resume(t.Context(), held, before))
		now := b.shapes()
		if len(now) != 2 || !strings.HasPrefix(now["web-1"].State, "running") || strings.HasPrefix(now["web-2"].State, "running") {
			t.Errorf("resumed as %+v", now)
		}
		if _, err := b.api.ContainerStatPath(t.Context(), b.name+"-web-1", "/sick"); err != nil {
			t.Errorf("the config is not in the container: %v", err)
		}
	}
}
