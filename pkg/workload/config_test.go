package workload_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/workload"
)

func load(t testing.TB, text string) (*workload.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "snap.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := workload.Load(path)
	var e *workload.Error
	if err != nil && (!errors.As(err, &e) || !strings.HasPrefix(e.Where, path) || e.Hint == "") {
		t.Errorf("the error does not say where and what to do: %#v", err)
	}
	return cfg, err
}

// one is a config of one workload with one volume.
func one(volume string) string {
	return "version: 1\nworkloads:\n  blog:\n    volumes:\n      - " + volume + "\n"
}

func TestAVolumeIsWhereTheConfigSays(t *testing.T) {
	const head = "version: 1\nstore: /data/snap\nbase: /data/apps/\nabsolute_roots: [/srv, /srv/deep, /opt]\nworkloads:\n"
	for _, c := range []struct{ config, root, rel, name string }{
		{"  blog: {volumes: [{scope: stage, source: content}]}", "/data/apps", "blog/default/content", "content"},
		{"  blog: {project: web, stage: prod, volumes: [{scope: stage, source: a/b, name: n}]}", "/data/apps", "web/prod/a/b", "n"},
		{"  blog: {project: web, stage: prod, volumes: [{scope: project, source: up}]}", "/data/apps", "web/up", "up"},
		{"  blog: {volumes: [{scope: project, source: ..a}]}", "/data/apps", "blog/..a", "..a"},
		{"  blog: {volumes: [{scope: absolute, source: /srv/x}]}", "/srv", "x", "/srv/x"},
		{"  blog: {volumes: [{scope: absolute, source: /srv/deep/x/y}]}", "/srv/deep", "x/y", "/srv/deep/x/y"},
		{"  blog: {volumes: [{scope: absolute, source: /srv/deeper}]}", "/srv", "deeper", "/srv/deeper"},
	} {
		cfg, err := load(t, head+c.config+"\n")
		if err != nil {
			t.Errorf("%s: %v", c.config, err)
			continue
		}
		v := &cfg.Workloads["blog"].Volumes[0]
		if v.Root() != c.root || v.Rel() != c.rel || v.Name != c.name || v.Path() != c.root+"/"+c.rel || v.Symlinks != "preserve" || v.Setuid != "strip" {
			t.Errorf("%s\nis %q below %q, named %q, %s, %s", c.config, v.Rel(), v.Root(), v.Name, v.Symlinks, v.Setuid)
		}
	}
}

func TestDefaults(t *testing.T) {
	t.Setenv(workload.StateVariable, "")
	cfg, err := load(t, one("{scope: stage, source: x}"))
	if err != nil {
		t.Fatal(err)
	}
	w := cfg.Workloads["blog"]
	if cfg.State != "/var/lib/snap" || cfg.Store != "/var/lib/snap/store" || cfg.Base != "/srv/apps" || !reflect.DeepEqual(cfg.AbsoluteRoots, []string{"/srv", "/opt"}) ||
		w.Project != "blog" || w.Stage != "default" || w.ContainerName != "blog" || w.Kind() != workload.Data {
		t.Errorf("%+v, %+v", cfg, w)
	}
	if _, err := cfg.Workload("shop"); err == nil || !strings.Contains(err.Error(), `no workload "shop"`) {
		t.Errorf("an unknown workload: %v", err)
	}
	if _, err := w.Volume("y"); err == nil || !strings.Contains(err.Error(), "it has: x") {
		t.Errorf("an unknown volume: %v", err)
	}
}

// A volume outside absolute_roots is refused, and so is a root itself, as snap works in the
// folder around a volume. The roots that are proposed admit them all.
func TestTheRootsThatAreProposedAdmitTheVolumes(t *testing.T) {
	cfg, err := load(t, one("{scope: stage, source: x}"))
	if err != nil {
		t.Fatal(err)
	}
	var volumes []workload.Volume
	for _, source := range []string{"/srv/blog", "/srv", "/home/me/blog/data", "/home/me/blog/db", "/mnt/media"} {
		volumes = append(volumes, workload.Volume{Name: source, Scope: workload.Absolute, Source: source})
	}
	w := cfg.Workloads["blog"]
	_, err = w.WithVolumes(cfg, volumes[1:], "")
	if err == nil || !strings.Contains(err.Error(), "source is one of absolute_roots") || !strings.Contains(err.Error(), "source lies under none") {
		t.Errorf("got %v", err)
	}
	roots := cfg.RootsFor(volumes)
	if want := []string{"/srv", "/opt", "/home/me/blog", "/mnt"}; !slices.Equal(roots, want) {
		t.Fatalf("proposed %q, want %q", roots, want) // /srv lies under none: nothing but / would admit it
	}
	cfg.AbsoluteRoots = roots
	if _, err := w.WithVolumes(cfg, slices.Delete(volumes, 1, 2), ""); err != nil {
		t.Errorf("with the proposed roots: %v", err)
	}
}

