package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"

	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// imageApp is a workload of one container that snap itself makes.
type imageApp struct {
	e *engine
	w *workload.Workload
}

// wanted is the container that the config asks for.
type wanted struct {
	imageID string
	name    string // what it is made by: a reference to that id, or the id
	ref     string // the reference that goes with it, for people
	hash    string
}

// is reports whether a container is the wanted one.
func (w wanted) is(c *inspected) bool { return c.label(labelHash) == w.hash && c.ImageID == w.imageID }

func (a *imageApp) filter(context.Context) (filters.Args, bool, error) {
	return filters.NewArgs(filters.Arg("label", labelWorkload+"="+a.w.Name)), true, nil
}

// want finds the image: the pinned one, or that of the config. The container is
// made by the reference where it still means the same image: a name reads better
// in a list of containers.
func (a *imageApp) want(ctx context.Context, pin runtime.Pin, pull bool) (wanted, error) {
	hash, err := hashOf(a.w)
	if err != nil {
		return wanted{}, fmt.Errorf("workload %s: %w", a.w.Name, err)
	}
	want := wanted{hash: hash, name: a.w.Image, ref: a.w.Image}
	configured, err := a.e.imageID(ctx, a.w.Image)
	if err != nil {
		return wanted{}, err
	}
	if pin.ImageID == "" {
		if configured == "" && pull {
			if err := a.e.pull(ctx, a.w.Image); err != nil {
				return wanted{}, err
			}
			if configured, err = a.e.imageID(ctx, a.w.Image); err != nil {
				return wanted{}, err
			}
		}
		if configured == "" {
			return wanted{}, missingImage(pin, a.w.Image)
		}
		want.imageID = configured
		return want, nil
	}
	if want.imageID, err = a.e.imageID(ctx, pin.ImageID); err != nil {
		return wanted{}, err
	}
	switch want.imageID {
	case "":
		return wanted{}, missingImage(pin, a.w.Image)
	case configured:
		return want, nil
	}
	want.name = want.imageID
	if pin.Image != "" {
		want.ref = pin.Image
	}
	return want, nil
}

// create makes the container, fenced, and not started.
func (a *imageApp) create(ctx context.Context, name string, want wanted, old []*inspected) (*inspected, error) {
	if err := a.network(ctx); err != nil {
		return nil, err
	}
	s, err := specOf(a.w, want)
	if err != nil {
		return nil, err
	}
	s.host.Mounts = append(s.host.Mounts, carried(old, s)...)
	for {
		made, err := a.e.api.ContainerCreate(ctx, s.config, s.host, s.network, nil, name)
		if errdefs.IsConflict(err) {
			err = fmt.Errorf("%w: %w: rename or remove the other container", errNameTaken, err)
		}
		if err != nil {
			return nil, failed(err, "create container %s", name)
		}
		c, err := a.e.inspect(ctx, made.ID)
		if err != nil {
			return nil, err
		}
		if c == nil {
			return nil, fmt.Errorf("create container %s: it was removed at once", name)
		}
		if c.ImageID == want.imageID || s.config.Image == want.imageID {
			return c, nil
		}
		// Meanwhile the reference was given to another image.
		if err := a.e.remove(ctx, c); err != nil {
			return nil, err
		}
		s.config.Image = want.imageID
	}
}

// carried are the old container's own volumes in the engine, as an image declares
// them, where the config mounts nothing. Without them the new container would
// begin with empty ones.
func carried(old []*inspected, s *spec) []mount.Mount {
	taken := func(target string) bool {
		_, tmpfs := s.host.Tmpfs[target]
		return tmpfs || slices.ContainsFunc(s.host.Mounts, func(m mount.Mount) bool { return m.Target == target })
	}
	var out []mount.Mount
	for _, c := range old {
		for _, m := range c.raw.Mounts {
			again := slices.ContainsFunc(out, func(o mount.Mount) bool { return o.Target == m.Destination })
			if m.Type == mount.TypeVolume && m.Name != "" && !again && !taken(m.Destination) {
				out = append(out, mount.Mount{Type: mount.TypeVolume, Source: m.Name, Target: m.Destination, ReadOnly: !m.RW})
			}
		}
	}
	return out
}

// network makes the network of the workload's project and stage.
func (a *imageApp) network(ctx context.Context) error {
	name := networkName(a.w)
	_, err := a.e.api.NetworkInspect(ctx, name, network.InspectOptions{})
	if err == nil || !errdefs.IsNotFound(err) {
		return failed(err, "inspect network %s", name)
	}
	_, err = a.e.api.NetworkCreate(ctx, name, network.CreateOptions{Driver: "bridge", Labels: map[string]string{labelNetwork: name}})
	if errdefs.IsConflict(err) {
		return nil // another workload of the project made it just now
	}
	return failed(err, "create network %s", name)
}

