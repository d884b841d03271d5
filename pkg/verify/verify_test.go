package verify_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/verify"
	"github.com/tiny-forge/snap/pkg/workload"
)

// host is a store with two snapshots of two volumes. The second shares all but one
// member with the first.
type host struct {
	*testing.T
	path      string
	st        *store.Store
	manifests []*store.Manifest
}

func newHost(t *testing.T) *host {
	t.Helper()
	dir := t.TempDir()
	h := &host{T: t, path: filepath.Join(dir, "store")}
	var err error
	if h.st, err = store.Open(h.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.st.Close() })
	disktest.Write(t, dir, map[string]string{
		"a/large": noise(3 << 20), "a/dir/small": "one", "b/other": "two",
	})
	h.capture(dir)
	disktest.Write(t, dir, map[string]string{"b/other": "three"})
	h.capture(dir)
	return h
}

// noise is text that does not compress well and repeats nowhere.
func noise(n int) string {
	b := make([]byte, n)
	x := uint64(88172645463325252)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return string(b)
}

func (h *host) capture(dir string) {
	h.Helper()
	must := func(err error) {
		h.Helper()
		if err != nil {
			h.Fatal(err)
		}
	}
	var sources []snapshot.Source
	for _, name := range []string{"a", "b"} {
		live, err := disk.OpenRoot(filepath.Join(dir, name))
		must(err)
		defer live.Close()
		sources = append(sources, snapshot.Source{Volume: &workload.Volume{Name: name, Scope: workload.Absolute, Source: dir + "/" + name}, Live: live})
	}
	sid := disk.NewID(time.Now())
	scratch, err := h.st.Scratch(sid)
	must(err)
	c, err := snapshot.Start(h.Context(), h.st, scratch, sources, snapshot.Options{Workload: "app"})
	must(err)
	defer c.Close()
	must(c.PassTwo(h.Context()))
	m := &store.Manifest{SID: sid, Reason: store.Manual, Quiesce: "none", Images: []store.Image{}}
	must(c.Publish(m))
	h.manifests = append(h.manifests, m)
}

// file is the file of a member of volume v in the first snapshot.
func (h *host) file(v, member int) string {
	m := h.manifests[0].Volumes[v].Members[member]
	return filepath.Join(h.path, "members", m.ID[:2], m.ID+".gz")
}

func (h *host) snapshot(n int) string {
	return filepath.Join(h.path, "snapshots/app", h.manifests[n].SID)
}

func (h *host) run(req verify.Request) *verify.Report {
	h.Helper()
	r, err := verify.Run(h.Context(), h.st, req)
	if err != nil {
		h.Fatal(err)
	}
	return r
}

