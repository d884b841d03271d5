package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/go-connections/nat"

	"github.com/tiny-forge/snap/pkg/docker/engine"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// imageApp is a workload of one container that snap itself makes.
type imageApp struct {
	e *engine.Engine
	w *workload.Workload
}

// wanted is the container that the config asks for.
type wanted struct {
	imageID string
	name    string // the reference that it is made by; "" for one that create finds
	ref     string // the reference that goes with it, for people
	digest  string // of the repository, where the image has one
	hash    string
	// asItIs says that the named volumes have their data, be it none. Without that the
	// engine puts the image's own files into one that is empty.
	asItIs bool
}

// is reports whether a container is the wanted one.
func (w wanted) is(c *engine.Container) bool {
	return c.Raw.Config.Labels[engine.LabelHash] == w.hash && c.ImageID == w.imageID
}

func (a *imageApp) own(ctx context.Context) ([]*engine.Container, error) {
	return a.e.List(ctx, engine.LabelWorkload+"="+a.w.Name)
}

// want finds the image: the pinned one, or that of the config. The container is
// made by the reference where it still means the same image: a name reads better
// in a list of containers.
func (a *imageApp) want(ctx context.Context, pin runtime.Pin, pull bool) (wanted, error) {
	hash, err := hashOf(a.w)
	if err != nil {
		return wanted{}, fmt.Errorf("workload %s: %w", a.w.Name, err)
	}
	configured, err := a.e.Image(ctx, a.w.Image)
	if err == nil && configured.ID == "" && pin.ImageID == "" && pull {
		if err = a.e.Pull(ctx, a.w.Image); err == nil {
			configured, err = a.e.Image(ctx, a.w.Image)
		}
	}
	found := configured
	if err == nil && pin.ImageID != "" {
		found, err = a.e.Image(ctx, pin.ImageID)
	}
	switch {
	case err != nil:
		return wanted{}, err
	case found.ID == "":
		return wanted{}, engine.MissingImage(pin, a.w.Image)
	case found.ID == configured.ID:
		return wanted{imageID: found.ID, name: a.w.Image, ref: a.w.Image, hash: hash, asItIs: !pull}, nil
	}
	return wanted{imageID: found.ID, ref: cmp.Or(pin.Image, a.w.Image), digest: pin.Digest, hash: hash, asItIs: !pull}, nil
}

// create makes the container, fenced, and not started.
func (a *imageApp) create(ctx context.Context, name string, want wanted, old []*engine.Container) (*engine.Container, error) {
	if err := a.network(ctx); err != nil {
		return nil, err
	}
	if want.name == "" {
		var err error
		if want.name, err = a.e.Named(ctx, runtime.Pin{Image: want.ref, ImageID: want.imageID, Digest: want.digest}, a.w.Image); err != nil {
			return nil, err
		}
	}
	s, err := specOf(a.w, want)
	if err != nil {
		return nil, err
	}
	carry(old, s.HostConfig)
	for {
		made, err := a.e.API.ContainerCreate(ctx, s.Config, s.HostConfig, s.NetworkingConfig, nil, name)
		if errdefs.IsConflict(err) {
			err = fmt.Errorf("%w: %w: rename or remove the other container", errNameTaken, err)
		}
		if err != nil {
			return nil, engine.Failed(err, "create container %s", name)
		}
		c, err := a.e.Inspect(ctx, made.ID)
		switch {
		case err != nil:
			return nil, err
		case c == nil:
			return nil, fmt.Errorf("create container %s: it was removed at once", name)
		case c.ImageID == want.imageID || s.Image == want.imageID:
			return c, nil
		}
		// Meanwhile the reference was given to another image.
		if err := a.e.Remove(ctx, c); err != nil {
			return nil, err
		}
		s.Image = want.imageID
	}
}

// carry mounts the old container's own volumes in the engine, as an image declares
// them, where the config mounts nothing. Without them the new container would
// begin with empty ones.
func carry(old []*engine.Container, host *container.HostConfig) {
	for _, c := range old {
		for _, m := range c.Raw.Mounts {
			_, tmpfs := host.Tmpfs[m.Destination]
			taken := slices.ContainsFunc(host.Mounts, func(o mount.Mount) bool { return o.Target == m.Destination })
			if m.Type == mount.TypeVolume && m.Name != "" && !tmpfs && !taken {
				host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeVolume, Source: m.Name, Target: m.Destination, ReadOnly: !m.RW})
			}
		}
	}
}

