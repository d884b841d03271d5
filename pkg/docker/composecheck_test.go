package docker

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// refusal plans a redeploy, and returns why it is refused; nil when it is not.
func (b *bench) refusal(compose string) *runtime.Refusal {
	b.Helper()
	r := b.open(b.compose(compose))
	before, err := r.Containers(b.Context())
	if err == nil {
		_, err = r.Plan(b.Context(), runtime.Want{Before: before})
	}
	refusal, ok := errors.AsType[*runtime.Refusal](err)
	if err != nil && !ok {
		b.Errorf("compose: %s: %v, want a Refusal", compose, err)
	}
	return refusal
}

// wrong plans a redeploy that must be refused with a word in the reason and one in the
// hint, and leaves what runs alone.
func (b *bench) wrong(what, compose, code, reason, hint string) {
	b.Helper()
	before := b.shapes()
	got := b.refusal(compose)
	if got == nil || got.Code != code || !strings.Contains(got.Reason, reason) || !strings.Contains(got.Hint, hint) {
		b.Errorf("%s: %+v\nwant %s with %q and the hint %q", what, got, code, reason, hint)
	}
	if after := b.shapes(); len(before) == 0 || len(after) != len(before) {
		b.Errorf("%s: before %+v, after %+v", what, before, after)
	}
}

// right plans a redeploy after which all containers start again.
func (b *bench) right(what, compose string) {
	b.Helper()
	fates, _ := b.planned(b.open(b.compose(compose)), runtime.Want{})
	if len(fates) == 0 {
		b.Errorf("%s: there is no container", what)
	}
	for name, f := range fates {
		if f.Then != runtime.StartsAgain {
			b.Errorf("%s: %s %s because %s", what, name, f.Then, f.Why)
		}
	}
}

// What runs was made from other files than the config names.
func TestComposeOtherFilesAreRefused(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, _ := b.image("one")
	base := b.file("base.yaml", "name: "+b.name, "services:", "  web: {image: "+ref+", volumes: ['./data:/data']}")
	more := b.file("more.yaml", "services:", "  web: {environment: {MORE: '1'}}", "  extra: {image: "+ref+"}")
	b.file(".env", "COMPOSE_FILE=base.yaml:more.yaml")
	b.byHand(nil, "up", "-d")
	both := "{files: [" + base + ", " + more + "]}"
	b.wrong("COMPOSE_FILE", base, runtime.ComposeMismatch, more, "compose: {files: ["+base+", "+more+"], project: "+b.name)
	b.right("both files", both)
	b.right("from the labels", "{project: "+b.name+"}")

	// A folder that is not where the containers were made is another project's.
	elsewhere := b.file("copy/base.yaml", "name: "+b.name, "services:", "  web: {image: "+ref+", volumes: ['./data:/data']}")
	b.wrong("a copy", elsewhere, runtime.ComposeMismatch, base, base)

	b.must(os.Rename(more, more+".away"))
	b.wrong("a file is gone", both, runtime.ComposeMissing, more, "`compose:`")
	b.wrong("the folder is gone", b.dir+"/nowhere/compose.yaml", runtime.ComposeMissing, b.dir+"/nowhere", "`compose:`")
	b.must(os.Rename(more+".away", more))

	// What was made before a file came that changes nothing of it, starts again.
	b.byHand([]string{"COMPOSE_FILE=base.yaml"}, "-p", b.name+"-plain", "up", "-d")
	later := b.file("later.yaml", "services:", "  later: {image: "+ref+"}")
	b.right("a later file", "{files: ["+base+", "+later+"], project: "+b.name+"-plain}")
}

