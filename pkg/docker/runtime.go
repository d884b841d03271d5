package docker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"

	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

var (
	// ErrNotLocal says that DOCKER_HOST names an engine that may be on another
	// host: the directories that snap changes are this one's.
	ErrNotLocal = errors.New("not an engine of this host")
	// ErrNameTaken says that a container outside the workload has the name
	// that the workload's wants.
	ErrNameTaken = errors.New("the container name is taken")
	// ErrNotMounted says that no service of the Compose file mounts a volume
	// that the config lists.
	ErrNotMounted = errors.New("no service mounts it")
)

// Options are what a Runtime may be given.
type Options struct {
	// Notice is told what the operator should know and no error says, one line
	// each: a container of also_stop that is gone or does not start, an old
	// container that cannot be removed. May be nil.
	Notice func(line string)
}

// Runtime brings the containers of one workload up and down.
type Runtime struct {
	w   *workload.Workload
	e   *engine
	app app
}

// app is what differs between the kinds of workloads: which containers are its
// own, and how they are made.
type app interface {
	// filter returns what finds the workload's own containers; false when it
	// has none.
	filter(ctx context.Context) (filters.Args, bool, error)
	check(ctx context.Context, pins map[string]runtime.Pin, own []*box) error
	redeploy(ctx context.Context, r runtime.Redeploy) error
	resume(ctx context.Context, before []runtime.Container) error
	settle(ctx context.Context, before []runtime.Container) error
	volumes(ctx context.Context) ([]runtime.Volume, []string, error)
	upToDate(ctx context.Context) (bool, error)
}

// Open returns the runtime of a workload: of an image, of Compose, or one that
// does nothing for a workload of data alone. It does not ask the engine for
// anything. It returns [ErrNotLocal] when DOCKER_HOST is not a unix socket.
func Open(w *workload.Workload, opts Options) (*Runtime, error) { return open(w, opts) }

func open(w *workload.Workload, opts Options, more ...client.Opt) (*Runtime, error) {
	e, err := connect(opts, more...)
	if err != nil {
		return nil, err
	}
	r := &Runtime{w: w, e: e}
	switch w.Kind() {
	case workload.Image:
		r.app = &imageApp{e: e, w: w}
	case workload.Compose:
		r.app = &composeApp{e: e, w: w, cli: compose{files: composeFiles(w.Compose), host: e.host}}
	default:
		r.app = dataApp{e: e}
	}
	return r, nil
}

// Close gives the connection back.
func (r *Runtime) Close() error { return r.e.api.Close() }

// Ping returns nil when the engine answers, and [runtime.ErrUnreachable] when it does
// not do so within five seconds.
func (r *Runtime) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := r.e.api.Ping(ctx); err != nil {
		return fmt.Errorf("%w at %s: %w", runtime.ErrUnreachable, r.e.host, err)
	}
	return nil
}

// Containers returns the workload's containers and those of also_stop that
// exist, sorted by name.
func (r *Runtime) Containers(ctx context.Context) ([]runtime.Container, error) {
	boxes, err := r.boxes(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]runtime.Container, len(boxes))
	for i, b := range boxes {
		out[i] = b.Container
		if out[i].Digest, err = r.e.digest(ctx, b.Image, b.ImageID); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// boxes returns the workload's containers and those of also_stop, by name.
func (r *Runtime) boxes(ctx context.Context) ([]*box, error) {
	boxes, err := r.own(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range r.w.AlsoStop {
		b, err := r.e.inspect(ctx, name)
		if err != nil {
			return nil, err
		}
		// The engine also takes the beginning of an id for a name: "db" must
		// not stop whoever's id begins so.
		if b == nil || b.Name != name && (len(name) < 12 || !strings.HasPrefix(b.ID, name)) {
			continue
		}
		if slices.ContainsFunc(boxes, func(o *box) bool { return o.ID == b.ID }) {
			continue
		}
		b.Also, b.Service = true, ""
		boxes = append(boxes, b)
	}
	slices.SortFunc(boxes, func(a, b *box) int { return strings.Compare(a.Name, b.Name) })
	return boxes, nil
}

func (r *Runtime) own(ctx context.Context) ([]*box, error) { return list(ctx, r.e, r.app) }

func list(ctx context.Context, e *engine, a app) ([]*box, error) {
	filter, any, err := a.filter(ctx)
	if err != nil || !any {
		return nil, err
	}
	return e.list(ctx, filter)
}

// Check reports what would keep Redeploy from working: [runtime.ErrImageMissing],
// [runtime.ErrPortTaken], [ErrNameTaken], [ErrNotMounted], or a container of also_stop
// that would be gone once it stops. All that is found is reported, joined.
func (r *Runtime) Check(ctx context.Context, pins map[string]runtime.Pin) error {
	boxes, err := r.boxes(ctx)
	if err != nil {
		return err
	}
	own := slices.DeleteFunc(slices.Clone(boxes), func(b *box) bool { return b.Also })
	return errors.Join(refuseAutoRemove(boxes), r.app.check(ctx, pins, own))
}

// Redeploy brings the workload up from its config, and returns once it is
// healthy. An image that cannot be had is reported before anything that was
// there before is touched. A container of also_stop that does not start again
// is a notice and no error: the workload itself is up. Where the engine stops
// answering half-way nothing is known of the containers; FenceAndStop, Redeploy
// and Resume each take it from there.
func (r *Runtime) Redeploy(ctx context.Context, held runtime.Lock, d runtime.Redeploy) error {
	if err := r.demand(held); err != nil {
		return err
	}
	return r.app.redeploy(ctx, d)
}

// Settle accepts the containers that an unhealthy Redeploy left: they get the
// restart policies of the config, those in before that they replace are
// removed, and the containers of also_stop that ran before start again. It may
// be repeated.
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

// UpToDate reports whether a deploy would change nothing: one container of the
// current config and image runs and is healthy. For a Compose workload it is
// always false: docker compose up finds that out itself. It changes nothing.
func (r *Runtime) UpToDate(ctx context.Context) (bool, error) { return r.app.upToDate(ctx) }

// Volumes returns every directory that a service of the Compose file binds
// writable; nothing for other workloads. The engine is not asked, only docker
// compose, which need not reach it.
func (r *Runtime) Volumes(ctx context.Context) ([]runtime.Volume, []string, error) {
	return r.app.volumes(ctx)
}

func (r *Runtime) demand(held runtime.Lock) error {
	if held == nil || held.Workload() != r.w.Name {
		return fmt.Errorf("workload %s: its lock is not held", r.w.Name)
	}
	return nil
}