func change(t *testing.T, path string, how func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, how(data), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func flipped(data []byte) []byte { data[len(data)/2] ^= 1; return data }

// Each kind of damage is found, with and without reading as it can be, and names the
// snapshots, the volume and the files that it hits, and no others.
func TestDamageIsFoundAndNamed(t *testing.T) {
	both := []int{0, 1}
	for name, c := range map[string]struct {
		damage func(h *host)
		quick  bool // it shows without reading members
		hits   []int
		volume string
		path   string
	}{
		"a flipped bit":                        {func(h *host) { change(h.T, h.file(0, 1), flipped) }, false, both, "a", "large"},
		"a flipped bit, of one snapshot alone": {func(h *host) { change(h.T, h.file(1, 0), flipped) }, false, []int{0}, "b", "other"},
		"a member that is cut":                 {func(h *host) { change(h.T, h.file(0, 1), func(b []byte) []byte { return b[:len(b)-1] }) }, true, both, "a", "large"},
		"a member that is longer":              {func(h *host) { change(h.T, h.file(0, 0), func(b []byte) []byte { return append(b, 0) }) }, true, both, "a", "dir"},
		"an empty member":                      {func(h *host) { change(h.T, h.file(0, 0), func([]byte) []byte { return nil }) }, true, both, "a", "dir"},
		"a member that is gone": {func(h *host) {
			if err := os.Remove(h.file(0, 2)); err != nil {
				h.Fatal(err)
			}
		}, true, both, "a", "large"},
		"two members in each other's place": {func(h *host) {
			x, y := h.file(0, 1), h.file(0, 2)
			for _, move := range [][2]string{{x, x + ".x"}, {y, x}, {x + ".x", y}} {
				if err := os.Rename(move[0], move[1]); err != nil {
					h.Fatal(err)
				}
			}
		}, false, both, "a", "large"},
		"a manifest": {func(h *host) { change(h.T, h.snapshot(1)+"/manifest.json", flipped) }, true, []int{1}, "", ""},
		"a summary":  {func(h *host) { change(h.T, h.snapshot(1)+"/summary.json", flipped) }, true, []int{1}, "", ""},
		"a summary of another manifest": {func(h *host) {
			change(h.T, h.snapshot(1)+"/summary.json", func([]byte) []byte { return read(h.T, h.snapshot(0)+"/summary.json") })
		}, true, []int{1}, "", ""},
		"two members swapped in a manifest that is sealed anew": {func(h *host) {
			m := h.manifests[1]
			list := m.Volumes[0].Members
			list[1], list[2] = list[2], list[1]
			data, err := disk.MarshalSealed(m, m.Format, m.Version)
			if err != nil {
				h.Fatal(err)
			}
			change(h.T, h.snapshot(1)+"/manifest.json", func([]byte) []byte { return data })
		}, true, []int{1}, "", ""},
		"an index": {func(h *host) { change(h.T, h.snapshot(1)+"/index.gz", flipped) }, true, []int{1}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			if r := h.run(verify.Request{Data: 1}); len(r.Problems) != 0 || r.Snapshots != 2 || r.Read != r.Stored {
				t.Fatalf("of an intact store: %+v", r)
			}
			c.damage(h)
			if r := h.run(verify.Request{}); len(r.Problems) > 0 != c.quick {
				t.Errorf("without reading: %v", r.Problems)
			}
			r := h.run(verify.Request{Data: 1})
			var hit []string
			for _, p := range r.Problems {
				hit = append(hit, p.SID)
				if p.Workload != "app" || p.Volume != c.volume || c.path != "" && !slices.Contains(p.Paths, c.path) {
					t.Errorf("%+v", p)
				}
			}
			var want []string
			for _, n := range c.hits {
				want = append(want, h.manifests[n].SID)
			}
			slices.Sort(want)
			if slices.Sort(hit); !slices.Equal(hit, want) {
				t.Errorf("it hits %q, not %q", hit, want)
			}
		})
	}
}

// A part that is read is that part of the bytes, and parts find in the end what the
// whole finds.
func TestAPartOfTheDataIsRead(t *testing.T) {
	h := newHost(t)
	change(t, h.file(0, 1), flipped)
	found, read := 0, int64(0)
	const runs = 60
	for range runs {
		r := h.run(verify.Request{Data: 0.2})
		found += len(r.Problems)
		read += r.Read
	}
	whole := h.run(verify.Request{Data: 1}).Read
	if found == 0 || read < whole*runs/20 || read > whole*runs/2 {
		t.Errorf("%d runs of a fifth found %d problems and read %d bytes; the whole is %d", runs, found, read, whole)
	}
}

func TestWhatIsNotThereAndWhatIsCutShort(t *testing.T) {
	h := newHost(t)
	if _, err := verify.Run(t.Context(), h.st, verify.Request{Workload: "app", SID: "20260102T030405Z-abcdef"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a snapshot that is not there: %v", err)
	}
	// What a capture that was cut has left is not a snapshot.
	if err := os.Mkdir(filepath.Join(h.path, "snapshots/app/20260102T030405Z-abcdef"), 0o700); err != nil {
		t.Fatal(err)
	}
	if r := h.run(verify.Request{}); r.Snapshots != 2 || len(r.Problems) > 0 {
		t.Errorf("%+v", r)
	}
	if r := h.run(verify.Request{Workload: "app", SID: h.manifests[0].SID, Data: 1}); r.Snapshots != 1 || len(r.Problems) > 0 {
		t.Errorf("%+v", r)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	cancel(stopped)
	if _, err := verify.Run(ctx, h.st, verify.Request{Data: 1}); !errors.Is(err, stopped) && !errors.Is(err, context.Canceled) {
		t.Errorf("after a signal: %v", err)
	}
}

func TestHitNamesTheSnapshotsOfAMember(t *testing.T) {
	h := newHost(t)
	m := h.manifests[0].Volumes[1].Members[0]
	found, err := verify.Hit(t.Context(), h.st, []archive.Member{m})
	if err != nil || len(found) != 1 || found[0].SID != h.manifests[0].SID || !strings.Contains(found[0].String(), `"other"`) {
		t.Errorf("%v, %v", found, err)
	}
}