// volumes returns none: the config lists what the container mounts.
func (a *imageApp) volumes(context.Context) ([]runtime.Volume, []string, error) { return nil, nil, nil }

func (a *imageApp) upToDate(ctx context.Context) (bool, error) {
	own, err := list(ctx, a.e, a)
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
	h := c.raw.State.Health
	sick := h != nil && h.Status != "healthy" && h.Status != "none"
	return want.is(c) && c.active() && !sick && c.Name == a.w.ContainerName && c.Policy == restartOf(a.w), nil
}

func (a *imageApp) check(ctx context.Context, pins map[string]runtime.Pin, own []*inspected) error {
	errs := []error{a.e.checkPin(ctx, pins[""], a.w.Image)}
	ports, err := portsOf(a.w.Ports)
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("workload %s: ports: %w", a.w.Name, err))...)
	}
	errs = append(errs, a.e.checkPorts(ctx, ports, own))
	holder, err := a.e.inspect(ctx, a.w.ContainerName)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	if holder != nil && holder.Name == a.w.ContainerName && !slices.ContainsFunc(own, func(c *inspected) bool { return c.ID == holder.ID }) {
		errs = append(errs, fmt.Errorf("container %s (%.12s): %w: snap did not make it for workload %s: rename or remove it",
			holder.Name, holder.ID, errNameTaken, a.w.Name))
	}
	return errors.Join(errs...)
}

// imageID returns the id that a reference, or an id, has on this host, and ""
// when it is not here.
func (e *engine) imageID(ctx context.Context, ref string) (string, error) {
	if ref == "" {
		return "", nil
	}
	found, err := e.api.ImageInspect(ctx, ref)
	if errdefs.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", failed(err, "inspect image %s", ref)
	}
	return found.ID, nil
}

// digest returns the repository digest of an image, that of ref's repository
// where there are several, and "" for an image that was never in a registry.
func (e *engine) digest(ctx context.Context, ref, id string) (string, error) {
	found, err := e.api.ImageInspect(ctx, id)
	if errdefs.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", failed(err, "inspect image %s", id)
	}
	repository, _, _ := strings.Cut(ref, "@")
	if i := strings.LastIndexByte(repository, ':'); i > strings.LastIndexByte(repository, '/') {
		repository = repository[:i]
	}
	for _, d := range found.RepoDigests {
		if strings.HasPrefix(d, repository+"@") {
			return d, nil
		}
	}
	if len(found.RepoDigests) > 0 {
		return found.RepoDigests[0], nil
	}
	return "", nil
}

// checkPin returns nil when the pinned image, or without a pin the one that
// ref names, is on this host.
func (e *engine) checkPin(ctx context.Context, pin runtime.Pin, ref string) error {
	name := pin.ImageID
	if name == "" {
		name = ref
	}
	id, err := e.imageID(ctx, name)
	if err != nil || id != "" {
		return err
	}
	return missingImage(pin, ref)
}

func missingImage(pin runtime.Pin, ref string) error {
	switch {
	case pin.ImageID == "":
		return fmt.Errorf("image %s: %w: docker pull %s brings it", ref, runtime.ErrImageMissing, ref)
	case pin.Digest != "":
		return fmt.Errorf("image %s (%s): %w: docker pull %s brings it", pin.Image, pin.ImageID, runtime.ErrImageMissing, pin.Digest)
	}
	return fmt.Errorf("image %s (%s): %w, and has no digest to pull it by: build or load it again", pin.Image, pin.ImageID, runtime.ErrImageMissing)
}

// pull fetches an image as a user who is not logged in.
func (e *engine) pull(ctx context.Context, ref string) error {
	body, err := e.api.ImagePull(ctx, ref, image.PullOptions{})
	if err == nil {
		defer body.Close()
		err = lastError(body)
	}
	if err != nil {
		return fmt.Errorf("%w: if the registry wants a login, run: docker pull %s", failed(err, "pull image %s", ref), ref)
	}
	return nil
}

// lastError reads the engine's progress to its end, and returns the error in it.
func lastError(progress io.Reader) error {
	dec := json.NewDecoder(progress)
	for {
		var line struct {
			Error string `json:"error"`
		}
		switch err := dec.Decode(&line); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case line.Error != "":
			return errors.New(line.Error)
		}
	}
}