// What runs is another project than the config names.
func TestComposeOtherProjectsAreRefused(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, _ := b.image("one")
	path := b.file("compose.yaml", "name: "+b.name, "services:", "  web: {image: "+ref+", volumes: ['./data:/data']}")
	b.byHand(nil, "-p", b.name+"-stack", "up", "-d")
	b.wrong("no name", path, runtime.ComposeMismatch, b.name+"-stack", "project: "+b.name+"-stack")
	b.file(".env", "COMPOSE_PROJECT_NAME="+b.name+"-stack")
	b.right("the name is in .env", path)
	b.must(os.Remove(b.dir + "/.env"))
	t.Setenv("COMPOSE_PROJECT_NAME", b.name+"-stack")
	b.wrong("the name is in the shell", path, runtime.ComposeMismatch, b.name+"-stack", "project: "+b.name+"-stack")
	b.must(os.Unsetenv("COMPOSE_PROJECT_NAME"))
	b.wrong("a wrong name", "{files: ["+path+"], project: "+b.name+"}", runtime.ComposeMismatch, b.name+"-stack", "project: "+b.name+"-stack")
	b.right("the right name", "{files: ["+path+"], project: "+b.name+"-stack}")

	b.byHand(nil, "-p", b.name+"-second", "up", "-d")
	b.wrong("two projects", path, runtime.ComposeMismatch, b.name+"-second", "project: "+b.name+"-second")
	b.byHand(nil, "up", "-d")
	b.right("the file's own among three", path)

	// A stack manager keeps its copy where the host has none.
	manager := "/data/compose/7/compose.yaml"
	foreign := b.foreign("managed-web-1", ref, func(c *container.Config, _ *container.HostConfig) {
		c.Labels = map[string]string{
			composeProject: b.name + "-managed", composeService: "web", composeOneOff: "False", composeHash: "of another model",
			"com.docker.compose.project.working_dir": filepath.Dir(manager), "com.docker.compose.project.config_files": manager, "com.docker.compose.container-number": "1",
		}
	})
	b.wrong("a stack manager", "{files: ["+path+"], project: "+b.name+"-managed}", runtime.ComposeMismatch, manager, manager)
	if !b.look(foreign).State.Running {
		t.Error("the foreign container was stopped")
	}
}

// What runs was made with values that are not here.
func TestComposeValuesFromElsewhereAreRefused(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, _ := b.image("one")
	two, _ := b.image("two")
	file := func(image string) string {
		return b.file("compose.yaml", "name: "+b.name, "services:",
			"  web: {image: "+image+", environment: ['NEVER=${SNAPTEST_NEVER}'], volumes: ['./data:/data']}",
			"  plain: {image: "+ref+", environment: [SNAPTEST_PLAIN]}",
			"  blank: {image: "+ref+", labels: {it: '${SNAPTEST_BLANK}'}}",
			"  default: {image: "+ref+", environment: {MODE: '${SNAPTEST_MODE:-dev}'}}")
	}
	path := file(ref)
	up := func(variables ...string) { b.byHand(variables, "up", "-d") }

	up()
	b.right("none is set", path)
	var notices []string
	r := b.open(b.compose(path))
	r.e.Notice = func(line string) { notices = append(notices, line) }
	_, err := r.Containers(t.Context())
	b.must(err)
	b.planned(r, runtime.Want{})
	if said := strings.Join(notices, "\n"); strings.Count(said, "SNAPTEST_NEVER") != 1 {
		t.Errorf("Compose's warning is not passed on once: %s", said)
	}
	for _, name := range []string{"SNAPTEST_PLAIN", "SNAPTEST_BLANK", "SNAPTEST_MODE"} {
		up(name + "=prod")
		b.wrong(name, path, runtime.ComposeMismatch, name, name+"=… into "+b.dir+"/.env")
		t.Setenv(name, "prod")
		b.right(name+" is set", path)
		b.must(os.Unsetenv(name))
		b.file(".env", name+"=prod")
		b.right(name+" is in .env", path)
		b.must(os.Remove(b.dir + "/.env"))
	}

	// A variable that was never set is no reason: here the image is.
	up()
	file(two)
	fates, _ := b.planned(b.open(b.compose(path)), runtime.Want{})
	if f := fates["web-1"]; f.Then != runtime.MadeAnew || f.Up.Image != two {
		t.Errorf("web %s because %s, on %s", f.Then, f.Why, f.Up.Image)
	}

	// Of an env file the labels tell.
	file(ref)
	env := b.file("env/prod.env", "SNAPTEST_PLAIN=prod", "SNAPTEST_MODE=prod")
	b.byHand(nil, "--env-file", env, "up", "-d")
	b.right("the env file of the labels", path)
	b.wrong("no env file", "{files: ["+path+"], env_files: []}", runtime.ComposeMismatch, env, "env_files: ["+env+"]")
	b.right("the env file of the config", "{files: ["+path+"], env_files: ["+env+"]}")
	b.must(os.Rename(env, env+".away"))
	b.wrong("the env file is gone", path, runtime.ComposeMismatch, env, "env_files: ["+env+"]")
}

