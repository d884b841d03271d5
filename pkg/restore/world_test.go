package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/docker"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/state"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// world is a small host in one directory: a config, a store, and the live
// directories of one workload.
type world struct {
	*testing.T
	dir     string
	config  string
	name    string   // of the workload
	volumes []string // live directories
	policy  string   // restart policy of the container
	single  []bool   // which volumes are one file; nil for none
}

// newWorld returns a world with one workload of volumes v0, v1, …; more are further
// config lines of the workload.
func newWorld(t *testing.T, dir string, volumes int, more ...string) *world {
	t.Helper()
	disktest.NeedRoot(t)
	w := &world{T: t, dir: dir, name: "app" + disk.NewID(testTime())[17:], config: filepath.Join(dir, "snap.yaml"), policy: "unless-stopped"}
	lines := append([]string{}, more...)
	lines = append(lines, "volumes:")
	for i := range volumes {
		path := filepath.Join(dir, "live", fmt.Sprintf("v%d", i))
		w.volumes = append(w.volumes, path)
		w.must(os.MkdirAll(path, 0o755))
		lines = append(lines, fmt.Sprintf("  - {name: v%d, scope: absolute, source: %s, target: /data%s}", i, path, strings.Repeat("x", i)))
	}
	w.write(map[string][]string{w.name: lines})
	return w
}

// write writes the config from the lines of each workload.
func (w *world) write(workloads map[string][]string) {
	w.Helper()
	text := fmt.Sprintf("version: 1\nstate: %s/state\nstore: %s/store\nbase: %s\nabsolute_roots: [%s/live]\nworkloads:\n", w.dir, w.dir, w.dir, w.dir)
	for name, lines := range workloads {
		text += "  " + name + ":\n    " + strings.Join(lines, "\n    ") + "\n"
	}
	w.must(os.WriteFile(w.config, []byte(text), 0o600))
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// openEngine opens the Engine of a config as the command does.
func openEngine(config string) (*Engine, func(), error) {
	cfg, err := workload.Load(config)
	if err != nil {
		return nil, nil, err
	}
	host, err := state.Open(cfg.State)
	if err != nil {
		return nil, nil, err
	}
	st, err := host.Store(cfg.Store, true)
	var missing *store.Missing
	if err != nil && !errors.As(err, &missing) {
		return nil, nil, errors.Join(err, host.Close())
	}
	return &Engine{
		Config: cfg, Store: st, NoStore: err, Journal: host.Journal, Scrubs: host, Notes: host, Version: "test",
		Runtime: func(_ context.Context, w *workload.Workload) (runtime.Runtime, error) {
			return docker.Open(w, docker.Options{})
		},
	}, func() { st.Close(); host.Close() }, nil
}

func (w *world) engine() *Engine {
	w.Helper()
	e, done, err := openEngine(w.config)
	w.must(err)
	w.Cleanup(done)
	return e
}

// fill replaces the content of all volumes with that of a generation.
func (w *world) fill(generation string) {
	w.Helper()
	for i, dir := range w.volumes {
		if w.isFile(i) {
			w.must(os.WriteFile(dir, []byte(strings.Repeat(generation, 300_000/len(generation)+1)), 0o640))
			continue
		}
		names, err := os.ReadDir(dir)
		w.must(err)
		for _, name := range names {
			w.must(os.RemoveAll(filepath.Join(dir, name.Name())))
		}
		disktest.Write(w.T, dir, map[string]string{
			"generation": generation, "dir/" + generation: strings.Repeat(generation, 5000), "empty/": "",
			"large": strings.Repeat(generation, 300_000/len(generation)+1),
		})
	}
}

func (w *world) isFile(i int) bool { return i < len(w.single) && w.single[i] }

// trees describes all volumes.
func (w *world) trees() [][]string {
	w.Helper()
	var all [][]string
	for _, dir := range w.volumes {
		all = append(all, disktest.Tree(w.T, dir))
	}
	return all
}

// generation returns the name of the state that all volumes are in. A mixture fails
// the test.
func (w *world) generation(states map[string][][]string) string {
	w.Helper()
	now := w.trees()
	var report []string
	for name, state := range states {
		whole := true
		for i := range state {
			if d := disktest.Diff(state[i], now[i]); d != "" {
				whole = false
				report = append(report, fmt.Sprintf("volume %d compared with %s:\n%s", i, name, d))
			}
		}
		if whole {
			return name
		}
	}
	w.Fatalf("mixed: the volumes match none of the states\n%s", strings.Join(report, "\n"))
	return ""
}

func (w *world) capture() string {
	w.Helper()
	r, err := w.engine().Capture(w.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.Pause})
	w.must(err)
	return r.Manifest.SID
}

