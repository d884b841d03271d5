package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/client"

	"github.com/tiny-forge/snap/pkg/docker/endpoint"
	"github.com/tiny-forge/snap/pkg/docker/engine"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// NotLocal is the error of Open for an engine that may be on another host. The
// directories that snap changes are on this one.
type NotLocal struct {
	Engine endpoint.Endpoint
}

func (n *NotLocal) Error() string {
	return fmt.Sprintf("docker engine %s: not an engine of this host", n.Engine)
}

// Hint says what to do.
func (n *NotLocal) Hint() string {
	if n.Engine.Context != "" {
		return "run snap on the host of that engine; for this host's engine add --context " + endpoint.Default
	}
	return "run snap on the host of that engine; for this host's engine unset DOCKER_HOST, or set it or --host to a unix:// socket"
}

// For the tests: callers have nothing to decide by these.
var (
	errNameTaken  = errors.New("the container name is taken")
	errNotMounted = errors.New("no service mounts it")
)

// Options are what a Runtime may be given.
type Options struct {
	// Notice is told, in one line each, what the operator should know although
	// nothing has failed: a container of also_stop is gone or does not start, an
	// old container cannot be removed. May be nil.
	Notice func(line string)
	// Engine is what the operator has chosen; without a choice the engine is the one
	// that the docker command would use.
	Engine endpoint.Choice
}

// Runtime brings the containers of one workload up and down.
type Runtime struct {
	w   *workload.Workload
	e   *engine.Engine
	app app
}

// app is what differs between the kinds of workloads: which containers are its
// own, and how they are made.
type app interface {
	own(ctx context.Context) ([]*engine.Container, error)
	plan(ctx context.Context, want runtime.Want) (*runtime.Plan, error)
	redeploy(ctx context.Context, r runtime.Redeploy) error
	resume(ctx context.Context, before []runtime.Container) error
	settle(ctx context.Context, before []runtime.Container) error
	mounts(ctx context.Context) (*runtime.Mounts, error)
	upToDate(ctx context.Context) (bool, error)
}

// Open returns the runtime of a workload, without asking the engine for anything.
// It returns [*NotLocal] when the engine is not reached over a unix socket.
func Open(w *workload.Workload, opts Options) (*Runtime, error) { return open(w, opts) }

func open(w *workload.Workload, opts Options, more ...client.Opt) (*Runtime, error) {
	at, err := endpoint.Resolve(opts.Engine, os.Getenv)
	if err != nil {
		return nil, err
	}
	if !at.Local() {
		return nil, &NotLocal{Engine: at}
	}
	api, err := client.NewClientWithOpts(append([]client.Opt{client.WithHost(at.Host), client.WithVersionFromEnv(), client.WithAPIVersionNegotiation()}, more...)...)
	if err != nil {
		return nil, fmt.Errorf("docker engine %s: %w", at, err)
	}
	e := &engine.Engine{API: api, Notice: opts.Notice}
	if e.Notice == nil {
		e.Notice = func(string) {}
	}
	r := &Runtime{w: w, e: e}
	switch w.Kind() {
	case workload.Image:
		r.app = &imageApp{e: e, w: w}
	case workload.Compose:
		r.app = &composeApp{e: e, w: w}
	default:
		r.app = dataApp{e: e, w: w}
	}
	return r, nil
}

// Close closes the connection.
func (r *Runtime) Close() error { return r.e.API.Close() }

// Ping returns [runtime.ErrUnreachable] unless the engine answers within five seconds.
func (r *Runtime) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := r.e.API.Ping(ctx); err != nil {
		return fmt.Errorf("%w at %s: %w", runtime.ErrUnreachable, r.e.API.DaemonHost(), err)
	}
	return nil
}

// Containers returns the workload's containers, with the digests of their images. One
// of docker compose run that has ended is of no interest to anybody.
func (r *Runtime) Containers(ctx context.Context) ([]runtime.Container, error) {
	containers, err := r.inspectAll(ctx)
	if err != nil {
		return nil, err
	}
	containers = slices.DeleteFunc(containers, func(c *engine.Container) bool { return c.OneOff && !c.Running })
	if err := r.e.AddNamed(ctx, containers); err != nil {
		return nil, err
	}
	out := make([]runtime.Container, len(containers))
	for i, c := range containers {
		image, err := r.e.Image(ctx, c.ImageID)
		if err != nil {
			return nil, err
		}
		out[i] = c.Container
		out[i].Digest = engine.DigestOf(c.Image, image.RepoDigests)
	}
	return out, nil
}

