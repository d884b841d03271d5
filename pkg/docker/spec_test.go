package docker

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/client"
	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

func local(t *testing.T, lines ...string) *workload.Workload {
	t.Helper()
	return (&bench{T: t, name: "blog", dir: t.TempDir()}).workload(lines...)
}

// A hash that changes without need makes every deploy after an update of snap
// replace every container.
func TestTheHashChangesWithTheConfigAlone(t *testing.T) {
	hash := func(lines ...string) string {
		t.Helper()
		h, err := hashOf(local(t, lines...))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	plain := hash("image: app:1")
	if want := "3832ae81"; !strings.HasPrefix(plain, want) {
		t.Errorf("the hash of a config is %.8s, was %s in every version so far", plain, want)
	}
	seen := map[string]string{plain: "image: app:1"}
	for _, line := range []string{"restart: always", "init: false", "init: true", "read_only: true", "stage: prod", "environment: {A: b}",
		"ports: ['80:80']", "command: a b", "entrypoint: a b", "healthcheck: {disable: true}", "stop_grace_period: 3s"} {
		h := hash("image: app:1", line)
		if seen[h] != "" {
			t.Errorf("%q and %q have the same hash", line, seen[h])
		}
		seen[h] = line
		if h != hash("image: app:1", line) {
			t.Errorf("%q has another hash the second time", line)
		}
	}
}

func TestHealthcheckIsComposes(t *testing.T) {
	for line, want := range map[string][]string{
		"healthcheck: {disable: true}":            {"NONE"},
		"healthcheck: {test: [NONE]}":             {"NONE"},
		"healthcheck: {test: curl -f localhost}":  {"CMD-SHELL", "curl -f localhost"},
		"healthcheck: {test: [CMD, /check, now]}": {"CMD", "/check", "now"},
	} {
		got := healthOf(local(t, "image: x", line).Healthcheck)
		if !slices.Equal(got.Test, want) {
			t.Errorf("%s: %q, want %q", line, got.Test, want)
		}
	}
	if healthOf(nil) != nil {
		t.Error("without a healthcheck the image's own must stay")
	}
}

func TestWhatContainersSayIsFitForATerminal(t *testing.T) {
	if got := runtime.Tail("  a\x1b[31mb\x9bc\u202ed\xff\n"); got != "a�[31mb�c�d�" {
		t.Errorf("%q", got)
	}
	if got := runtime.Tail(strings.Repeat("x", 5000)); len(got) > 1100 {
		t.Errorf("%d bytes", len(got))
	}
}

func TestWithoutAnEngineNobodyUsesData(t *testing.T) {
	w := local(t, "volumes: [{scope: stage, source: files}]")
	socket := filepath.Join(t.TempDir(), "docker.sock")
	r, err := open(w, Options{}, client.WithHost("unix://"+socket))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if all, err := r.Containers(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("containers %v, %v", all, err)
	}
	if err := r.FenceAndStop(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if users, err := r.Users(t.Context(), []string{"/srv/files"}); err != nil || users != nil {
		t.Errorf("users %v, %v", users, err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	defer l.Close()
	if _, err := r.Users(t.Context(), []string{"/srv/files"}); err == nil {
		t.Error("an engine that does not answer went unnoticed")
	}
}

// By a bind mount a directory may have two names that no path comparison matches.
func TestRelationSeesThroughBindMounts(t *testing.T) {
	dir := t.TempDir()
	data, alias := filepath.Join(dir, "data"), filepath.Join(dir, "alias")
	for _, d := range []string{filepath.Join(data, "in"), alias} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount(data, alias, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("cannot bind-mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(alias, 0); err != nil {
			t.Error(err)
		}
	})
	for _, c := range []struct {
		source, path string
		want         runtime.Relation
	}{
		{alias, data, runtime.Same},
		{filepath.Join(alias, "in"), data, runtime.Inside},
		{filepath.Join(alias, "absent"), data, runtime.Inside},
		{alias, filepath.Join(data, "in"), runtime.Above},
		{filepath.Join(dir, "other"), data, ""},
		{"/", data, runtime.Above},
	} {
		if got := relation(locate(c.source), locate(c.path)); got != c.want {
			t.Errorf("%s to %s: %q, want %q", c.source, c.path, got, c.want)
		}
	}
}