func TestTheEnvironmentOverridesTheState(t *testing.T) {
	const config = "version: 1\nstate: /data/state\n"
	for set, want := range map[string]string{"": "/data/state", "/srv/host/../state": "/srv/state"} {
		t.Setenv(workload.StateVariable, set)
		if cfg, err := load(t, config); err != nil || cfg.State != want {
			t.Errorf("with %q the state is %q: %v", set, cfg.State, err)
		}
	}
	t.Setenv(workload.StateVariable, "relative")
	if _, err := load(t, config); err == nil {
		t.Error("a relative path was taken")
	}
}

func TestCompressionIsGzipUnlessTheConfigSaysZstd(t *testing.T) {
	for line, want := range map[string]workload.Compression{
		"": workload.Gzip, "compression:": workload.Gzip, "compression: gzip": workload.Gzip, "compression: zstd": workload.Zstd, `compression: "zstd"`: workload.Zstd,
	} {
		if cfg, err := load(t, "version: 1\n"+line+"\n"); err != nil || cfg.Compression != want {
			t.Errorf("%q is %+v: %v", line, cfg, err)
		}
	}
}

func TestWhatIsRefusedAndWhatIsSaid(t *testing.T) {
	two := func(a, b string) string { return one(a + "\n      - " + b) }
	container := func(keys string) string { return "version: 1\nworkloads:\n  blog:\n    image: ghost:5\n" + keys }
	for _, c := range []struct{ name, config, want string }{
		{"nothing", "", "empty"},
		{"only a comment", "# nothing\n", "empty"},
		{"no version", "workloads: {}\n", "version is 0"},
		{"an unknown compression", "version: 1\nbase: /x\ncompression: lz4\n", `line 3: compression is "lz4": use gzip or zstd`},
		{"a compression that is no word", "version: 1\ncompression: [zstd]\n", `line 2: compression is ""`},
		{"an empty compression", "version: 1\ncompression: ''\n", `line 2: compression is ""`},
		{"a compression of a workload", "version: 1\nworkloads:\n  blog: {image: x, compression: zstd}\n", "line 3: unknown key compression"},
		{"a newer version", "version: 2\n", "version is 2, this program knows version 1"},
		{"no YAML", "version: 1\n\tx", "yaml"},
		{"a list", "- 1\n", "line 1"},
		{"an unknown key of a group of keys", "version: 1\nworkloads: {a: {pign_file: /x}}\n", "line 2: unknown key pign_file (did you mean ping_file?)"},
		{"an unknown key", "version: 1\nstoer: /x\n", "line 2: unknown key stoer (did you mean store?)"},
		{"an unknown key of a workload", one("{scope: stage, source: x}") + "    restrat: no\n", "line 6: unknown key restrat (did you mean restart?)"},
		{"an unknown key of a volume", one("{scope: stage, source: x, traget: /x}"), "line 5: unknown key traget (did you mean target?)"},
		{"an unknown key of a health check", container("    healthcheck:\n      test: x\n      intervall: 1s\n"), "line 7: unknown key intervall (did you mean interval?)"},
		{"a key twice", "version: 1\nstore: /a\nstore: /b\n", "line 3"},
		{"a workload twice", one("{scope: stage, source: x}") + "  blog:\n    image: x\n", "line 6"},
		{"a key of a volume twice", one("{scope: stage, source: x, source: y}"), "line 5"},
		{"an environment twice", container("    environment: {A: 1, A: 2}\n"), "line 5: A stands here twice"},
		{"an environment twice, as a list", container("    environment: [A=1, A=2]\n"), "A stands here twice"},
		{"a second document", one("{scope: stage, source: x}") + "---\nversion: 1\n", "second YAML document"},
		{"a relative store", "version: 1\nstore: snap\n", "not an absolute path"},
		{"a relative base", "version: 1\nbase: ./apps\n", "not an absolute path"},
		{"a relative root", "version: 1\nabsolute_roots: [srv]\n", "not an absolute path"},
		{"a relative state", "version: 1\nstate: snap\n", "not an absolute path"},
		{"an empty store", "version: 1\nstore: ''\n", "not an absolute path"},
		{"an empty workload", "version: 1\nworkloads: {blog: }\n", "is empty"},
		{"a workload of nothing", "version: 1\nworkloads: {blog: {}}\n", "no image, no compose file and no volumes"},
		{"a name with a slash", "version: 1\nworkloads: {a/b: {image: x}}\n", "not a name"},
		{"a name of dots", "version: 1\nworkloads: {..: {image: x}}\n", "not a name"},
		{"a name of 64 letters", "version: 1\nworkloads: {" + strings.Repeat("a", 64) + ": {image: x}}\n", "not a name"},
		{"the name of the store's lock", "version: 1\nworkloads: {store: {image: x}}\n", "needs for itself"},
		{"a name like a volume's lock", "version: 1\nworkloads: {vol-ext4-00.1.00: {image: x}}\n", "needs for itself"},
		{"a project with ..", "version: 1\nworkloads: {a: {image: x, project: ../b}}\n", "plain names"},
		{"a stage with a slash", "version: 1\nworkloads: {a: {image: x, stage: b/c}}\n", "plain names"},
		{"image and compose", "version: 1\nworkloads: {a: {image: x, compose: /c.yaml}}\n", "both image and compose"},
		{"compose and keys of an image", "version: 1\nworkloads: {a: {compose: /c.yaml, ports: ['80:80']}}\n", "compose"},
		{"keys of an image without one", "version: 1\nworkloads: {a: {restart: always, volumes: [{scope: stage, source: x}]}}\n", "image"},
		{"an unknown key in compose", "version: 1\nworkloads:\n  a:\n    compose: {files: [/c.yaml], profile: [x]}\n", "line 4: unknown key profile in compose"},
		{"a compose of nothing", "version: 1\nworkloads: {a: {compose: {profiles: [x]}}}\n", "give it files, or the project"},
		{"a list as compose", "version: 1\nworkloads: {a: {compose: [/c.yaml]}}\n", "compose is a path, or a mapping"},
		{"a relative file of compose", "version: 1\nworkloads: {a: {compose: {files: [/c.yaml, d.yaml]}}}\n", "not an absolute path"},
		{"a relative env file", "version: 1\nworkloads: {a: {compose: {files: [/c.yaml], env_files: [.env]}}}\n", "not an absolute path"},
		{"a relative directory", "version: 1\nworkloads: {a: {compose: {files: [/c.yaml], directory: x}}}\n", "not an absolute path"},
		{"a number as a project", "version: 1\nworkloads: {a: {compose: {project: [x]}}}\n", "another kind of value"},
		{"a relative compose file", "version: 1\nworkloads: {a: {compose: c.yaml}}\n", "not an absolute path"},

		{"no scope", one("{source: x}"), `unknown scope ""`},
		{"an unknown scope", one("{scope: global, source: x}"), `unknown scope "global": use absolute, stage, project, named or project_named`},
		{"scope instance", one("{scope: instance, source: x}"), "ends with its container"},
		{"scope ephemeral", one("{scope: ephemeral, source: x}"), "gone when its container stops"},
		{"a named volume with a path for a name", one("{scope: named, source: /srv/x}"), "must be the name of a volume"},
		{"a named volume with .. for a name", one("{scope: named, source: ..}"), "must be the name of a volume"},
		{"a named volume of the project with a slash", one("{scope: project_named, source: a/b}"), "must be the name of a volume"},
		{"the same named volume twice", two("{scope: project_named, source: x}", "{scope: named, source: blog_x, name: y}"), "contain one another"},
		{"exclude beside volumes", "version: 1\nworkloads: {a: {compose: /c.yaml, exclude: [x], volumes: [{scope: stage, source: x}]}}\n", "leave it out of them"},
		{"exclude without a Compose file", "version: 1\nworkloads: {a: {exclude: [x], volumes: [{scope: stage, source: x}]}}\n", "exclude is for a Compose workload"},
		{"no source", one("{scope: stage}"), "source is missing"},
		{"a source of ..", one("{scope: stage, source: ..}"), "no .."},
		{"a source that leads out", one("{scope: project, source: ../x}"), "no .."},
		{"a source with .. inside", one("{scope: stage, source: a/../b}"), "no .."},
		{"a source that is the stage itself", one("{scope: stage, source: .}"), "plain relative path"},
		{"a source with a trailing slash", one("{scope: stage, source: a/}"), "plain relative path"},
		{"a source with two slashes", one("{scope: stage, source: a//b}"), "plain relative path"},
		{"a source with NUL", one(`{scope: stage, source: "a\0b"}`), "source is missing"},
		{"an absolute source in scope stage", one("{scope: stage, source: /srv/x}"), "plain relative path"},
		{"a relative source in scope absolute", one("{scope: absolute, source: srv/x}"), `write "/srv/x"`},
		{"a source with .. in scope absolute", one("{scope: absolute, source: /srv/../etc/x}"), `write "/etc/x"`},
		{"a source with a trailing slash in scope absolute", one("{scope: absolute, source: /srv/x/}"), `write "/srv/x"`},
		{"a source that is a root", one("{scope: absolute, source: /srv}"), "is one of absolute_roots"},
		{"a source outside the roots", one("{scope: absolute, source: /home/x}"), "none of absolute_roots (/srv, /opt)"},
		{"a source whose name begins like a root", one("{scope: absolute, source: /srvx/y}"), "none of absolute_roots"},
		{"one volume inside another", two("{scope: project, source: a}", "{scope: project, source: a/b}"), "contain one another"},
		{"one volume around another", two("{scope: project, source: a/b}", "{scope: project, source: a}"), "contain one another"},
		{"the same directory twice", two("{scope: project, source: a}", "{scope: absolute, source: /srv/apps/blog/a}"), "contain one another"},
		{"one inside another of another scope", two("{scope: stage, source: a}", "{scope: project, source: default}"), "contain one another"},
		{"the same name twice", two("{scope: project, source: a, name: n}", "{scope: project, source: b, name: n}"), `two volumes are named "n"`},
		{"symlinks of another word", one("{scope: stage, source: x, symlinks: follow}"), "use preserve or reject"},
		{"setuid of another word", one("{scope: stage, source: x, setuid: yes}"), "use keep or strip"},
		{"an image's volume without a target", container("    volumes: [{scope: stage, source: x}]\n"), "not an absolute path in the container"},

		{"a port that is none", container("    ports: ['80:eighty']\n"), "ports"},
		{"a port of 65536", container("    ports: ['65536:80']\n"), "ports"},
		{"a guard of another word", "version: 1\nworkloads: {a: {guard: sometimes, volumes: [{scope: stage, source: x}]}}\n", "must be before or after"},
		{"a restart policy of another word", container("    restart: sometimes\n"), "must be no, always"},
		{"always with a count", container("    restart: always:3\n"), "must be no, always"},
		{"on-failure with a word", container("    restart: on-failure:often\n"), "must be no, always"},
		{"on-failure with a negative count", container("    restart: on-failure:-1\n"), "must be no, always"},
		{"a health check without a test", container("    healthcheck: {interval: 1s}\n"), "test is missing"},
		{"a health check's list without CMD", container("    healthcheck: {test: [curl, x]}\n"), "CMD, CMD-SHELL or NONE"},
		{"a health check's empty list", container("    healthcheck: {test: []}\n"), "CMD, CMD-SHELL or NONE"},
		{"a duration without a unit", container("    stop_grace_period: 30\n"), "line 5: \"30\" is not a duration"},
		{"a negative duration", container("    stop_grace_period: -1s\n"), "not a duration"},
		{"a size of another unit", container("    shm_size: 64 parsecs\n"), "line 5"},
		{"a negative size", container("    shm_size: -1\n"), "not a size"},
		{"an environment without a value", container("    environment: {A: }\n"), "A has no value"},
		{"an environment without =", container("    environment: [A]\n"), `"A" is not KEY=VALUE`},
		{"an environment without a key", container("    environment: ['=A']\n"), "is not KEY=VALUE"},
		{"an environment that is text", container("    environment: A=1\n"), "expected a mapping or a list"},
		{"an environment in an environment", container("    environment: {A: {B: 1}}\n"), "A: expected one value"},
		{"a command with an open quote", container("    command: sh -c 'x\n"), "a quote is not closed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.config)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the answer is %v; expected one that says %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "workload.") {
				t.Errorf("a Go type is shown to the operator: %v", err)
			}
		})
	}
}

