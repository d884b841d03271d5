package docker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

var _ runtime.Runtime = (*Runtime)(nil)

const labelTest = "snap.test"

// bench is a test's part of the real engine. Each of its containers, networks and
// images has the bench's random name, and is removed after the test.
type bench struct {
	*testing.T
	api  *client.Client
	name string // of the workload, and the beginning of all other names
	dir  string // absolute root of the volumes; dir/data is one

	volumes []string // of the engine, to be removed
}

func newBench(t *testing.T) *bench {
	t.Helper()
	api := dockertest.Connect(t)
	b := &bench{T: t, api: api, name: "snaptest-" + randomHex(t), dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(b.dir, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.clean)
	return b
}

func randomHex(t *testing.T) string {
	var raw [4]byte
	if _, err := rand.Read(raw[:]); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(raw[:])
}

// clean removes what has the bench's name.
func (b *bench) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	containers, err := b.api.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("name", b.name))})
	if err != nil {
		b.Error(err)
	}
	for _, c := range containers {
		if err := b.api.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
			b.Error(err)
		}
	}
	for _, name := range b.volumes {
		if err := b.api.VolumeRemove(ctx, name, false); err != nil {
			b.Error(err)
		}
	}
	networks, err := b.api.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("name", b.name))})
	if err != nil {
		b.Error(err)
	}
	for _, n := range networks {
		if err := b.api.NetworkRemove(ctx, n.ID); err != nil {
			b.Error(err)
		}
	}
	images, err := b.api.ImageList(ctx, image.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelTest+"="+b.name))})
	if err != nil {
		b.Error(err)
	}
	for _, i := range images {
		if _, err := b.api.ImageRemove(ctx, i.ID, image.RemoveOptions{Force: true}); err != nil {
			b.Error(err)
		}
	}
}