// network makes the network of the workload's project and stage.
func (a *imageApp) network(ctx context.Context) error {
	name := networkName(a.w)
	if _, err := a.e.API.NetworkInspect(ctx, name, network.InspectOptions{}); !errdefs.IsNotFound(err) {
		return engine.Failed(err, "inspect network %s", name)
	}
	_, err := a.e.API.NetworkCreate(ctx, name, network.CreateOptions{Driver: "bridge", Labels: map[string]string{engine.LabelNetwork: name}})
	if errdefs.IsConflict(err) {
		return nil // another workload of the project made it just now
	}
	return engine.Failed(err, "create network %s", name)
}

func (a *imageApp) upToDate(ctx context.Context) (bool, error) {
	own, err := a.own(ctx)
	if err != nil || len(own) != 1 {
		return false, err
	}
	want, err := a.want(ctx, runtime.Pin{}, false)
	if errors.Is(err, runtime.ErrImageMissing) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	c := own[0]
	lacks, err := a.e.Lacks(ctx, c)
	if err != nil {
		return false, err
	}
	sick := c.Health() != container.Healthy && c.Health() != container.NoHealthcheck || lacks != ""
	ours := c.Label(engine.LabelConfig) == "" || c.Label(engine.LabelConfig) == a.w.Config
	return ours && want.is(c) && c.Active() && !sick && c.Name == a.w.ContainerName && c.Policy == restartOf(a.w), nil
}

// plan also refuses a name or a port that somebody else has. It changes nothing, so
// it leaves it to create to name an image.
func (a *imageApp) plan(ctx context.Context, want runtime.Want) (*runtime.Plan, error) {
	before := runtime.Containers(want.Before)
	ran, has := before.Pins()[""]
	plan := &runtime.Plan{Fates: fatesOf(before, "an image workload always gets a new container")}
	own, err := a.own(ctx)
	if err != nil {
		return nil, err
	}
	var pin runtime.Pin
	var imageErr error
	if has {
		pin, imageErr = a.e.Choose(ctx, want, ran, a.w.Image, want.Taken[""])
		plan.Pins = map[string]runtime.Pin{"": pin}
	}
	if imageErr == nil {
		imageErr = a.e.CheckPin(ctx, pin, a.w.Image)
	}
	hash, err := hashOf(a.w)
	if err != nil {
		return nil, fmt.Errorf("workload %s: %w", a.w.Name, err)
	}
	again := startable(own, pin, hash)
	if errors.Is(imageErr, runtime.ErrImageMissing) && again != nil {
		imageErr = nil
	} else {
		again = nil
	}
	for i := range plan.Fates {
		switch f := &plan.Fates[i]; {
		case again != nil && f.ID == again.ID:
			f.Then, f.Why = runtime.StartsAgain, ""
		case f.Then == runtime.MadeAnew:
			f.Up = pin
		}
	}
	return plan, errors.Join(imageErr, a.checkTaken(ctx, own))
}

// startable returns the container that was made from this config on the pinned image.
// It can start although its image is gone: a rebuild onto the same name deletes the
// old image at once in some engines.
func startable(own []*engine.Container, pin runtime.Pin, hash string) *engine.Container {
	i := slices.IndexFunc(own, func(c *engine.Container) bool { return wanted{imageID: pin.ImageID, hash: hash}.is(c) })
	if i < 0 {
		return nil
	}
	return own[i]
}

// fatesOf says of each container that ran that it is made anew, or starts again where
// there is no reason to make it anew.
func fatesOf(before []runtime.Container, why string) []runtime.Fate {
	fates := make([]runtime.Fate, len(before))
	for i, c := range before {
		fates[i] = runtime.Fate{Container: c, Then: runtime.StartsAgain, Up: c.Pin()}
		switch {
		case !c.Ran():
			fates[i].Then = runtime.StaysStopped
		case why != "" && !c.Also:
			fates[i].Then, fates[i].Why = runtime.MadeAnew, why
		}
	}
	return fates
}

func (a *imageApp) checkTaken(ctx context.Context, own []*engine.Container) error {
	_, bindings, err := nat.ParsePortSpecs(a.w.Ports)
	if err != nil {
		return fmt.Errorf("workload %s: ports: %w", a.w.Name, err)
	}
	var ports []engine.Port
	for key, hosts := range bindings {
		for _, h := range hosts {
			ports = append(ports, engine.Port{Address: h.HostIP, Number: h.HostPort, Protocol: key.Proto()})
		}
	}
	holder, err := a.e.Inspect(ctx, a.w.ContainerName)
	if holder != nil && holder.Name == a.w.ContainerName && engine.ByID(own, holder.ID) == nil {
		err = fmt.Errorf("container %s (%.12s): %w: snap did not make it for workload %s: rename or remove it",
			holder.Name, holder.ID, errNameTaken, a.w.Name)
	}
	return errors.Join(a.e.CheckPorts(ctx, ports, own), err)
}
