package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// One engine serves several workloads at once. What it finds out about one, such
// as the volumes of a Compose file, belongs to the operation and not to the
// config. The race detector proves that (go test -race).
func TestOneEngineServesManyWorkloadsAtOnce(t *testing.T) {
	w := newWorld(t, t.TempDir(), 0)
	lines, dirs := map[string][]string{}, map[string]string{}
	for i := range 4 {
		name := fmt.Sprintf("%s-data%d", w.name, i)
		dirs[name] = filepath.Join(w.dir, "live", name)
		lines[name] = []string{"volumes: [{name: files, scope: absolute, source: " + dirs[name] + "}]"}
	}
	shop := w.name + "-shop"
	if os.Getenv("SNAP_TEST_COMPOSE") != "" {
		dockertest.NeedCompose(t)
		file := filepath.Join(w.dir, "compose.yaml")
		dirs[shop] = filepath.Join(w.dir, "live", shop)
		w.must(os.WriteFile(file, []byte("name: "+shop+"\nservices: {web: {image: '"+image(t)+"', volumes: ['"+dirs[shop]+":/data'], "+
			"healthcheck: {test: [CMD, /app, check], interval: 200ms, retries: 3}}}\n"), 0o600))
		lines[shop] = []string{"compose: " + file} // which names the volume
		t.Cleanup(func() { disktest.Run(t, "docker", "compose", "-f", file, "down", "-t", "1") })
	}
	w.write(lines)
	fill := func(t *testing.T, name, generation string) []string {
		w := &world{T: t, volumes: []string{dirs[name]}}
		w.must(os.MkdirAll(dirs[name], 0o755))
		w.fill(generation)
		return w.trees()[0]
	}
	e := w.engine()
	if dirs[shop] != "" {
		fill(t, shop, "first")
		_, err := e.Deploy(t.Context(), DeployRequest{Workload: shop})
		w.must(err)
	}
	round := func(t *testing.T, name string, n int) {
		want := fill(t, name, fmt.Sprintf("%s-old%d", name, n))
		capture, err := e.Capture(t.Context(), CaptureRequest{Workload: name, Quiesce: runtime.Pause})
		if err != nil {
			t.Fatalf("round %d: the capture: %v", n, err)
		}
		replaced := fill(t, name, fmt.Sprintf("%s-new%d", name, n))
		restore := func(sid string, want []string) (preRestore string) {
			t.Helper()
			r, err := e.Restore(t.Context(), RestoreRequest{Workload: name, SID: sid, Confirm: sid, OnUnhealthy: RevertUnhealthy})
			if err != nil {
				t.Fatalf("round %d: the restore of %s: %v", n, sid, err)
			}
			if d := disktest.Diff(want, disktest.Tree(t, dirs[name])); d != "" {
				t.Fatalf("round %d: the restore of %s put something else back:\n%s", n, sid, d)
			}
			return r.PreRestoreSID
		}
		restore(restore(capture.Manifest.SID, want), replaced)
	}
	var all sync.WaitGroup
	for name := range dirs {
		// Not t.Parallel, which would run only as many as there are processors.
		all.Go(func() {
			t.Run(strings.TrimPrefix(name, w.name+"-"), func(t *testing.T) {
				for n := range 3 {
					round(t, name, n)
				}
			})
		})
	}
	all.Wait()
	unchanged, err := workload.Load(w.config)
	w.must(err)
	if !reflect.DeepEqual(e.Config, unchanged) {
		t.Error("the config has changed since it was loaded")
	}
	list, err := e.Recover(t.Context(), RecoverRequest{})
	w.must(err)
	if len(list) > 0 {
		t.Errorf("left to recover: %+v", list)
	}
}

// composed is the runtime of a Compose workload whose file names these volumes.
type composed struct {
	runtime.Runtime
	volumes []runtime.Volume
	err     error
}

func (c composed) Volumes(context.Context) (*runtime.Mounts, error) {
	if c.err != nil {
		return nil, c.err
	}
	return &runtime.Mounts{Volumes: c.volumes}, nil
}

func TestVolumesOfAComposeFileBelongToTheOperation(t *testing.T) {
	w := newWorld(t, t.TempDir(), 0)
	file, inside := filepath.Join(w.dir, "compose.yaml"), filepath.Join(w.dir, "live/in")
	w.write(map[string][]string{w.name: {"compose: " + file}})
	unanswered := errors.New("docker compose does not answer")
	for _, c := range []struct {
		verb, source string
		err          error
		said         string
		wantErr      string // its code
	}{
		{"capture", inside, nil, "", ""},
		{"recover", inside, nil, "", ""},
		{"capture", "", unanswered, "", "failed"},
		{"recover", "", unanswered, "notice: " + unanswered.Error(), ""},
		{"watchdog", "", unanswered, "notice: " + unanswered.Error(), ""},
		{"capture", "/elsewhere", nil, "", "config"},
		{"watchdog", "/elsewhere", nil, "", "config"},
	} {
		seen := &lines{}
		ctx := Observe(t.Context(), seen)
		e := w.engine()
		open := e.Runtime
		e.Runtime = func(ctx context.Context, w *workload.Workload) (runtime.Runtime, error) {
			rt, err := open(ctx, w)
			var mounted []runtime.Volume
			if c.source != "" {
				mounted = []runtime.Volume{{Volume: workload.Volume{Name: "data", Scope: workload.Absolute, Source: c.source, Target: "/data"}}}
			}
			return composed{rt, mounted, c.err}, err
		}
		var all sync.WaitGroup
		for range 4 { // at once, for the race detector
			all.Go(func() {
				s, err := e.lookup(ctx, c.verb, w.name)
				if codeOf(err) != c.wantErr {
					t.Errorf("%s, %s: the error is %v, want code %q", c.verb, c.source, err, c.wantErr)
				}
				if err != nil {
					var unfit *workload.Error
					if c.wantErr == "config" && (!errors.As(err, &unfit) || !strings.Contains(unfit.Where, w.name) || !strings.Contains(unfit.Hint, "`volumes:`")) {
						t.Errorf("%s: the error is %#v, want the file and what to do", c.verb, err)
					}
					return
				}
				defer s.close()
				if c.err == nil && (len(s.w.Volumes) != 1 || s.w.Volumes[0].Path() != c.source || s.w.Volumes[0].Name != "data") {
					t.Errorf("%s: the volumes are %+v", c.verb, s.w.Volumes)
				}
			})
		}
		all.Wait()
		said := seen.list
		if c.said == "" && len(said) > 0 || c.said != "" && (len(said) != 4 || said[0] != c.said) {
			t.Errorf("%s, %s: it said %q", c.verb, c.source, said)
		}
		if n := len(e.Config.Workloads[w.name].Volumes); n > 0 {
			t.Errorf("%s: the config has %d volumes now", c.verb, n)
		}
	}
}