// What the system or the store needs is no volume, nor is what holds it or lies
// in it.
func TestSystemDirectoriesTheStoreAndTheStateAreNoVolumes(t *testing.T) {
	const head = "version: 1\nabsolute_roots: [/]\nstate: /state/snap\nstore: /data/snap\nworkloads:\n  blog: {volumes: [{scope: absolute, source: %s}]}\n"
	for path, ok := range map[string]bool{
		"/etc": false, "/etc/ssh": false, "/usr": false, "/usr/local/share/x": false, "/bin": false, "/sbin": false, "/lib": false, "/lib64": false,
		"/boot": false, "/dev/shm": false, "/proc": false, "/sys": false, "/run/x": false, "/var/run/x": false, "/": false, "/var": false, "/var/lib": false,
		"/var/lib/docker": false, "/var/lib/docker/volumes/x/_data": false, "/var/lib/containerd": false,
		"/state": false, "/state/snap": false, "/state/snap/tx": false,
		"/data": false, "/data/snap": false, "/data/snap/members": false,
		"/tmp": false, "/var/log": false, "/var/tmp": false, "/tmp/x": true, "/var/log/blog": true,
		"/data/snapper": true, "/data/x": true, "/home/x": true, "/var/lib/ghost": true, "/etcetera": true, "/var/lib/dockerish": true,
	} {
		_, err := load(t, fmt.Sprintf(head, path))
		if (err == nil) != ok {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, base := range []string{"/", "/etc", "/var/lib"} {
		name := map[string]string{"/": "etc", "/etc": "x", "/var/lib": "docker"}[base]
		if _, err := load(t, fmt.Sprintf("version: 1\nbase: %s\nworkloads: {%s: {volumes: [{scope: project, source: x}]}}\n", base, name)); err == nil {
			t.Errorf("workload %s below %s was taken", name, base)
		}
	}
}

func TestTheKeysOfAnImageWorkloadMeanWhatComposeMeans(t *testing.T) {
	cfg, err := load(t, `version: 1
workloads:
  blog:
    image: ghost:5
    command: serve --port 80 "two words" 'it''s' a\ b ""
    entrypoint: [/bin/sh, -c]
    environment: [A=1, B=x=y, C=]
    labels: {a: 1, b: true, c: "", d: 1.50}
    ports: ["127.0.0.1:2368:2368", "53:53/udp", 8080]
    restart: on-failure:3
    healthcheck: {test: curl -f localhost, interval: 1m30s, timeout: 500ms, retries: 3, start_period: 1h}
    stop_grace_period: 90s
    shm_size: 64m
    init: true
    tmpfs: /tmp
    volumes: [{scope: stage, source: x, target: /x, read_only: true, symlinks: reject, setuid: keep}]
`)
	if err != nil {
		t.Fatal(err)
	}
	w := cfg.Workloads["blog"]
	for what, pair := range map[string][2]any{
		"command":      {w.Command, workload.Words{"serve", "--port", "80", "two words", "its", "a b", ""}},
		"entrypoint":   {w.Entrypoint, workload.Words{"/bin/sh", "-c"}},
		"environment":  {w.Environment, workload.Mapping{"A": "1", "B": "x=y", "C": ""}},
		"labels":       {w.Labels, workload.Mapping{"a": "1", "b": "true", "c": "", "d": "1.50"}},
		"ports":        {w.Ports, []string{"127.0.0.1:2368:2368", "53:53/udp", "8080"}},
		"restart":      {w.Restart, "on-failure:3"},
		"health check": {*w.Healthcheck, workload.Healthcheck{Test: workload.Test{"CMD-SHELL", "curl -f localhost"}, Interval: workload.Duration(90 * time.Second), Timeout: workload.Duration(500 * time.Millisecond), Retries: 3, StartPeriod: workload.Duration(time.Hour)}},
		"grace":        {w.StopGracePeriod, workload.Duration(90 * time.Second)},
		"shm":          {w.ShmSize, workload.Bytes(64 << 20)},
		"init":         {*w.Init, true},
		"tmpfs":        {w.Tmpfs, workload.Words{"/tmp"}},
		"kind":         {w.Kind(), workload.Image},
		"symlinks":     {w.Volumes[0].Symlinks, workload.RejectSymlinks},
		"setuid":       {w.Volumes[0].Setuid, workload.KeepSetuid},
		"read only":    {w.Volumes[0].ReadOnly, true},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s is %#v, expected %#v", what, pair[0], pair[1])
		}
	}
	for _, taken := range []string{
		"restart: no", "restart: always", "restart: unless-stopped", "restart: on-failure", `restart: "no"`,
		"healthcheck: {disable: true}", "healthcheck: {test: [NONE]}", "healthcheck: {test: [CMD, /x]}", "healthcheck: {test: [CMD-SHELL, x]}",
	} {
		if _, err := load(t, "version: 1\nworkloads: {blog: {image: x, "+taken+"}}\n"); err != nil {
			t.Errorf("%s: %v", taken, err)
		}
	}
}

func TestAConfigThatOthersMayWriteIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	acl := []byte{2, 0, 0, 0} // u::rw- u:1000:rw- g::r-- m::rw- o::---
	for _, e := range [][2]uint32{{1, 6}, {2, 6}, {4, 4}, {0x10, 6}, {0x20, 0}} {
		id := uint32(0xffffffff)
		if e[0] == 2 {
			id = 1000
		}
		acl = append(acl, byte(e[0]), 0, byte(e[1]), 0, byte(id), byte(id>>8), byte(id>>16), byte(id>>24))
	}
	chmod := func(mode uint32) func(string) error { return func(p string) error { return unix.Chmod(p, mode) } }
	for _, c := range []struct {
		name   string
		change func(path string) error
		ok     bool
	}{
		{"as it was", func(string) error { return nil }, true},
		{"readable by all", chmod(0o755), true},
		{"writable by root's group", chmod(0o770), true},
		{"writable by all", chmod(0o702), false},
		{"writable by another group", func(p string) error { return errors.Join(os.Chown(p, 0, 1000), unix.Chmod(p, 0o770)) }, false},
		{"of another group", func(p string) error { return os.Chown(p, 0, 1000) }, true},
		{"of another owner", func(p string) error { return os.Chown(p, 1000, 0) }, false},
		{"writable by one other user", func(p string) error { return unix.Setxattr(p, "system.posix_acl_access", acl, 0) }, false},
	} {
		for _, what := range []string{"file", "folder"} {
			t.Run(what+" "+c.name, func(t *testing.T) {
				folder := t.TempDir() + "/etc"
				path := folder + "/snap.yaml"
				if err := errors.Join(os.Mkdir(folder, 0o700), os.WriteFile(path, []byte("version: 1\n"), 0o600)); err != nil {
					t.Fatal(err)
				}
				changed := map[string]string{"file": path, "folder": folder}[what]
				if err := c.change(changed); err != nil {
					t.Fatal(err)
				}
				link := t.TempDir() + "/link.yaml" // of a link, what it leads to counts
				if err := os.Symlink(path, link); err != nil {
					t.Fatal(err)
				}
				for _, p := range []string{path, link} {
					_, err := workload.Load(p)
					if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "writable by others") {
						t.Errorf("%s: %v", filepath.Base(p), err)
					}
				}
			})
		}
	}
}

