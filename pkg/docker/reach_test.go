package docker

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"

	"github.com/tiny-forge/snap/pkg/docker/engine"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// altered is a way to the engine on which a test changes what happens. ask carries the
// request out.
type altered struct {
	way http.RoundTripper
	do  func(req *http.Request, ask func() *http.Response) *http.Response
}

func (a *altered) RoundTrip(req *http.Request) (*http.Response, error) {
	var err error
	resp := a.do(req, func() (resp *http.Response) {
		if resp, err = a.way.RoundTrip(req); err != nil {
			resp = &http.Response{Body: http.NoBody}
		}
		return resp
	})
	return resp, err
}

func (b *bench) alter(do func(*http.Request, func() *http.Response) *http.Response) client.Opt {
	return client.WithHTTPClient(&http.Client{Transport: &altered{b.transport(), do}})
}

// says is an answer.
func says(status int, text string) *http.Response {
	return &http.Response{
		StatusCode: status, Status: fmt.Sprint(status), Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text)),
	}
}

// rewrites replaces text in an answer.
func rewrites(b *bench, resp *http.Response, pairs ...string) *http.Response {
	text, err := io.ReadAll(resp.Body)
	b.must(err)
	resp.Body.Close()
	return says(resp.StatusCode, strings.NewReplacer(pairs...).Replace(string(text)))
}

// TestAContainerThatRunsUnreachableIsStartedOnceMore: docker 29 starts one without its
// network and ports after a start that has failed. Here its network is taken from it in
// the moment of its start.
func TestAContainerThatRunsUnreachableIsStartedOnceMore(t *testing.T) {
	t.Parallel()
	for name, times := range map[string]int32{"once": 1, "each time": 100} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			ref, _ := b.image("one")
			port := freePort(b)
			var left atomic.Int32
			left.Store(times)
			r := b.open(b.app(ref, "project: "+b.name, "environment: {GREETING: hello}", "ports: ['127.0.0.1:"+fmt.Sprint(port)+":8080']", healthy),
				b.alter(func(req *http.Request, ask func() *http.Response) *http.Response {
					resp := ask()
					if path.Base(req.URL.Path) == "start" && left.Add(-1) >= 0 {
						b.must(b.api.NetworkDisconnect(b.Context(), b.name+"_default", path.Base(path.Dir(req.URL.Path)), true))
					}
					return resp
				}))
			err := r.Redeploy(b.Context(), b.held(), runtime.Redeploy{HealthTimeout: time.Minute})
			var sick *runtime.Unhealthy
			if times > 1 {
				if !errors.As(err, &sick) || !strings.Contains(sick.Reason, "cannot be reached") {
					t.Errorf("got %v, want an Unhealthy", err)
				}
				return
			}
			b.must(err)
			if got, err := get(port); err != nil || got != "hello" {
				t.Errorf("the app answers %q, %v", got, err)
			}
			if up, err := r.UpToDate(b.Context()); err != nil || !up {
				t.Errorf("up to date is %t, %v", up, err)
			}
			b.must(b.api.NetworkDisconnect(b.Context(), b.name+"_default", b.name, true))
			if up, err := r.UpToDate(b.Context()); err != nil || up {
				t.Errorf("without a network it is called up to date: %t, %v", up, err)
			}
		})
	}
}

// TestAContainerThatHasForgottenItsNetworkIsConnectedAnew: so it is after a start of Docker
// 29 that has failed, whoever tried.
func TestAContainerThatHasForgottenItsNetworkIsConnectedAnew(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	port := freePort(b)
	r, held := b.open(b.app(ref, "project: "+b.name, "environment: {GREETING: hello}", "ports: ['127.0.0.1:"+fmt.Sprint(port)+":8080']", healthy)), b.held()
	old := b.deployed(r, held)
	b.must(r.FenceAndStop(b.Context(), time.Second))
	b.must(b.api.NetworkDisconnect(b.Context(), b.name+"_default", old.ID, true))
	if left := b.look(old.ID).NetworkSettings.Networks; len(left) > 0 {
		t.Fatalf("it has not forgotten its network: %+v", left)
	}
	b.must(r.Resume(b.Context(), held, []runtime.Container{old}))
	if now := b.only(r); now.ID != old.ID || !now.Running || now.Policy != old.Policy {
		t.Errorf("resumed as %+v", now)
	}
	if at := b.look(old.ID).NetworkSettings.Networks[b.name+"_default"]; at == nil || !slices.Contains(at.Aliases, b.name) {
		t.Errorf("it is on its network as %+v", at)
	}
	if got, err := get(port); err != nil || got != "hello" {
		t.Errorf("the app answers %q, %v", got, err)
	}
}

