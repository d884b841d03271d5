package preflight

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Image is the image of a service at the times that matter to a restore. Its data is
// that of the snapshot, so it should come up on the image that the snapshot was taken
// on.
type Image struct {
	Service  string      `json:"service"` // "" for an image workload
	Snapshot runtime.Pin `json:"snapshot"`
	Running  runtime.Pin `json:"running"`
	Next     runtime.Pin `json:"next"`
}

// containers looks at the containers of the workload.
func (h *Host) containers(ctx context.Context, p *Plan) error {
	var err error
	if p.Containers, err = h.Runtime.Containers(ctx); err != nil {
		return err
	}
	p.Running = runtime.Containers(p.Containers).Ran()
	for _, c := range p.Containers {
		if c.Paused {
			return fault.Refuse("paused", remedy.Of("docker unpause "+c.Name), "container %s is paused: it cannot be stopped cleanly", c.Name)
		}
	}
	switch {
	case p.Running:
		p.mounted()
	case h.Workload.Kind() != workload.Data:
		p.warn("no container of the workload runs; none will be started")
		h.fillable(p)
	}
	return nil
}

// fillable warns of volumes that somebody else fills after the restore: snap starts
// nothing, and whoever makes the containers lets the engine put files into them.
func (h *Host) fillable(p *Plan) {
	if slices.ContainsFunc(p.Containers, func(c runtime.Container) bool { return !c.Also }) {
		return
	}
	for _, v := range p.Volumes {
		if found := h.Mounts.Volume(v.Name); found != nil && found.Fills && v.Stored.Entries() <= 1 {
			p.warn("volume %s is empty in the snapshot: when docker compose up makes its container, the engine puts the image's own files of %s into it", v.Name, v.Config.Target)
		}
	}
}

// redeploy finds out what becomes of the containers, and on which images.
func (h *Host) redeploy(ctx context.Context, p *Plan) error {
	want := runtime.Want{Before: p.Containers, Image: p.req.Image, Taken: map[string]runtime.Pin{}, TakeOver: p.req.TakeOver}
	for _, i := range p.manifest.Images {
		want.Taken[i.Service] = runtime.Pin{Image: i.Image, ImageID: i.ImageID, Digest: i.Digest}
	}
	redeploy, err := h.Runtime.Plan(ctx, want)
	if !p.Running { // nothing is brought up, so an image or a port is nobody's matter
		err = runtime.RefusalIn(err)
	}
	if err != nil {
		return err
	}
	p.Fates, p.Pins, p.model = redeploy.Fates, redeploy.Pins, redeploy.Model
	running := runtime.Containers(p.Containers).Pins()
	for _, service := range slices.Sorted(maps.Keys(p.Pins)) {
		i := Image{Service: service, Snapshot: want.Taken[service], Running: running[service], Next: p.Pins[service]}
		p.Images = append(p.Images, i)
		if i.Snapshot.ImageID == "" || i.Snapshot.Same(i.Next) {
			continue
		}
		p.warn("%sthe snapshot was taken on image %s, and %s will run on its data", runtime.OfService(service), i.Snapshot.Text(), i.Next.Text())
	}
	return nil
}

func (h *Host) users(ctx context.Context, p *Plan) error {
	warnings, err := h.Users(ctx, p.Opened())
	p.Warnings = append(p.Warnings, warnings...)
	return err
}

// Users looks for other containers that mount the volumes. It refuses a running one,
// which would stay on the displaced tree, and warns of others.
func (h *Host) Users(ctx context.Context, volumes []*swap.Volume) (warnings []string, err error) {
	users, err := h.foreign(ctx, volumes)
	if err != nil {
		return nil, err
	}
	for _, u := range users {
		what := u.Mounting()
		switch {
		case u.Running && u.Relation != runtime.Above:
			way := remedy.Of("stop it (docker stop " + u.Name + "), or list it in also_stop in the config")
			if u.Release != "" {
				way = remedy.Of(u.Release)
			}
			does := "writing to"
			if u.ReadOnly {
				does = "reading"
			}
			return nil, fault.Refuse("in_use", way, "%s (%s volume %s): it would go on %s the old data", what, u.Relation, u.Path, does)
		case u.Running && u.ReadOnly: // it finds the new data by the volume's path
		case u.Running:
			warnings = append(warnings, what+", above volume "+u.Path)
		default:
			warnings = append(warnings, what+"; it is stopped")
		}
	}
	return warnings, nil
}

// foreign returns the containers of others that mount the volumes.
func (h *Host) foreign(ctx context.Context, volumes []*swap.Volume) ([]runtime.User, error) {
	paths := make([]string, len(volumes))
	for i, v := range volumes {
		paths[i] = v.Path()
	}
	return h.Runtime.Users(ctx, paths)
}

// resting refuses to call it a rest while a container of somebody else runs on the
// volumes. A data workload needs no engine: without one no container starts.
func (h *Host) resting(ctx context.Context, p *Plan, quiesce string) error {
	users, err := h.foreign(ctx, p.Opened())
	if errors.Is(err, runtime.ErrUnreachable) && h.Workload.Kind() == workload.Data {
		p.warn("whether containers run on the volumes cannot be seen: %v", err)
		return nil
	}
	for _, u := range users {
		switch {
		case !u.Running, u.ReadOnly:
		case u.Relation == runtime.Above || quiesce == runtime.None:
			p.warn("%s (%s volume %s), and goes on writing there", u.Mounting(), u.Relation, u.Path)
		default:
			return fault.Refuse("in_use", remedy.Of("list it in also_stop in the config, so that it rests too; or stop it (docker stop "+u.Name+"); or capture with --quiesce none"),
				"%s (%s volume %s): it would go on writing while nothing should, so the snapshot would not be of one moment", u.Mounting(), u.Relation, u.Path)
		}
	}
	return err
}

// comesBack refuses what a restore would refuse for reasons that the config and the
// host give now. An image or a port may be there by then.
func (h *Host) comesBack(ctx context.Context, p *Plan) error {
	before := slices.Clone(p.Containers)
	for i := range before {
		before[i].Bar = nil // that a container cannot be stopped is no matter where none is
	}
	_, err := h.Runtime.Plan(ctx, runtime.Want{Before: before})
	return runtime.RefusalIn(err)
}

// mayQuiesce refuses to stop containers that would not come back, and to touch those
// of another config.
func mayQuiesce(list []runtime.Container, quiesce string) error {
	for _, c := range list {
		if bar := c.Bar; bar != nil && c.Awake() && quiesce != runtime.None && (quiesce == runtime.Stop || bar.Code == runtime.OtherConfig) {
			return bar
		}
	}
	return nil
}