// image makes an image of the test program and returns its id. The reference
// moves to it when it existed.
func (b *bench) image(tag string, changes ...string) (ref, id string) {
	b.Helper()
	ref = b.name + ":" + tag
	changes = append(changes, `ENTRYPOINT ["/app"]`, "LABEL "+labelTest+"="+b.name, "LABEL serial="+randomHex(b.T))
	dockertest.Import(b.T, b.api, ref, dockertest.RootFS(b.T, "./testdata/app"), changes...)
	found, err := b.api.ImageInspect(b.Context(), ref)
	b.must(err)
	return ref, found.ID
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// moment passes between two looks at the engine.
func (b *bench) moment() {
	b.Helper()
	select {
	case <-b.Context().Done():
		b.must(b.Context().Err())
	case <-time.After(100 * time.Millisecond):
	}
}

// healthy is a health check that answers quickly.
const healthy = "healthcheck: {test: [CMD, /app, check], interval: 500ms, timeout: 30s, retries: 1}"

// brief is a health check whose failure is certain after three seconds.
const (
	brief     = "healthcheck: {test: [CMD, /app, check], interval: 500ms, timeout: 2s, retries: 1}"
	briefWait = 3 * time.Second
)

// workload loads a config with one workload of these lines of YAML.
func (b *bench) workload(lines ...string) *workload.Workload {
	b.Helper()
	text := fmt.Sprintf("version: 1\nstore: %s/store\nbase: %s\nabsolute_roots: [%s]\nworkloads:\n  %s:\n    ", b.dir, b.dir, b.dir, b.name) +
		strings.Join(lines, "\n    ") + "\n"
	path := filepath.Join(b.dir, "snap.yaml")
	b.must(os.WriteFile(path, []byte(text), 0o600))
	cfg, err := workload.Load(path)
	b.must(err)
	return cfg.Workloads[b.name]
}

// app is the usual workload: an image, a volume, and what else the test wants.
func (b *bench) app(ref string, more ...string) *workload.Workload {
	b.Helper()
	return b.workload(append([]string{"image: " + ref,
		"volumes: [{scope: absolute, source: " + b.dir + "/data, target: /data}]"}, more...)...)
}

func (b *bench) open(w *workload.Workload, more ...client.Opt) *Runtime {
	b.Helper()
	r, err := open(w, Options{Notice: func(line string) { b.Log("notice:", line) }}, more...)
	b.must(err)
	b.Cleanup(func() { r.Close() })
	return r
}

// held locks the bench's workload for the rest of the test.
func (b *bench) held() *journal.Held {
	b.Helper()
	dir, err := disk.OpenRoot(b.TempDir())
	b.must(err)
	j, err := journal.Open(dir)
	b.must(err)
	h, err := j.Lock(b.name, "test")
	b.must(err)
	b.Cleanup(func() { h.Release(); j.Close(); dir.Close() })
	return h
}

// deployed brings a workload up from nothing and returns its container.
func (b *bench) deployed(r *Runtime, held runtime.Lock) runtime.Container {
	b.Helper()
	b.must(r.Redeploy(b.Context(), held, runtime.Redeploy{HealthTimeout: time.Minute}))
	return b.only(r)
}

// only returns the workload's container, of which there must be one.
func (b *bench) only(r *Runtime) runtime.Container {
	b.Helper()
	all, err := r.Containers(b.Context())
	b.must(err)
	if len(all) != 1 {
		b.Fatalf("the workload has %d containers, want 1: %+v", len(all), all)
	}
	return all[0]
}

// check plans a redeploy on these images, and returns why it is refused.
func (b *bench) check(r *Runtime, taken map[string]runtime.Pin) error {
	b.Helper()
	before, err := r.Containers(b.Context())
	b.must(err)
	for i := range before {
		before[i].Running = true // as before the fence
	}
	want := runtime.Want{Before: before, Image: runtime.ImageSnapshot, Taken: taken}
	_, err = r.Plan(b.Context(), want)
	return err
}

// sick makes the health checks of the bench's containers fail, or pass.
func (b *bench) sick(yes bool) {
	b.Helper()
	text := ""
	if yes {
		text = "yes"
	}
	b.must(os.WriteFile(filepath.Join(b.dir, "data", "sick"), []byte(text), 0o644))
}

// foreign runs a container that is not the workload's.
func (b *bench) foreign(name, ref string, cfg func(*container.Config, *container.HostConfig)) string {
	b.Helper()
	c, h := &container.Config{Image: ref}, &container.HostConfig{}
	if cfg != nil {
		cfg(c, h)
	}
	made, err := b.api.ContainerCreate(b.Context(), c, h, nil, nil, b.name+"-"+name)
	b.must(err)
	b.must(b.api.ContainerStart(b.Context(), made.ID, container.StartOptions{}))
	return made.ID
}

// logs returns what a container has logged.
func (b *bench) logs(id string) string {
	b.Helper()
	body, err := b.api.ContainerLogs(b.Context(), id, container.LogsOptions{ShowStdout: true, ShowStderr: true})
	b.must(err)
	defer body.Close()
	text, err := io.ReadAll(body)
	b.must(err)
	return string(text)
}

func (b *bench) look(id string) container.InspectResponse {
	b.Helper()
	c, err := b.api.ContainerInspect(b.Context(), id)
	b.must(err)
	return c
}

// faults is a connection on which one request fails, the n-th that changes
// something. Where it is cut, the engine still carries the request out, but no
// answer comes back from then on, as when a process is killed. Otherwise the
// engine refuses that request alone.
type faults struct {
	at   int
	cut  bool
	base http.RoundTripper

	mu   sync.Mutex
	seen int
	dead bool
}

func (b *bench) faults(at int, cut bool) (*faults, client.Opt) {
	f := &faults{at: at, cut: cut, base: b.transport()}
	return f, client.WithHTTPClient(&http.Client{Transport: f})
}

// transport leads to the engine.
func (b *bench) transport() http.RoundTripper {
	socket := strings.TrimPrefix(b.api.DaemonHost(), "unix://")
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	b.Cleanup(transport.CloseIdleConnections)
	return transport
}

var errCut = errors.New("the connection was cut")

// next counts a request and says whether it is the one that goes wrong.
func (f *faults) next(req *http.Request) (now, dead bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead || req.Method == http.MethodGet || req.Method == http.MethodHead {
		return false, f.dead
	}
	f.seen++
	now = f.seen == f.at
	f.dead = now && f.cut
	return now, false
}

func (f *faults) RoundTrip(req *http.Request) (*http.Response, error) {
	now, dead := f.next(req)
	switch {
	case dead:
		return nil, errCut
	case now && f.cut:
		if resp, err := f.base.RoundTrip(req); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		return nil, errCut
	case now:
		return &http.Response{StatusCode: http.StatusInternalServerError, Status: "500 refused by the test", Request: req,
			Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(`{"message":"refused by the test"}`))}, nil
	}
	return f.base.RoundTrip(req)
}
