// Package dockertest gives tests the container engine: images of small
// programs, and what the engine says of the containers of a workload. It asks
// the engine itself, as the docker command takes more than what is asked of it.
package dockertest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"

	"github.com/tiny-forge/snap/pkg/disk"
)

// patience is how long an engine may take for what a test asks of it.
const patience = 2 * time.Minute

// Connect connects to the engine. Where none answers it skips the test, or with
// SNAP_TEST_DOCKER=require fails it.
func Connect(t testing.TB) *client.Client {
	t.Helper()
	api, err := connect()
	if err == nil {
		t.Cleanup(func() { api.Close() })
		_, err = api.Ping(t.Context())
	}
	if err != nil {
		if os.Getenv("SNAP_TEST_DOCKER") == "require" {
			t.Fatalf("no container engine answers: %v", err)
		}
		t.Skipf("no container engine answers: %v", err)
	}
	return api
}

// NeedCompose skips a test where docker compose does not work.
// SNAP_TEST_COMPOSE may name a plugin that is not installed.
func NeedCompose(t testing.TB) {
	t.Helper()
	if plugin := os.Getenv("SNAP_TEST_COMPOSE"); plugin != "" {
		dir := filepath.Join(t.TempDir(), "cli-plugins")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(plugin, filepath.Join(dir, "docker-compose")); err != nil {
			t.Fatal(err)
		}
		t.Setenv("DOCKER_CONFIG", filepath.Dir(dir))
	}
	if out, err := exec.Command("docker", "compose", "version").CombinedOutput(); err != nil {
		t.Skipf("docker compose does not work here (SNAP_TEST_COMPOSE may name the plugin): %v: %s", err, out)
	}
}

func connect() (*client.Client, error) {
	return client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
}

// ask runs do with a connection to the engine that DOCKER_HOST names now, and
// fails the test where do fails. It serves at the end of a test too.
func ask(t testing.TB, do func(context.Context, *client.Client) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	api, err := connect()
	if err == nil {
		err = do(ctx, api)
		api.Close()
	}
	if err != nil {
		t.Fatalf("the container engine: %v", err)
	}
}

var built struct {
	sync.Mutex
	tars map[string][]byte
}

// RootFS is a root filesystem as a tar: a Go program, static, under its name,
// and the directories /data and /tmp. The program is a directory, relative to
// that of the test; it is built once.
func RootFS(t testing.TB, program string) []byte {
	t.Helper()
	program, err := filepath.Abs(program)
	if err != nil {
		t.Fatal(err)
	}
	built.Lock()
	defer built.Unlock()
	if built.tars[program] == nil {
		if built.tars == nil {
			built.tars = map[string][]byte{}
		}
		built.tars[program] = build(t, program)
	}
	return built.tars[program]
}