// Whoever can write to any folder on the way can put another config there. A path is
// here what is made, with "!" after a folder that all can write to and "+" after one
// like /tmp; "->" is a symbolic link, and the last thing is what is loaded.
func TestEveryFolderOnTheWayToTheConfigCounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for way, ok := range map[string]bool{
		"a/b/c.yaml": true, "a!/b/c.yaml": false, "a/b!/c.yaml": false, "a!/b/c/d.yaml": false,
		"a+/b/c.yaml": true, "a+/c.yaml": false, "a/b+/c/d/e.yaml": true,
		"a/c.yaml x/l->a/c.yaml": true, "a/c.yaml x!/l->a/c.yaml": false, "a/c.yaml x+/l->a/c.yaml": false, "a/c.yaml x!/y/l->a/c.yaml": false,
		"a/b/c.yaml l->a l/b/c.yaml": true, "a/b/c.yaml x!/l->a x/l/b/c.yaml": false, "a!/b/c.yaml l->a/b l/c.yaml": false,
		"a/c.yaml x/l->a/c.yaml y/m->x/l": true, "a/c.yaml x!/l->a/c.yaml y/m->x/l": false,
	} {
		dir, last := t.TempDir(), ""
		for _, step := range strings.Fields(way) {
			name, to, link := strings.Cut(step, "->")
			at := dir
			for folder := range strings.SplitSeq(filepath.Dir(name), "/") {
				at = filepath.Join(at, strings.TrimRight(folder, "!+"))
				_ = os.Mkdir(at, 0o755)
				mode := map[bool]uint32{true: 0o777}[strings.HasSuffix(folder, "!")] | map[bool]uint32{true: 0o1777}[strings.HasSuffix(folder, "+")]
				if mode != 0 {
					if err := unix.Chmod(at, mode); err != nil {
						t.Fatal(err)
					}
				}
			}
			last = filepath.Join(at, filepath.Base(name))
			if link {
				_ = os.Symlink(filepath.Join(dir, to), last)
			} else if _, err := os.Stat(last); err != nil {
				if err := os.WriteFile(last, []byte("version: 1\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		cfg, err := workload.Load(last)
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "writable by others") {
			t.Errorf("%s: %v", way, err)
		}
		if want, _ := filepath.EvalSymlinks(last); err == nil && cfg.Real != want {
			t.Errorf("%s is really %s, expected %s", way, cfg.Real, want)
		}
	}
}

// The decoder drops what has no key: a workload would be missing without a word.
func TestAKeyThatIsNullIsAnError(t *testing.T) {
	for _, key := range []string{"null", "~", "Null", "!!null x"} {
		for _, text := range []string{"workloads: {%s: {volumes: [{scope: absolute, source: /srv/x}]}}", "%s: x", "workloads: {a: {volumes: [{scope: absolute, source: /srv/x, %s: y}]}}"} {
			if _, err := load(t, "version: 1\n"+fmt.Sprintf(text, key)+"\n"); err == nil || !strings.Contains(err.Error(), "line 2") {
				t.Errorf(text+": %v", key, err)
			}
		}
	}
	if _, err := load(t, "version: 1\nworkloads: {\"null\": {volumes: [{scope: absolute, source: /srv/x}]}}\n"); err != nil {
		t.Error(err)
	}
}

func TestTheStoreAndTheStateAreNotOnASystemDirectory(t *testing.T) {
	for path, ok := range map[string]bool{
		"/": false, "/etc": false, "/etc/snap": false, "/etc/../etc/x": false, "/usr": false, "/usr/share/snap": false, "/var": false, "/var/lib": false, "/tmp": false,
		"/var/lib/docker": false, "/var/lib/docker/volumes/x": false, "/dev/shm/x": false, "/run/snap": false, "/proc/self/root": false, "/boot": false,
		"/var/lib/snap2": true, "/srv/snap": true, "/mnt/backup": true, "/tmp/x": true, "/root/snap": true,
	} {
		for _, key := range []string{"store", "state"} {
			if _, err := load(t, fmt.Sprintf("version: 1\n%s: %s\n", key, path)); (err == nil) != ok {
				t.Errorf("%s: %s: %v", key, path, err)
			}
		}
	}
	t.Setenv(workload.StateVariable, "/etc")
	if _, err := load(t, "version: 1\n"); err == nil {
		t.Error("a state in /etc was taken from the environment")
	}
}

// FuzzLoad: any config is taken or refused with a place and a hint, and every
// volume that is taken lies below its root and outside the system.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(one("{scope: stage, source: content, target: /x}")))
	for _, seed := range []string{
		one("{scope: absolute, source: /srv/../etc}"), one("{scope: project, source: ../x}"),
		"version: 1\nworkloads: {a: {image: x, command: \"a 'b\\\" c\", environment: [A=1], ports: [\"1-2:3-4\"], shm_size: 9999999999g}}\n",
		"version: 1\nx: &a [*a]\n", "version: 1\nbase: /\nabsolute_roots: [/]\nworkloads: {etc: {volumes: [{scope: project, source: x}]}}\n", "",
		"version: 1\nworkloads: {a: {<<: {image: x}, healthcheck: {test: x}}}\n",
	} {
		f.Add([]byte(seed))
	}
	path := filepath.Join(f.TempDir(), "snap.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := workload.Load(path)
		if err != nil {
			var e *workload.Error
			if !errors.As(err, &e) {
				t.Errorf("%#v", err)
			}
			return
		}
		for _, w := range cfg.Workloads {
			for i := range w.Volumes {
				v := &w.Volumes[i]
				if !filepath.IsLocal(v.Rel()) || v.Rel() == "." || v.Path() != filepath.Clean(v.Path()) || !workload.Contains(v.Root(), v.Path()) || workload.Contains("/etc", v.Path()) {
					t.Errorf("%q below %q", v.Rel(), v.Root())
				}
			}
		}
	})
}

