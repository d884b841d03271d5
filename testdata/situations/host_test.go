package situations

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// host is the machine of one situation: a project in its folder, and a snap with its
// own config, state and store. On the engine all that is its own has a name that begins with
// the project's.
type host struct {
	*testing.T
	*bench
	situation *situation
	project   string
	dir       string // the project's folder
	own       string // snap's
}

func newHost(t *testing.T, b *bench, name string) *host {
	t.Helper()
	top := t.TempDir()
	h := &host{T: t, bench: b, project: "s" + disk.NewID(time.Now())[17:] + "-" + name, own: filepath.Join(top, "snap")}
	h.dir = filepath.Join(top, h.project)
	h.must(os.MkdirAll(h.own, 0o700))
	h.situation = h.read(name)
	config, err := yaml.Marshal(map[string]any{
		"version": 1, "state": filepath.Join(h.own, "state"), "store": filepath.Join(h.own, "store"), "base": h.dir, "absolute_roots": []string{top},
		"workloads": map[string]any{h.project: h.situation.Workload},
	})
	h.must(err)
	h.must(os.WriteFile(h.config(), config, 0o600))
	t.Cleanup(h.remove)
	return h
}

func (h *host) config() string { return filepath.Join(h.own, "snap.yaml") }

func (h *host) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// replace fills in what the files of a situation leave open.
func (h *host) replace(text string) string {
	h.Helper()
	const databases = "@DATABASES@"
	if strings.Contains(text, databases) {
		disktest.Need(h.T, "debootstrap")
		tag, err := h.databases()
		if err != nil {
			h.Fatalf("build the image of the databases: %v", err)
		}
		text = strings.ReplaceAll(text, databases, tag)
	}
	return strings.NewReplacer("@PROJECT@", h.project, "@DIR@", h.dir, "@APP@", h.app).Replace(text)
}

// patience is how long one command may take before it counts as hanging.
const patience = 2 * time.Minute

// command runs a command in the project's folder, and returns its exit code, its
// standard output, and all that it said.
func (h *host) command(name string, args ...string) (code int, out, all string) {
	h.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = h.dir
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil || err != nil && !errors.As(err, &exit) {
		h.Fatalf("%s %.1000q: %v, %v\n%s%s", name, args, ctx.Err(), err, &stderr, &stdout)
	}
	return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String() + stdout.String()
}

// sh runs a script, which must succeed, and returns what it printed.
func (h *host) sh(script string) string {
	h.Helper()
	if script == "" {
		return ""
	}
	code, out, all := h.command("sh", "-euc", "compose() { docker compose "+h.situation.Compose+" \"$@\"; }\n"+script)
	if code != 0 {
		h.Fatalf("exit %d of the script\n%s\n%s", code, script, all)
	}
	return out
}

var sidForm = regexp.MustCompile(`"sid":"(\d{8}T\d{6}Z-[0-9a-f]{6})"`)

// snap runs snap, judges its end, and returns the sid that it printed.
func (h *host) snap(what string, want run, args ...string) (sid string) {
	h.Helper()
	args = append([]string{"--config", h.config()}, args...)
	if what != "plan" { // a plan is for people to read
		args = append(args, "--json")
	}
	begun := time.Now()
	code, _, out := h.command(h.bench.snap, append(args, want.Args...)...)
	h.Logf("%.1f s: snap %s: exit %d\n%s", time.Since(begun).Seconds(), what, code, out)
	if code != want.Exit {
		h.Errorf("%s: exit %d, and %d is wanted", what, code, want.Exit)
	}
	if want.Code != "" && !strings.Contains(out, `"code":"`+want.Code+`"`) {
		h.Errorf("%s: the error has not the code %s", what, want.Code)
	}
	for _, words := range want.Says {
		if !regexp.MustCompile(words).MatchString(out) {
			h.Errorf("%s: nothing is said like %q", what, words)
		}
	}
	for _, words := range want.Unsaid {
		if said := regexp.MustCompile(words).FindString(out); said != "" {
			h.Errorf("%s: it says %q", what, said)
		}
	}
	if code != want.Exit {
		h.FailNow()
	}
	if m := sidForm.FindStringSubmatch(out); m != nil {
		return m[1]
	}
	return ""
}

// path returns where a place of the data is on this host, "" for a volume that does
// not exist.
func (h *host) path(place string) string {
	h.Helper()
	volume, named := strings.CutPrefix(place, "volume ")
	if !named {
		return filepath.Join(h.dir, place)
	}
	code, out, _ := h.command("docker", "volume", "inspect", "-f", `{{.Mountpoint}} {{index .Options "device"}}`, volume)
	if code != 0 {
		return ""
	}
	at, device, _ := strings.Cut(strings.TrimSpace(out), " ")
	if filepath.IsAbs(device) {
		return device
	}
	return at
}

// fill gives each place content of a generation: "old" is captured, "new" replaces it.
func (h *host) fill(places []string, generation string) {
	h.Helper()
	for _, place := range places {
		path := h.path(place)
		in := func(name string) string { return filepath.Join(path, name) }
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			h.must(os.WriteFile(path, []byte(generation), 0))
			continue
		}
		disktest.Write(h.T, path, map[string]string{"a": generation, "sub/" + generation: strings.Repeat(place, 10_000)})
		if generation == "new" {
			h.must(os.Remove(in("sub/old")))
			h.must(os.Chmod(in("sub"), 0o700))
			continue
		}
		h.must(os.Symlink("sub/old", in("link")))
		h.must(os.Link(in("a"), in("twin")))
		h.must(os.Mkdir(in("empty"), 0o711))
		h.must(os.Lchown(in("sub"), 1000, 1001))
	}
}

// trees describes each place, file by file.
func (h *host) trees(places []string) map[string][]string {
	h.Helper()
	trees := map[string][]string{}
	for _, place := range places {
		path := h.path(place)
		if _, err := os.Lstat(path); path == "" || errors.Is(err, os.ErrNotExist) {
			trees[place] = []string{"there is nothing"}
		} else {
			trees[place] = disktest.Tree(h.T, path)
		}
	}
	return trees
}

func (h *host) same(what string, want, got map[string][]string) {
	h.Helper()
	for place, tree := range want {
		if d := disktest.Diff(tree, got[place]); d != "" {
			h.Errorf("%s: %s is not as it should be (- expected, + found):\n%s", what, place, d)
		}
	}
}

// clean fails the test if snap has left something over.
func (h *host) clean() {
	h.Helper()
	patterns := []string{filepath.Join(h.own, "state/tx/*"), filepath.Join(h.own, "store/scratch/*"), filepath.Join(h.dir, ".snap-*")}
	for _, place := range h.situation.Data {
		if path := h.path(place); path != "" {
			patterns = append(patterns, filepath.Join(filepath.Dir(path), ".snap-*"))
		}
	}
	for _, pattern := range slices.Compact(patterns) {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			h.Errorf("left behind: %q", left)
		}
	}
}

// remove removes all that the situation has made in the engine.
func (h *host) remove() {
	h.Helper()
	h.sh("p=" + h.project + `
docker ps -aq --filter name=^/?$p | xargs -r docker rm -f -v
docker network ls -q --filter name=^$p | xargs -r docker network rm
docker volume ls -q --filter name=^$p | xargs -r docker volume rm
docker images --format '{{.Repository}}:{{.Tag}}' --filter reference=$p | xargs -r docker rmi -f`)
}
