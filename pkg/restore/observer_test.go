package restore

import (
	"slices"
	"sync"
	"testing"

	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// record is an observer that remembers its events.
type record struct {
	mu       sync.Mutex
	phases   []Phase
	progress map[string][2]int64 // the last progress of each volume
}

func (r *record) Phase(p Phase) { r.phases = append(r.phases, p) }
func (r *record) Line(string)   {}

func (r *record) Progress(volume string, done, total int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := r.progress[volume]; done > last[0] {
		r.progress[volume] = [2]int64{done, total}
	}
}

// An observer is told every phase that runs, in order, and the progress of each
// volume up to the size that the snapshot has.
func TestAnObserverIsToldThePhasesAndTheProgress(t *testing.T) {
	for guard, skipped := range map[string][]Phase{
		workload.GuardBefore: {Guard},
		workload.GuardAfter:  {PassOne, PassTwo, Publish},
	} {
		t.Run(guard, func(t *testing.T) {
			w := newWorld(t, t.TempDir(), 2)
			w.fill("data")
			sid := w.capture()
			var want []Phase
			for _, p := range forward {
				want = append(want, p.name)
			}
			for _, p := range finishing {
				want = append(want, p.name)
			}
			want = slices.DeleteFunc(want, func(p Phase) bool { return slices.Contains(skipped, p) })
			seen := &record{progress: map[string][2]int64{}}
			req := w.request(sid)
			req.Guard = guard
			r, err := w.engine().Restore(Observe(t.Context(), seen), req)
			w.must(err)
			if !slices.Equal(seen.phases, want) {
				t.Errorf("the observer was told the phases %q, expected %q", seen.phases, want)
			}
			for _, v := range r.Volumes {
				if got := seen.progress[v.Name]; got != [2]int64{v.Bytes, v.Bytes} {
					t.Errorf("volume %s: the observer was told %d of %d bytes, expected %d", v.Name, got[0], got[1], v.Bytes)
				}
			}
		})
	}
	w := newWorld(t, t.TempDir(), 1)
	w.fill("data")
	seen := &record{}
	_, err := w.engine().Capture(Observe(t.Context(), seen), CaptureRequest{Workload: w.name, Quiesce: runtime.None})
	w.must(err)
	if want := []Phase{Preflight, Begin, Hooks, PassTwo, Unhook, Clones, Publish}; !slices.Equal(seen.phases, want) {
		t.Errorf("a capture told the phases %q, expected %q", seen.phases, want)
	}
}