// inspectAll returns the workload's containers and those of also_stop, by name.
func (r *Runtime) inspectAll(ctx context.Context) ([]*engine.Container, error) {
	containers, err := r.app.own(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range r.w.AlsoStop {
		c, err := r.e.Inspect(ctx, name)
		if err != nil {
			return nil, err
		}
		// The engine also takes the beginning of an id for a name: "db" must
		// not stop whoever's id begins so.
		if c == nil || c.Name != name && (len(name) < 12 || !strings.HasPrefix(c.ID, name)) || engine.ByID(containers, c.ID) != nil {
			continue
		}
		c.Also, c.Service = true, ""
		containers = append(containers, c)
	}
	slices.SortFunc(containers, func(x, y *engine.Container) int { return strings.Compare(x.Name, y.Name) })
	for _, c := range containers {
		c.Bar = r.bar(c)
	}
	return containers, nil
}

// Plan returns what Redeploy would do, or what would keep it from working: a
// [*runtime.Refusal], an image that is not on this host ([runtime.ErrImageMissing]), a
// port ([runtime.ErrPortTaken]) or a container name that somebody else has, a volume of
// the config that no service mounts. The error joins everything that was found.
func (r *Runtime) Plan(ctx context.Context, want runtime.Want) (*runtime.Plan, error) {
	if err := runtime.Containers(want.Before).Barred(want.TakeOver); err != nil {
		return nil, err
	}
	own, err := r.inspectAll(ctx)
	if err == nil {
		err = r.e.CanFence(ctx, own)
	}
	if err != nil {
		return nil, err
	}
	return r.app.plan(ctx, want)
}

// Owner reads what the engine says of itself: where it maps users, the last part of its
// root is the owner, as "100000.100000"; where it runs without root, it is that user.
func (r *Runtime) Owner(ctx context.Context) (uid, gid int, err error) { return r.e.Owner(ctx) }

// Exec runs a command in a container. Of a scaled service it takes the first one that
// runs.
func (r *Runtime) Exec(ctx context.Context, x runtime.Exec) (code int, said string, err error) {
	own, err := r.app.own(ctx)
	if err != nil {
		return 0, "", err
	}
	c := cmp.Or(engine.ByName(own, x.Container),
		engine.First(own, func(c *engine.Container) bool { return c.Service == x.Container && c.Active() && !c.OneOff }))
	if c == nil {
		if c, err = r.e.Inspect(ctx, x.Container); err != nil {
			return 0, "", err
		}
	}
	if c == nil || c.Name != x.Container && c.Service != x.Container {
		return 0, "", fmt.Errorf("there is no container %s: name one of the workload, a service that runs, or any other container in full", x.Container)
	}
	return r.e.Exec(ctx, c, x)
}

// Redeploy reports an image that cannot be had before it touches anything that was
// there before. A container of also_stop that does not start again is a notice and
// not an error: the workload itself is up.
func (r *Runtime) Redeploy(ctx context.Context, held runtime.Lock, d runtime.Redeploy) error {
	if err := r.demand(held); err != nil {
		return err
	}
	return r.app.redeploy(ctx, d)
}

// Settle accepts the containers that an unhealthy Redeploy left, and starts those
// of also_stop that ran before.
func (r *Runtime) Settle(ctx context.Context, before []runtime.Container) error {
	return r.app.settle(ctx, before)
}

// Resume brings back the containers as they were recorded in before.
func (r *Runtime) Resume(ctx context.Context, held runtime.Lock, before []runtime.Container) error {
	if err := r.demand(held); err != nil {
		return err
	}
	return r.app.resume(ctx, before)
}

// UpToDate is always false for a Compose workload: docker compose up looks itself.
func (r *Runtime) UpToDate(ctx context.Context) (bool, error) { return r.app.upToDate(ctx) }

func (r *Runtime) demand(held runtime.Lock) error {
	if held == nil || held.Workload() != r.w.Name {
		return fmt.Errorf("workload %s: its lock is not held", r.w.Name)
	}
	return nil
}

// dataApp is a workload without containers, except those of also_stop.
type dataApp struct {
	e *engine.Engine
	w *workload.Workload
}

func (dataApp) own(context.Context) ([]*engine.Container, error) { return nil, nil }

func (dataApp) plan(_ context.Context, want runtime.Want) (*runtime.Plan, error) {
	return &runtime.Plan{Fates: fatesOf(want.Before, "")}, nil
}

func (a dataApp) redeploy(ctx context.Context, r runtime.Redeploy) error {
	return a.e.RestoreAlso(ctx, r.Before)
}

func (a dataApp) resume(ctx context.Context, before []runtime.Container) error {
	return a.e.RestoreAlso(ctx, before)
}

func (a dataApp) settle(ctx context.Context, before []runtime.Container) error {
	return a.e.RestoreAlso(ctx, before)
}

func (dataApp) upToDate(context.Context) (bool, error) { return true, nil }
