package docker

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"

	"github.com/tiny-forge/snap/pkg/runtime"
)

func TestQuiesceAndThaw(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	frozen := b.foreign("frozen", ref, nil)
	b.must(b.api.ContainerPause(b.Context(), frozen))
	idle := b.foreign("idle", ref, nil)
	b.must(b.api.ContainerStop(b.Context(), idle, container.StopOptions{}))
	w := b.app(ref, "restart: unless-stopped", "also_stop: ["+b.name+"-frozen, "+b.name+"-idle]")
	r, held := b.open(w), b.held()
	b.must(r.Redeploy(b.Context(), held, runtime.Redeploy{}))
	before, err := r.Containers(b.Context())
	b.must(err)
	app := before[0].ID

	for mode, at := range map[string]func(*container.State) bool{
		runtime.Pause: func(s *container.State) bool { return s.Paused },
		runtime.Stop:  func(s *container.State) bool { return !s.Running },
		runtime.None:  func(s *container.State) bool { return s.Running && !s.Paused },
	} {
		ctx, cancel := context.WithCancel(b.Context())
		thaw, err := r.Quiesce(ctx, mode, time.Second)
		b.must(err)
		if s := b.look(app).State; !at(s) {
			t.Errorf("%s: the app is %s", mode, s.Status)
		}
		cancel()
		for range 2 {
			b.must(thaw(ctx)) // under an ended context, and twice
			now, err := r.Containers(b.Context())
			b.must(err)
			for i := range now {
				if now[i].ID != before[i].ID || now[i].Running != before[i].Running || now[i].Paused != before[i].Paused || now[i].Policy != before[i].Policy {
					t.Errorf("%s: thawed to %+v\nbefore %+v", mode, now[i], before[i])
				}
			}
		}
	}
	if _, err := r.Quiesce(b.Context(), "freeze", 0); err == nil {
		t.Error("an unknown mode was taken")
	}
}

func TestAQuiesceThatFailsThawsWhatItHasDone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	ids := []string{b.foreign("a", ref, nil), b.foreign("b", ref, nil)}
	w := b.app(ref, "also_stop: ["+b.name+"-a, "+b.name+"-b]")
	_, opt := b.faults(2, false)
	if _, err := b.open(w, opt).Quiesce(b.Context(), runtime.Pause, 0); err == nil {
		t.Fatal("a refused pause went unnoticed")
	}
	for _, id := range ids {
		if b.look(id).State.Paused {
			t.Error("left paused")
		}
	}
}

// containerd may tell the engine late of a pause. A container that was unpaused
// meanwhile is then shown as paused until the next event. That is too rare to wait
// for, so here the engine's answers are changed twice.
func TestAThawOutlastsLateNewsOfThePause(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	id := b.foreign("a", ref, nil)
	f, _ := b.faults(-1, false)
	late := &lateNews{base: f, left: 2}
	r := b.open(b.app(ref, "also_stop: ["+b.name+"-a]"), client.WithHTTPClient(&http.Client{Transport: late}))
	thaw, err := r.Quiesce(b.Context(), runtime.Pause, 0)
	b.must(err)
	b.must(thaw(b.Context()))
	if late.left > 0 || b.look(id).State.Paused {
		t.Errorf("the container is paused, or was never shown so: %d looks left", late.left)
	}
}

// lateNews shows a container paused in the first looks that follow an unpause.
type lateNews struct {
	base http.RoundTripper

	mu    sync.Mutex
	awake bool
	left  int
}

func (l *lateNews) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.base.RoundTrip(req)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.awake = l.awake || strings.HasSuffix(req.URL.Path, "/unpause")
	if err != nil || !l.awake || l.left == 0 || req.Method != http.MethodGet || !strings.HasSuffix(req.URL.Path, "/json") || !strings.Contains(req.URL.Path, "/containers/") {
		return resp, err
	}
	l.left--
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	text = bytes.Replace(text, []byte(`"Paused":false`), []byte(`"Paused":true`), 1)
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	return resp, err
}

// late is a way to the engine on which a pause is late: it arrives when the engine
// starts a probe, if one is due.
type late struct {
	http.RoundTripper
	starts <-chan events.Message
}

func (l *late) RoundTrip(req *http.Request) (*http.Response, error) {
	if strings.HasSuffix(req.URL.Path, "/pause") {
		select {
		case <-l.starts:
			time.Sleep(10 * time.Millisecond) // the probe's process is being made
		case <-time.After(100 * time.Millisecond):
		}
	}
	return l.RoundTripper.RoundTrip(req)
}

// TestAPauseKeepsClearOfProbes pauses an app when its health probe is due. One
// that is frozen while it starts holds the container for the probe's timeout.
func TestAPauseKeepsClearOfProbes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	w := b.app(ref, "healthcheck: {test: [CMD, /app, check], interval: 2s, timeout: 20s, retries: 1}")
	// As on a machine with a lot to do: a probe that is due as snap looks starts
	// between the look and the pause.
	way := &late{RoundTripper: b.transport()}
	r := b.open(w, client.WithHTTPClient(&http.Client{Transport: way}))
	id := b.deployed(r, b.held()).ID
	ends := b.news(id, events.ActionExecDie)
	for range 3 {
		for len(ends) > 0 { // of the probes before
			<-ends
		}
		ended := time.Unix(0, (<-ends).TimeNano)
		way.starts = b.news(id, events.ActionExecStart)
		time.Sleep(time.Until(ended.Add(2*time.Second - 20*time.Millisecond)))
		thaw, err := r.Quiesce(b.Context(), runtime.Pause, 0)
		b.must(err)
		// Far more than an unpause takes, far less than the probe has.
		ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
		err = b.api.ContainerUnpause(ctx, id)
		cancel()
		if err != nil {
			t.Fatalf("the unpause did not get through: %v", err)
		}
		b.must(thaw(b.Context()))
	}
}

// news returns what the engine tells of a container from now on, of one kind.
func (b *bench) news(id string, kind events.Action) <-chan events.Message {
	b.Helper()
	told, failed := b.api.Events(b.Context(), events.ListOptions{
		Filters: filters.NewArgs(filters.Arg("container", id), filters.Arg("event", string(kind))),
	})
	news := make(chan events.Message, 100)
	go func() {
		for {
			select {
			case e := <-told:
				news <- e
			case err := <-failed:
				if b.Context().Err() == nil {
					b.Errorf("the engine's news end: %v", err)
				}
				close(news)
				return
			}
		}
	}()
	return news
}