func build(t testing.TB, program string) []byte {
	t.Helper()
	name := filepath.Base(program)
	binary := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", binary, program)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the test program: %v\n%s", err, out)
	}
	text, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, dir := range []string{"data/", "tmp/"} {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o777}))
	}
	err = errors.Join(err, w.WriteHeader(&tar.Header{Name: name, Size: int64(len(text)), Mode: 0o755}))
	_, writeErr := w.Write(text)
	if err = errors.Join(err, writeErr, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Image makes an image that runs a program, and returns its name. No other has
// its id; it goes when the test ends.
func Image(t testing.TB, program string) string {
	t.Helper()
	api, name := Connect(t), "snap-test:"+disk.NewID(time.Now())[17:]
	Import(t, api, name, RootFS(t, program), fmt.Sprintf("ENTRYPOINT [%q]", "/"+filepath.Base(program)), "LABEL serial="+name)
	t.Cleanup(func() {
		ask(t, func(ctx context.Context, api *client.Client) error {
			_, err := api.ImageRemove(ctx, name, image.RemoveOptions{Force: true})
			if errdefs.IsNotFound(err) { // the test removed it
				return nil
			}
			return err
		})
	})
	return name
}

// Import makes an image of a root filesystem, with changes as in a Dockerfile. An
// image that had the name stays, without it: Docker 26 with the containerd store
// would lose it if the import itself gave the name.
func Import(t testing.TB, api *client.Client, name string, root []byte, changes ...string) {
	t.Helper()
	once := name + "-" + disk.NewID(time.Now())[17:]
	body, err := api.ImageImport(t.Context(), image.ImportSource{Source: bytes.NewReader(root), SourceName: "-"}, once, image.ImportOptions{Changes: changes})
	if err != nil {
		t.Fatalf("import image %s: %v", name, err)
	}
	defer body.Close()
	// Once the engine has begun, it reports an error in the text of its progress.
	if said, err := io.ReadAll(body); err != nil || bytes.Contains(said, []byte(`"error":`)) {
		t.Fatalf("import image %s: %v: %s", name, err, said)
	}
	if err = api.ImageTag(t.Context(), once, name); err == nil {
		_, err = api.ImageRemove(t.Context(), once, image.RemoveOptions{})
	}
	if err != nil {
		t.Fatalf("name image %s: %v", name, err)
	}
}

// Container is what the engine says of a container.
type Container struct {
	ID, Name        string // the name without a slash
	Image           string // the id of its image
	Running, Paused bool
	StartedAt       string
	ExitCode        int
	Policy          string // its restart policy
}

// Run tells one running container, and one run of it, from all others.
func (c Container) Run() string { return c.ID + " " + c.StartedAt }

func inspect(ctx context.Context, api *client.Client, id string) (Container, error) {
	raw, err := api.ContainerInspect(ctx, id)
	if err != nil {
		return Container{}, err
	}
	return Container{
		ID: raw.ID, Name: strings.TrimPrefix(raw.Name, "/"), Image: raw.Image,
		Running: raw.State.Running, Paused: raw.State.Paused, StartedAt: raw.State.StartedAt, ExitCode: raw.State.ExitCode,
		Policy: string(raw.HostConfig.RestartPolicy.Name),
	}, nil
}

// Inspect looks at a container, which must be there.
func Inspect(t testing.TB, id string) (c Container) {
	t.Helper()
	ask(t, func(ctx context.Context, api *client.Client) (err error) {
		c, err = inspect(ctx, api, id)
		return err
	})
	return c
}

// Containers looks at the containers of a workload.
func Containers(t testing.TB, workload string) (list []Container) {
	t.Helper()
	ask(t, func(ctx context.Context, api *client.Client) error {
		ids, err := containers(ctx, api, workload)
		for _, id := range ids {
			c, inspectErr := inspect(ctx, api, id)
			if errdefs.IsNotFound(inspectErr) { // it went meanwhile
				continue
			}
			list, err = append(list, c), errors.Join(err, inspectErr)
		}
		return err
	})
	return list
}

func containers(ctx context.Context, api *client.Client, workload string) (ids []string, err error) {
	found, err := api.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", "snap.workload="+workload))})
	for _, c := range found {
		ids = append(ids, c.ID)
	}
	return ids, err
}

// Undeploy removes the containers and networks of a workload of the test's own:
// those with its name, which is random, in their labels or names.
func Undeploy(t testing.TB, workload string) {
	t.Helper()
	ask(t, func(ctx context.Context, api *client.Client) error {
		ids, err := containers(ctx, api, workload)
		for _, id := range ids {
			err = errors.Join(err, api.ContainerRemove(ctx, id, container.RemoveOptions{Force: true}))
		}
		networks, listErr := api.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("name", workload))})
		err = errors.Join(err, listErr)
		for _, n := range networks {
			err = errors.Join(err, api.NetworkRemove(ctx, n.ID))
		}
		return err
	})
}

// HappenedTwice is Happened for what has happened at least twice.
func HappenedTwice(t testing.TB, container, event string, since time.Time) bool {
	t.Helper()
	return times(t, container, event, since) > 1
}

// Happened reports whether the engine has told of something that happened to a
// container since then, such as "kill" for a signal that it was sent.
func Happened(t testing.TB, container, event string, since time.Time) bool {
	t.Helper()
	return times(t, container, event, since) > 0
}

func times(t testing.TB, container, event string, since time.Time) (n int) {
	t.Helper()
	at := func(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }
	ask(t, func(ctx context.Context, api *client.Client) error {
		told, failed := api.Events(ctx, events.ListOptions{
			Since: at(since), Until: at(time.Now()),
			Filters: filters.NewArgs(filters.Arg("container", container), filters.Arg("event", event)),
		})
		for {
			select {
			case <-told:
				n++
			case err := <-failed:
				if err == io.EOF {
					return nil
				}
				return err
			}
		}
	})
	return n
}
