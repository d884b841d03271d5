package docker

import (
	"fmt"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/docker/engine"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// A process that redeploys is killed after each of its requests in turn, and
// another one finishes or undoes its work; or the engine refuses each request in
// turn.

// steps runs one case for the n-th request that changes something, for each n,
// until Redeploy needs fewer.
func steps(t *testing.T, cut bool, after func(b *bench, r *Runtime, held runtime.Lock, d runtime.Redeploy, err error)) {
	t.Parallel()
	b := newBench(t)
	ref, id := b.image("one")
	w := b.app(ref, "restart: always", healthy)
	r, held := b.open(w), b.held()
	old := b.deployed(r, held)
	done := false
	for n := 1; !done; n++ {
		if n > 20 {
			t.Fatal("a redeploy of 20 requests: that cannot be")
		}
		if n == 1 {
			b.must(r.FenceAndStop(b.Context(), 5*time.Second))
		}
		t.Run(fmt.Sprint("request ", n), func(t *testing.T) {
			b := &bench{T: t, api: b.api, name: b.name, dir: b.dir}
			d := runtime.Redeploy{Pins: map[string]runtime.Pin{"": {Image: ref, ImageID: id}}, Before: []runtime.Container{old}, HealthTimeout: time.Minute}
			f, opt := b.faults(n, cut)
			err := b.open(w, opt).Redeploy(t.Context(), held, d)
			if done = f.seen < n; done && err != nil {
				t.Fatalf("without a fault: %v", err)
			}
			if cut && !done && err == nil {
				t.Fatal("the cut went unnoticed")
			}
			after(b, r, held, d, err)
		})
		if t.Failed() {
			return
		}
		old = b.only(r)
	}
}

func (b *bench) wantRunning(r *Runtime, what string) runtime.Container {
	b.Helper()
	now := b.only(r)
	if now.Name != b.name || !now.Running || now.Paused || now.Policy.Name != "always" {
		b.Errorf("after %s: %+v", what, now)
	}
	return now
}

func TestRedeployTakesOverFromOneThatWasKilled(t *testing.T) {
	steps(t, true, func(b *bench, r *Runtime, held runtime.Lock, d runtime.Redeploy, _ error) {
		b.must(r.Redeploy(b.Context(), held, d))
		if now := b.wantRunning(r, "the second redeploy"); now.ID == d.Before[0].ID {
			b.Error("the old container still stands")
		}
	})
}

func TestResumeUndoesARedeployThatWasKilled(t *testing.T) {
	steps(t, true, func(b *bench, r *Runtime, held runtime.Lock, d runtime.Redeploy, _ error) {
		_, inspectErr := b.api.ContainerInspect(b.Context(), d.Before[0].ID)
		b.must(r.Resume(b.Context(), held, d.Before))
		now := b.wantRunning(r, "the resume")
		if inspectErr == nil && now.ID != d.Before[0].ID {
			b.Error("the recorded container is there, but another stands")
		}
		if now.ImageID != d.Before[0].ImageID {
			b.Error("on another image")
		}
	})
}

func TestARedeployThatIsRefusedLeavesTheOldStoppedAndFenced(t *testing.T) {
	steps(t, false, func(b *bench, r *Runtime, held runtime.Lock, d runtime.Redeploy, err error) {
		if err == nil {
			b.wantRunning(r, "a fault that was overcome")
			return
		}
		old := d.Before[0]
		if now := b.only(r); now.ID != old.ID || now.Name != old.Name || now.Running || now.Policy.Name != "no" {
			b.Errorf("after %v: %+v", err, now)
		}
		b.must(r.Resume(b.Context(), held, d.Before))
		if now := b.wantRunning(r, "the resume"); now.ID != old.ID {
			b.Error("not the old container")
		}
	})
}

// The same for Resume itself: killed anywhere, a second one ends the work.
func TestResumeTakesOverFromOneThatWasKilled(t *testing.T) {
	for name, remove := range map[string]bool{"the old one is there": false, "the old one is gone": true} {
		t.Run(name, func(t *testing.T) { resumeKilled(t, remove) })
	}
}

func resumeKilled(t *testing.T, remove bool) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	w := b.app(ref, "restart: always", brief)
	r, held := b.open(w), b.held()
	old := b.deployed(r, held)
	other := b.app(ref, "restart: always", "hostname: other", brief)
	for n, done := 1, false; !done; n++ {
		// An unhealthy redeploy of another config: the old one aside, a new one
		// that cannot be adopted.
		b.sick(true)
		b.must(r.FenceAndStop(b.Context(), 5*time.Second))
		before := []runtime.Container{old}
		err := b.open(other).Redeploy(b.Context(), held, runtime.Redeploy{Before: before, HealthTimeout: briefWait})
		if _, ok := err.(*runtime.Unhealthy); !ok {
			t.Fatalf("got %v, want an Unhealthy", err)
		}
		if remove {
			b.must(r.e.Remove(b.Context(), &engine.Container{Container: old}))
		}
		b.sick(false)
		f, opt := b.faults(n, true)
		err = b.open(w, opt).Resume(b.Context(), held, before)
		if done = f.seen < n; done {
			b.must(err)
		}
		b.must(r.Resume(b.Context(), held, before))
		now := b.wantRunning(r, fmt.Sprint("a resume cut at ", n))
		if !remove && now.ID != old.ID {
			t.Errorf("cut at %d: not the old container", n)
		}
		if remove && now.ID == old.ID || b.look(now.ID).Config.Hostname == "other" {
			t.Errorf("cut at %d: %+v", n, now)
		}
		old = now
	}
}