// TestWhatAContainerLacks: a setting that a network ignores is not missing.
func TestWhatAContainerLacks(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	r := b.open(b.app(ref))
	s, err := specOf(b.app(ref, "ports: ['127.0.0.1:0:8080']"), wanted{name: ref})
	b.must(err)
	internal := b.name + "-internal"
	_, err = b.api.NetworkCreate(b.Context(), internal, network.CreateOptions{Internal: true})
	b.must(err)
	for name, mode := range map[string]container.NetworkMode{
		"default": "", "bridge": "bridge", "host": "host", "none": "none", "internal": container.NetworkMode(internal),
	} {
		id := b.foreign(name, ref, func(c *container.Config, h *container.HostConfig) {
			h.NetworkMode = mode
			if !mode.IsHost() && !mode.IsNone() {
				c.ExposedPorts, h.PortBindings = s.ExposedPorts, s.HostConfig.PortBindings
			}
		})
		c, err := r.e.Inspect(b.Context(), id)
		b.must(err)
		if lacks, err := r.e.Lacks(b.Context(), c); err != nil || lacks != "" {
			t.Errorf("%s: it lacks %q, %v", name, lacks, err)
		}
		if name != "default" {
			continue
		}
		c.Raw.NetworkSettings.Ports = nil
		if lacks, err := r.e.Lacks(b.Context(), c); err != nil || lacks != "port 8080/tcp" {
			t.Errorf("without its port it lacks %q, %v", lacks, err)
		}
		b.must(b.api.NetworkDisconnect(b.Context(), "bridge", id, true))
		c, err = r.e.Inspect(b.Context(), id)
		b.must(err)
		if lacks, err := r.e.Lacks(b.Context(), c); err != nil || lacks != "network bridge" {
			t.Errorf("without its network it lacks %q, %v", lacks, err)
		}
	}
}

// TestAnEngineThatCannotFenceIsRefused: podman 4 does not know the request, and answers
// as if there were no such container.
func TestAnEngineThatCannotFenceIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	w := b.app(ref, "restart: always")
	b.deployed(b.open(w), b.held())
	podman := b.open(w, b.alter(func(req *http.Request, ask func() *http.Response) *http.Response {
		switch path.Base(req.URL.Path) {
		case "update":
			return says(http.StatusNotFound, `{"message":"Not Found"}`)
		case "version":
			return rewrites(b, ask(), `"Name":"Engine"`, `"Name":"Podman Engine"`)
		}
		return ask()
	}))
	for what, err := range map[string]error{
		"check": b.check(podman, nil), "fence": podman.FenceAndStop(b.Context(), time.Second),
	} {
		if !errors.Is(err, runtime.ErrCannotFence) {
			t.Errorf("%s: got %v, want runtime.ErrCannotFence", what, err)
		}
	}
	if raw := b.look(b.name); !raw.State.Running || raw.HostConfig.RestartPolicy.Name != container.RestartPolicyAlways {
		t.Errorf("the app was touched: %+v", raw.State)
	}
	able := b.open(w, b.alter(func(req *http.Request, ask func() *http.Response) *http.Response {
		if path.Base(req.URL.Path) == "version" {
			return rewrites(b, ask(), `"Name":"Engine"`, `"Name":"Podman Engine"`)
		}
		return ask()
	}))
	b.must(b.check(able, nil))
	// A container that is gone needs no fence.
	b.must(able.e.SetPolicy(b.Context(), &engine.Container{Container: runtime.Container{ID: strings.Repeat("0", 64), Policy: runtime.Policy{Name: "always"}}}, engine.Never))
}

func TestAnEngineThatCannotPauseSaysSo(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	w := b.app(ref)
	b.deployed(b.open(w), b.held())
	for name, c := range map[string]struct {
		version string
		want    bool
	}{"rootless on version 1": {"1", true}, "on version 2 it is another error": {"2", false}} {
		r := b.open(w, b.alter(func(req *http.Request, ask func() *http.Response) *http.Response {
			switch path.Base(req.URL.Path) {
			case "pause":
				return says(http.StatusInternalServerError, `{"message":"cannot pause"}`)
			case "info":
				return says(http.StatusOK, `{"SecurityOptions":["name=seccomp,profile=default","name=rootless"],"CgroupVersion":"`+c.version+`"}`)
			}
			return ask()
		}))
		if _, err := r.Quiesce(b.Context(), runtime.Pause, 0); err == nil || errors.Is(err, runtime.ErrCannotPause) != c.want {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestWhatSomebodyStartsAgainIsNotCalledDeaf: the container stops as asked each time,
// and something else starts it.
func TestWhatSomebodyStartsAgainIsNotCalledDeaf(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	id := b.foreign("restless", ref, nil)
	r := b.open(b.app(ref, "also_stop: ["+b.name+"-restless]"), b.alter(func(req *http.Request, ask func() *http.Response) *http.Response {
		resp := ask()
		if verb := path.Base(req.URL.Path); verb == "stop" || verb == "kill" {
			for b.look(id).State.Running && verb == "kill" { // the answer to a kill does not wait
				time.Sleep(time.Millisecond)
			}
			b.must(b.api.ContainerStart(b.Context(), id, container.StartOptions{}))
		}
		return resp
	}))
	err := r.FenceAndStop(b.Context(), time.Second)
	if err == nil || !strings.Contains(err.Error(), "started it again") {
		t.Errorf("got %v, want that something else started it", err)
	}
}