func TestVolumesFoundLaterLeaveTheConfigAlone(t *testing.T) {
	cfg, err := load(t, "version: 1\nworkloads: {shop: {compose: /srv/shop/compose.yaml}}\n")
	if err != nil {
		t.Fatal(err)
	}
	found := []workload.Volume{{Scope: workload.Absolute, Source: "/srv/shop/data"}}
	shop := cfg.Workloads["shop"]
	own, err := shop.WithVolumes(cfg, found, "")
	if err != nil {
		t.Fatal(err)
	}
	if v := own.Volumes[0]; v.Path() != "/srv/shop/data" || v.Symlinks != workload.PreserveSymlinks || own.Name != "shop" {
		t.Errorf("the copy is %+v", own)
	}
	if len(shop.Volumes) > 0 || found[0].Symlinks != "" {
		t.Errorf("the config has %+v, and the argument is %+v", shop.Volumes, found)
	}
	if own, err := shop.WithVolumes(cfg, []workload.Volume{{Scope: workload.Absolute, Source: "/etc/x"}}, ""); err == nil {
		t.Errorf("taken: %+v", own)
	}
}

func TestANamedVolumeIsAdmittedOnlyWhereTheEngineKeepsIt(t *testing.T) {
	cfg, err := load(t, "version: 1\nabsolute_roots: [/data]\nworkloads:\n  shop:\n    volumes:\n"+
		"      - {scope: project_named, source: db}\n      - {scope: named, source: media, name: pictures}\n")
	if err != nil {
		t.Fatal(err)
	}
	shop := cfg.Workloads["shop"]
	db, media := shop.Volumes[0], shop.Volumes[1]
	if db.Scope != workload.Named || db.Source != "shop_db" || db.Name != "shop_db" || db.Alias != "db" || db.Path() != "" || media.Name != "pictures" || media.Source != "media" {
		t.Fatalf("loaded as %+v and %+v", db, media)
	}
	const engine = "/data/docker"
	own, err := shop.WithVolumes(cfg, []workload.Volume{db.At(engine+"/volumes/shop_db", "_data"), media}, engine)
	if err != nil {
		t.Fatal(err)
	}
	named, err := own.Volume("db")
	if err != nil || named.Path() != engine+"/volumes/shop_db/_data" || shop.Volumes[0].Path() != "" {
		t.Fatalf("placed at %+v, %v; the config has %+v", named, err, shop.Volumes[0])
	}
	directory := &workload.Volume{Scope: workload.Absolute, Source: "/data/x"}
	for _, c := range []struct {
		what  string
		v     *workload.Volume
		real  string
		taken bool
	}{
		{"a named volume where the engine keeps it", named, engine + "/volumes/shop_db/_data", true},
		{"another directory of the engine", named, engine + "/volumes/other/_data", false},
		{"a directory outside the engine", named, "/srv/x", false},
		{"a directory elsewhere", directory, "/data/x", true},
		{"a directory below the engine's root", directory, engine + "/volumes/shop_db/_data", false},
		{"a directory around the engine's root", directory, "/data", false},
		{"a directory of the usual engine", directory, "/var/lib/docker/volumes/x/_data", false},
	} {
		if err := own.Admit(cfg, c.v, c.real); (err == nil) != c.taken {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	if own, err := shop.WithVolumes(cfg, []workload.Volume{db.At("/var/lib/snap/store/x", "_data")}, engine); err == nil {
		t.Errorf("a named volume in the store is taken: %+v", own)
	}
	if own, err := shop.WithVolumes(cfg, []workload.Volume{{Scope: workload.Absolute, Source: engine + "/x"}}, engine); err == nil {
		t.Errorf("a directory below the engine's root is taken: %+v", own)
	}
}

// The key compose is a path, or says all that docker compose can be told.
func TestComposeIsAPathOrAnObject(t *testing.T) {
	cfg, err := load(t, "version: 1\nworkloads:\n"+
		"  path: {compose: /srv/shop//compose.yaml}\n"+
		"  whole: {compose: {files: [/srv/a.yaml, /srv/b.yaml], project: team, directory: /srv/, env_files: [/srv/prod.env], profiles: [worker]}}\n"+
		"  named: {compose: {project: team}}\n"+
		"  none: {compose: {files: [/srv/a.yaml], env_files: []}}\n")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]workload.Composition{
		"path":  {Files: []string{"/srv/shop/compose.yaml"}, Alone: true},
		"whole": {Files: []string{"/srv/a.yaml", "/srv/b.yaml"}, Project: "team", Directory: "/srv", EnvFiles: []string{"/srv/prod.env"}, Profiles: []string{"worker"}},
		"named": {Project: "team"},
		"none":  {Files: []string{"/srv/a.yaml"}, EnvFiles: []string{}},
	} {
		w := cfg.Workloads[name]
		if w.Kind() != workload.Compose || !reflect.DeepEqual(*w.Compose, want) {
			t.Errorf("%s: %+v, want %+v", name, *w.Compose, want)
		}
		if real, err := filepath.EvalSymlinks(cfg.Path); err != nil || w.Config != real {
			t.Errorf("%s is from %s, want %s, %v", name, w.Config, real, err)
		}
	}
}

// A name that a config has chosen is checked; a source that is the name is not.
func TestTheNamesOfVolumes(t *testing.T) {
	for name, ok := range map[string]bool{
		"content": true, "a/b": true, "/srv/files": true, "a:b": true, "a=b": true, "my data": true, "Ünïcode": true, "..a": true, ".": false, "..": false,
		"../x": false, "a/../b": false, "/": false, "/..": false, "a//b": false, "a/": false, "./a": false, " a": false, "a ": false, "-a": false,
		"a\tb": false, "a\nb": false, "a\x1b[2J": false, "a\u202eb": false, strings.Repeat("x", 255): true, strings.Repeat("x", 256): false,
	} {
		_, err := load(t, one("{name: "+strconv.Quote(name)+", scope: stage, source: x}"))
		if (err == nil) != ok {
			t.Errorf("the name %q: %v", name, err)
		}
	}
	if _, err := load(t, one("{scope: absolute, source: \"/srv/-a  b \"}")); err != nil {
		t.Errorf("an odd source without a name: %v", err)
	}
}

// What a volume was, no other volume is or was.
func TestFormerNamesOfVolumes(t *testing.T) {
	for volumes, why := range map[string]string{
		"{scope: stage, source: x, was: old}":                                                "",
		"{scope: stage, source: x, was: [old, /srv/old]}":                                    "",
		"{name: x, scope: absolute, source: /srv/x, was: x}":                                 "",
		"{scope: stage, source: x, was: ''}":                                                 "was \"\"",
		"{scope: stage, source: x, was: [old, old]}":                                         "no other volume was",
		"{scope: stage, source: x, was: old}, {scope: stage, source: y, was: old}":           "no other volume was",
		"{scope: stage, source: x, was: y}, {scope: stage, source: y}":                       "which volume y is now",
		"{scope: stage, source: x, was: /srv/y}, {name: y, scope: absolute, source: /srv/y}": "which volume y is now",
		"{scope: stage, source: x, was: {a: b}}":                                             "cannot unmarshal",
	} {
		_, err := load(t, one(strings.ReplaceAll(volumes, "}, {", "}\n      - {")))
		if why == "" && err != nil || why != "" && (err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), `"y"`, "y"), why)) {
			t.Errorf("%s: %v", volumes, err)
		}
	}
}
