package restore

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/catalog"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/fault"
)

// beside extracts from a snapshot into a directory of the world.
func (w *world) beside(sid, to string, chosen ...string) (*catalog.Extracted, error) {
	w.Helper()
	return w.engine().Extract(w.Context(), ExtractRequest{Workload: w.name, SID: sid, Dir: filepath.Join(w.dir, to), Chosen: chosen})
}

// An extraction waits for nobody who works on the workload, and touches neither the live
// data nor a container. The observer is told of the staging, and the log has a line.
func TestAnExtractionLeavesTheAppAlone(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2, appLines(image(t))...)
	w.fill("old")
	w.deploy()
	sid := w.capture()
	want := w.trees()
	app := w.appRuns()
	held, err := w.engine().Journal.Lock(w.name, "deploy")
	w.must(err)
	defer held.Release()
	seen := &record{progress: map[string][2]int64{}}
	r, err := w.engine().Extract(Observe(t.Context(), seen), ExtractRequest{Workload: w.name, SID: sid, Dir: filepath.Join(w.dir, "out")})
	w.must(err)
	if !slices.Equal(seen.phases, []Phase{Stage}) {
		t.Errorf("the observer was told the phases %q", seen.phases)
	}
	for i, v := range r.Volumes {
		disktest.Same(t, v.Name, want[i], disktest.Tree(t, v.Path))
		if seen.progress[v.Name] != [2]int64{v.Bytes, v.Bytes} {
			t.Errorf("volume %s: the observer was told %v of %d bytes", v.Name, seen.progress[v.Name], v.Bytes)
		}
		disktest.Same(t, "live "+v.Name, want[i], disktest.Tree(t, w.volumes[i]))
	}
	if now := w.appRuns(); now.ID != app.ID {
		t.Errorf("the app is another container: %+v, was %+v", now, app)
	}
	log, err := os.ReadFile(filepath.Join(w.dir, "state/audit.jsonl"))
	w.must(err)
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	if last := lines[len(lines)-1]; !strings.Contains(last, `"verb":"extract"`) || !strings.Contains(last, `"to":"`+w.dir+`/out"`) {
		t.Errorf("the log ends with %s", last)
	}
	w.clean()
}

// Whoever removes members has the stores alone: nothing is read meanwhile.
func TestAnExtractionSharesTheStore(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1)
	w.fill("data")
	sid := w.capture()
	e := w.engine()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	alone, err := e.Journal.LockStore(ctx, "prune")
	w.must(err)
	if _, err := w.beside(sid, "out"); fault.KindOf(err) != fault.Busy {
		t.Errorf("while the store is locked: %v", err)
	}
	alone.Release()
	_, err = w.beside(sid, "out")
	w.must(err)
}

// The volumes of a Compose project that the config does not list are live data too, as its
// file and the engine name them. Where nobody answers, the operator is told what was not
// checked, and gets the data all the same: that is the day on which it is wanted most.
func TestVolumesThatOnlyTheEngineKnowsAreLiveData(t *testing.T) {
	p := newProject(t, t.TempDir())
	p.fill("data")
	sid := p.capture()
	live := p.trees()
	for _, dir := range p.volumes {
		for _, to := range []string{dir, dir + "/new", dir + "/empty"} {
			_, err := p.engine().Extract(t.Context(), ExtractRequest{Workload: p.name, SID: sid, Dir: to})
			if codeOf(err) != "target_refused" {
				t.Errorf("%s: %v", to, err)
			}
		}
	}
	// The key of the Compose file names a volume, too.
	r, err := p.beside(sid, "one", "n0:generation")
	p.must(err)
	if len(r.Volumes) != 1 || r.Volumes[0].Name != p.name+"_n0" || r.Volumes[0].Files != 1 || len(r.Warnings) > 0 {
		t.Errorf("it made %+v, warnings %q", r.Volumes, r.Warnings)
	}
	t.Setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
	r, err = p.beside(sid, "all")
	p.must(err)
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "was not checked") {
		t.Errorf("the warnings are %q", r.Warnings)
	}
	for _, v := range r.Volumes {
		i := slices.IndexFunc(p.volumes, func(dir string) bool {
			return dir == v.Name || strings.HasSuffix(dir, "/"+v.Name+"/_data")
		})
		if i < 0 {
			t.Fatalf("volume %s is none of %q", v.Name, p.volumes)
		}
		disktest.Same(t, v.Name, live[i], disktest.Tree(t, v.Path))
	}
}