// Whoever would be replaced or removed by a stop is refused, of the workload and of
// also_stop, and named with what to do.
func TestContainersThatOthersReplaceAreRefused(t *testing.T) {
	b := newBench(t)
	ref, _ := b.image("one")
	labelled := func(name string, labels map[string]string) {
		b.foreign(name, ref, func(c *container.Config, h *container.HostConfig) {
			c.Labels, h.Binds = labels, []string{b.dir + "/data:/data"}
		})
	}
	labelled("task", map[string]string{labelTask: "x7", labelTaskOf: "shop_db"})
	labelled("pod", map[string]string{labelPod: "db-0", labelNamespace: "shop"})
	b.foreign("rm", ref, func(_ *container.Config, h *container.HostConfig) { h.AutoRemove = true })
	for name, want := range map[string][2]string{
		"task": {runtime.Managed, "docker service scale shop_db=0"},
		"pod":  {runtime.Managed, "kubectl -n shop scale --replicas=0"},
		"rm":   {runtime.AutoRemove, "without --rm"},
	} {
		r := b.open(b.workload("volumes: [{scope: absolute, source: "+b.dir+"/data}]", "also_stop: ["+b.name+"-"+name+"]"))
		before, err := r.Containers(t.Context())
		b.must(err)
		_, err = r.Plan(t.Context(), runtime.Want{Before: before})
		refusal, ok := errors.AsType[*runtime.Refusal](err)
		if !ok || refusal.Code != want[0] || !strings.Contains(refusal.Hint, want[1]) || !strings.Contains(refusal.Reason, b.name+"-"+name) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		if err := r.FenceAndStop(t.Context(), 0); err == nil || !b.look(b.name+"-"+name).State.Running {
			t.Errorf("%s was stopped: %v", name, err)
		}
	}
	users, err := b.open(b.app(ref)).Users(t.Context(), []string{b.dir + "/data"})
	b.must(err)
	for _, u := range users {
		if u.Name == b.name+"-task" && u.Release != "docker service scale shop_db=0" {
			t.Errorf("as a user: %+v", u)
		}
	}
	if len(users) != 2 {
		t.Errorf("users %+v", users)
	}
}

// At boot systemd listens on the engine's socket before the engine starts. A recovery
// without the engine learns the volumes all the same; whatever needs the engine fails.
func TestComposeVolumesWithoutAnEngine(t *testing.T) {
	dockertest.NeedCompose(t)
	b := &bench{T: t, name: "snaptest-" + randomHex(t), dir: t.TempDir()}
	b.must(os.Mkdir(filepath.Join(b.dir, "data"), 0o755))
	path := b.file("compose.yaml", "name: "+b.name, "services: {web: {image: x, volumes: ['./data:/data']}}")
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	b.must(err)
	defer l.Close()
	for _, host := range []string{"unix://" + socket, "unix://" + socket + "-none"} {
		r := b.open(b.workload("compose: "+path), client.WithHost(host), client.WithVersion("1.41"))
		found, err := r.Volumes(t.Context())
		if err != nil || len(found.Volumes) != 1 || found.Volumes[0].Source != b.dir+"/data" {
			t.Errorf("%s: %+v, %v", host, found, err)
		}
		if _, err := r.Containers(t.Context()); !errors.Is(err, runtime.ErrUnreachable) {
			t.Errorf("%s: containers: %v, want ErrUnreachable", host, err)
		}
	}
}
