package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"github.com/tiny-forge/snap/pkg/docker/endpoint"
	"github.com/tiny-forge/snap/pkg/runtime"
)

func freePort(b *bench) int {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	b.must(err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// get asks the app, which may take a moment to listen after its container started.
func get(port int) (string, error) {
	var last error
	for range 1000 {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		if err == nil {
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			return strings.TrimSpace(string(text)), err
		}
		last = err
		time.Sleep(10 * time.Millisecond)
	}
	return "", last
}

func TestDeployFromNothingThenRedeployOnAPin(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, first := b.image("one")
	port := freePort(b)
	w := b.app(ref, "project: "+b.name, "restart: on-failure:7", "ports: ['127.0.0.1:"+fmt.Sprint(port)+":8080']",
		"environment: {GREETING: hello}", "shm_size: 32m", "init: true", "read_only: true", "tmpfs: ['/tmp:size=1m']",
		"cap_drop: [NET_RAW]", "security_opt: ['no-new-privileges:true']", "extra_hosts: ['db=10.0.0.1']",
		"sysctls: {net.core.somaxconn: '512'}", "stop_signal: SIGTERM", "stop_grace_period: 3s", "hostname: guest",
		"user: '0'", "working_dir: /data", "command: serve", "labels: {shade: green}", healthy)
	r, held := b.open(w), b.held()

	old := b.deployed(r, held)
	raw := b.look(old.ID)
	if old.Name != b.name || old.Image != ref || old.ImageID != first || !old.Running || old.Policy != (runtime.Policy{Name: "on-failure", Retries: 7}) {
		t.Errorf("deployed as %+v", old)
	}
	if len(old.Mounts) != 1 || old.Mounts[0] != (runtime.Mount{Source: b.dir + "/data", Target: "/data", Writable: true}) {
		t.Errorf("mounts %+v", old.Mounts)
	}
	if raw.Config.Image != ref || raw.HostConfig.ShmSize != 32<<20 || !*raw.HostConfig.Init || !raw.HostConfig.ReadonlyRootfs ||
		*raw.Config.StopTimeout != 3 || raw.Config.Hostname != "guest" || raw.Config.Labels["shade"] != "green" ||
		raw.HostConfig.ExtraHosts[0] != "db:10.0.0.1" || raw.HostConfig.Sysctls["net.core.somaxconn"] != "512" {
		t.Errorf("config did not arrive: %+v %+v", raw.Config, raw.HostConfig)
	}
	if ep := raw.NetworkSettings.Networks[b.name+"_default"]; ep == nil || ep.Aliases[0] != b.name {
		t.Errorf("networks %+v", raw.NetworkSettings.Networks)
	}
	if got, err := get(port); err != nil || got != "hello" {
		t.Errorf("the app answers %q, %v", got, err)
	}
	if up, err := r.UpToDate(b.Context()); err != nil || !up {
		t.Errorf("UpToDate %v, %v after a deploy", up, err)
	}

	// The reference moves on; the pin must win.
	_, second := b.image("one")
	if up, err := r.UpToDate(b.Context()); err != nil || up {
		t.Errorf("UpToDate %v, %v after the reference moved", up, err)
	}
	b.must(r.FenceAndStop(b.Context(), 5*time.Second))
	pins := map[string]runtime.Pin{"": {Image: ref, ImageID: first}}
	b.must(b.check(r, pins))
	b.must(r.Redeploy(b.Context(), held, runtime.Redeploy{Pins: pins, Before: []runtime.Container{old}}))
	now := b.only(r)
	if now.ID == old.ID || now.ImageID != first || now.ImageID == second || now.Image != ref || now.Name != old.Name || now.Policy != old.Policy || !now.Running {
		t.Errorf("redeployed as %+v\nbefore %+v", now, old)
	}
	if got, err := get(port); err != nil || got != "hello" {
		t.Errorf("the app answers %q, %v", got, err)
	}
}

func TestUnhealthyIsReportedAndTheOldOneComesBack(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, id := b.image("one")
	r, held := b.open(b.app(ref, "restart: always", brief)), b.held()
	old := b.deployed(r, held)
	b.must(r.FenceAndStop(b.Context(), 5*time.Second))
	b.sick(true)

	d := runtime.Redeploy{Pins: map[string]runtime.Pin{"": {Image: ref, ImageID: id}}, Before: []runtime.Container{old}, HealthTimeout: briefWait}
	err := r.Redeploy(b.Context(), held, d)
	var sick *runtime.Unhealthy
	if !errors.As(err, &sick) || sick.Container != b.name || !strings.Contains(sick.Reason, "feeling") || strings.ContainsRune(sick.Reason, '\x1b') {
		t.Fatalf("got %v, want an Unhealthy with what the check said", err)
	}
	all, err := r.Containers(b.Context())
	b.must(err)
	if len(all) != 2 {
		t.Fatalf("containers after an unhealthy redeploy: %+v", all)
	}
	for _, c := range all {
		if c.Policy.Name != "no" || c.Running != (c.ID != old.ID) {
			t.Errorf("container %+v", c)
		}
	}

	b.must(r.FenceAndStop(b.Context(), 5*time.Second))
	b.sick(false)
	for range 2 { // a repeat changes nothing
		b.must(r.Resume(b.Context(), held, []runtime.Container{old}))
		if now := b.only(r); now.ID != old.ID || now.Name != old.Name || now.Policy.Name != "always" || !now.Running {
			t.Errorf("resumed as %+v", now)
		}
	}

	// The same, kept: the new one is accepted as it is.
	b.must(r.FenceAndStop(b.Context(), 5*time.Second))
	b.sick(true)
	if err := r.Redeploy(b.Context(), held, d); !errors.As(err, &sick) {
		t.Fatalf("got %v, want an Unhealthy", err)
	}
	for range 2 {
		b.must(r.Settle(b.Context(), d.Before))
		if now := b.only(r); now.ID == old.ID || now.Name != old.Name || now.Policy.Name != "always" || !now.Running {
			t.Errorf("settled as %+v", now)
		}
	}
}

func TestAContainerThatExitsIsUnhealthy(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	r, held := b.open(b.app(ref, "command: exit 3")), b.held()
	err := r.Redeploy(b.Context(), held, runtime.Redeploy{})
	var sick *runtime.Unhealthy
	if !errors.As(err, &sick) || !strings.Contains(sick.Reason, "code 3") || !strings.Contains(sick.Reason, "giving up") {
		t.Errorf("got %v, want an Unhealthy with the exit code and the log", err)
	}
}

func TestAHealthCheckThatNeverPassesRunsIntoTheTimeout(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	b.sick(true)
	r, held := b.open(b.app(ref, "healthcheck: {test: [CMD, /app, check], interval: 100ms, timeout: 100ms, retries: 5}")), b.held()
	err := r.Redeploy(b.Context(), held, runtime.Redeploy{HealthTimeout: time.Second})
	var sick *runtime.Unhealthy
	if !errors.As(err, &sick) || !strings.Contains(sick.Reason, "after 1s") {
		t.Errorf("got %v, want an Unhealthy with the timeout", err)
	}
}

func TestARedeployThatCannotBePutsTheOldNameBack(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, id := b.image("one")
	port := freePort(b)
	r, held := b.open(b.app(ref, "restart: always", "ports: ['127.0.0.1:"+fmt.Sprint(port)+":8080']", healthy)), b.held()
	old := b.deployed(r, held)
	before := []runtime.Container{old}
	unchanged := func(what string) {
		t.Helper()
		now := b.only(r)
		if now.ID != old.ID || now.Name != old.Name || now.Running || now.Policy.Name != "no" {
			t.Errorf("after %s: %+v", what, now)
		}
	}
	b.must(r.FenceAndStop(b.Context(), 5*time.Second))

	gone := map[string]runtime.Pin{"": {Image: "ghost:1", ImageID: "sha256:" + strings.Repeat("0", 64)}}
	for what, err := range map[string]error{
		"check":    b.check(r, gone),
		"redeploy": r.Redeploy(b.Context(), held, runtime.Redeploy{Pins: gone, Before: before}),
	} {
		if !errors.Is(err, runtime.ErrImageMissing) {
			t.Errorf("%s: %v, want runtime.ErrImageMissing", what, err)
		}
		unchanged("a missing image")
	}

	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	b.must(err)
	pins := map[string]runtime.Pin{"": {Image: ref, ImageID: id}}
	if err := b.check(r, pins); !errors.Is(err, runtime.ErrPortTaken) {
		t.Errorf("check: %v, want runtime.ErrPortTaken", err)
	}
	if err := r.Redeploy(b.Context(), held, runtime.Redeploy{Pins: pins, Before: before}); !errors.Is(err, runtime.ErrPortTaken) {
		t.Errorf("redeploy: %v, want runtime.ErrPortTaken", err)
	}
	unchanged("a taken port")
	b.must(l.Close())

	b.foreign("thief", ref, func(c *container.Config, h *container.HostConfig) {
		s, err := specOf(b.app(ref, "ports: ['"+fmt.Sprint(port)+":8080']"), wanted{name: ref})
		b.must(err)
		c.ExposedPorts, h.PortBindings = s.ExposedPorts, s.HostConfig.PortBindings
	})
	if err := b.check(r, pins); !errors.Is(err, runtime.ErrPortTaken) || !strings.Contains(err.Error(), "-thief") {
		t.Errorf("check: %v, want runtime.ErrPortTaken with the container that has it", err)
	}

	ctx, cancel := context.WithCancel(b.Context())
	cancel()
	if err := r.Redeploy(ctx, held, runtime.Redeploy{Pins: pins, Before: before}); !errors.Is(err, context.Canceled) {
		t.Errorf("redeploy: %v, want context.Canceled", err)
	}
	unchanged("an ended context")
}

func TestAForeignContainerWithTheNameIsNotTouched(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	id := b.foreign("x", ref, nil)
	r, held := b.open(b.app(ref, "container_name: "+b.name+"-x")), b.held()
	if err := b.check(r, nil); !errors.Is(err, errNameTaken) {
		t.Errorf("check: %v, want errNameTaken", err)
	}
	if err := r.Redeploy(b.Context(), held, runtime.Redeploy{}); !errors.Is(err, errNameTaken) {
		t.Errorf("redeploy: %v, want errNameTaken", err)
	}
	if raw := b.look(id); !raw.State.Running || raw.Name != "/"+b.name+"-x" {
		t.Errorf("the foreign container was touched: %+v", raw.State)
	}
}

func TestAMissingBindSourceIsNotMade(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	r, held := b.open(b.workload("image: "+ref, "volumes: [{scope: absolute, source: "+b.dir+"/absent, target: /data}]")), b.held()
	if err := r.Redeploy(b.Context(), held, runtime.Redeploy{}); err == nil {
		t.Error("deployed without its volume")
	}
	if _, err := os.Stat(b.dir + "/absent"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the missing volume was made: %v", err)
	}
	if all, err := r.Containers(b.Context()); err != nil || len(all) != 0 {
		t.Errorf("left behind: %+v, %v", all, err)
	}
}

func TestVolumesOfTheImageAreCarriedOver(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one", `VOLUME ["/var/own"]`)
	r, held := b.open(b.app(ref, healthy)), b.held()
	own := func(c runtime.Container) string {
		for _, m := range b.look(c.ID).Mounts {
			if m.Destination == "/var/own" {
				return m.Name
			}
		}
		return ""
	}
	old := b.deployed(r, held)
	was := own(old)
	// Once carried over it is not anonymous, and is not removed with a container.
	b.volumes = append(b.volumes, was)
	b.must(r.Redeploy(b.Context(), held, runtime.Redeploy{Before: []runtime.Container{old}}))
	now := b.only(r)
	if was == "" || own(now) != was || now.ID == old.ID {
		t.Errorf("volume %q before, %q after", was, own(now))
	}
}

func TestResumeMakesAGoneContainerAnewOnItsImage(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, first := b.image("one")
	r, held := b.open(b.app(ref, "restart: unless-stopped", healthy)), b.held()
	old := b.deployed(r, held)
	b.image("one") // the reference means another image now
	b.must(b.api.ContainerRemove(b.Context(), old.ID, container.RemoveOptions{Force: true}))
	made := ""
	for range 2 {
		b.must(r.Resume(b.Context(), held, []runtime.Container{old}))
		now := b.only(r)
		if made != "" && now.ID != made {
			t.Error("the repeat made another one")
		}
		made = now.ID
		if now.ImageID != first || now.Name != old.Name || !now.Running || now.Policy != old.Policy {
			t.Errorf("resumed as %+v", now)
		}
	}
	kept := b.only(r).ID
	lost := old
	lost.ID, lost.ImageID = strings.Repeat("0", 64), "sha256:"+strings.Repeat("0", 64)
	if err := r.Resume(b.Context(), held, []runtime.Container{lost}); !errors.Is(err, runtime.ErrImageMissing) {
		t.Errorf("got %v, want runtime.ErrImageMissing", err)
	}
	if now := b.only(r); now.ID != kept || !now.Running {
		t.Errorf("the last container was touched though the recorded one cannot be made: %+v", now)
	}
}

func TestTheLockIsDemanded(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.open(b.app(b.name + ":none"))
	if err := r.Redeploy(b.Context(), nil, runtime.Redeploy{}); err == nil {
		t.Error("redeployed without the lock")
	}
	other := b.held()
	r.w.Name = "other"
	if err := r.Resume(b.Context(), other, nil); err == nil {
		t.Error("resumed under another workload's lock")
	}
}

func TestEnginesElsewhereAreRefused(t *testing.T) {
	w := (&bench{T: t, name: "x", dir: t.TempDir()}).workload("image: x")
	var elsewhere *NotLocal
	if _, err := Open(w, Options{Engine: endpoint.Choice{Host: "tcp://127.0.0.1:1"}}); !errors.As(err, &elsewhere) {
		t.Errorf("got %v, want a NotLocal", err)
	}
	r, err := open(w, Options{}, client.WithHost("unix://"+t.TempDir()+"/none.sock"))
	if err != nil {
		t.Fatal("opening needs an engine:", err)
	}
	defer r.Close()
	if err := r.Ping(t.Context()); !errors.Is(err, runtime.ErrUnreachable) {
		t.Errorf("got %v, want runtime.ErrUnreachable", err)
	}
	if _, err := r.Containers(t.Context()); !errors.Is(err, runtime.ErrUnreachable) {
		t.Errorf("got %v, want runtime.ErrUnreachable", err)
	}
}