// snapshots returns the manifests of the workload, newest first.
func (w *world) snapshots() (list []*store.Manifest) {
	w.Helper()
	for m, err := range w.engine().Store.All(w.name) {
		w.must(err)
		list = append(list, m)
	}
	return list
}

// healthTimeout is long enough for the tests' app, and what one that is not healthy
// costs a test, unless it gives up at its start.
const healthTimeout = 10 * time.Second

func (w *world) request(sid string) RestoreRequest {
	return RestoreRequest{Workload: w.name, SID: sid, Confirm: sid, OnUnhealthy: RevertUnhealthy, HealthTimeout: healthTimeout}
}

// clean fails the test if an operation has left something over.
func (w *world) clean() {
	w.Helper()
	for _, dir := range w.volumes {
		found, err := filepath.Glob(filepath.Join(filepath.Dir(dir), ".snap-*"))
		w.must(err)
		if len(found) > 0 {
			w.Errorf("left beside the live directory: %q", found)
		}
	}
	for _, pattern := range []string{"state/tx/*", "store/scratch/*"} {
		left, err := filepath.Glob(filepath.Join(w.dir, pattern))
		w.must(err)
		if len(left) > 0 {
			w.Errorf("left over: %q", left)
		}
	}
	snapshots, err := filepath.Glob(filepath.Join(w.dir, "store/snapshots/*/*"))
	w.must(err)
	for _, dir := range snapshots {
		if _, err := os.Stat(filepath.Join(dir, "manifest.json")); err != nil {
			w.Errorf("left in the store: a snapshot without a manifest: %v", err)
		}
	}
}

func codeOf(err error) string {
	var e *fault.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// image builds an image of the test program.
func image(t *testing.T) string {
	t.Helper()
	return dockertest.Image(t, "../docker/testdata/app")
}

// appLines returns the config lines of an image workload whose app is unhealthy
// while its first volume has a file named sick.
func appLines(image string, more ...string) []string {
	return append([]string{
		"image: " + image, "restart: unless-stopped",
		"healthcheck: {test: [CMD, /app, check], interval: 500ms, timeout: 5s, retries: 1}",
	}, more...)
}

// givesUp is a further line of appLines: on data that makes the app sick it exits at
// its start, which is a verdict at once. One that runs and fails its check is waited for
// until the deadline.
const givesUp = "command: [serve-unless-sick]"

// briefWait ends the wait for an app of briefLines that runs and fails its check.
const briefWait = 3 * time.Second

// briefLines are appLines whose check itself may take less than briefWait: no wait is
// shorter than what the check allows.
func briefLines(image string, more ...string) []string {
	lines := appLines(image, more...)
	lines[2] = strings.Replace(lines[2], "timeout: 5s", "timeout: 2s", 1)
	return lines
}

// briefly makes a restore wait as long as is enough for a verdict about a sick app of
// briefLines, and too little to rely on for a healthy one.
func briefly(req RestoreRequest) RestoreRequest {
	req.HealthTimeout = briefWait
	return req
}

// sicken puts a file into the first volume on which the app is sick. The app that runs is
// healthy until it is asked.
func (w *world) sicken() {
	w.Helper()
	w.must(os.WriteFile(filepath.Join(w.volumes[0], "sick"), []byte("yes"), 0o644))
}

// deploy brings the workload up, and removes it at the end of the test.
func (w *world) deploy() {
	w.Helper()
	w.Cleanup(w.undeploy)
	_, err := w.engine().Deploy(w.Context(), DeployRequest{Workload: w.name})
	w.must(err)
}

func (w *world) undeploy() { dockertest.Undeploy(w.T, w.name) }

func (w *world) containers() []dockertest.Container {
	w.Helper()
	return dockertest.Containers(w.T, w.name)
}

// appRuns fails the test unless the workload has exactly one container, which runs
// under the workload's name and with its restart policy.
func (w *world) appRuns() dockertest.Container {
	w.Helper()
	list := w.containers()
	if len(list) != 1 {
		w.Fatalf("%d containers, expected one: %+v", len(list), list)
	}
	c := list[0]
	if !c.Running || c.Paused || c.Name != w.name || c.Policy != w.policy {
		w.Errorf("the app is not as it should be: %+v", c)
	}
	return c
}
