package docker

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"

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
	name    string // the reference that it is made by; "" for one that create finds
	ref     string // the reference that goes with it, for people
	digest  string // of the repository, where the image has one
	hash    string
	// asItIs says that the named volumes have their data, be it none. Without that the
	// engine puts the image's own files into one that is empty.
	asItIs bool
}

// is reports whether a container is the wanted one.
func (w wanted) is(c *inspected) bool {
	return c.raw.Config.Labels[labelHash] == w.hash && c.ImageID == w.imageID
}

func (a *imageApp) own(ctx context.Context) ([]*inspected, error) {
	return a.e.list(ctx, labelWorkload+"="+a.w.Name)
}

// want finds the image: the pinned one, or that of the config. The container is
// made by the reference where it still means the same image: a name reads better
// in a list of containers.
func (a *imageApp) want(ctx context.Context, pin runtime.Pin, pull bool) (wanted, error) {
	hash, err := hashOf(a.w)
	if err != nil {
		return wanted{}, fmt.Errorf("workload %s: %w", a.w.Name, err)
	}
	configured, err := a.e.image(ctx, a.w.Image)
	if err == nil && configured.ID == "" && pin.ImageID == "" && pull {
		if err = a.e.pull(ctx, a.w.Image); err == nil {
			configured, err = a.e.image(ctx, a.w.Image)
		}
	}
	found := configured
	if err == nil && pin.ImageID != "" {
		found, err = a.e.image(ctx, pin.ImageID)
	}
	switch {
	case err != nil:
		return wanted{}, err
	case found.ID == "":
		return wanted{}, missingImage(pin, a.w.Image)
	case found.ID == configured.ID:
		return wanted{imageID: found.ID, name: a.w.Image, ref: a.w.Image, hash: hash, asItIs: !pull}, nil
	}
	return wanted{imageID: found.ID, ref: cmp.Or(pin.Image, a.w.Image), digest: pin.Digest, hash: hash, asItIs: !pull}, nil
}

// create makes the container, fenced, and not started.
func (a *imageApp) create(ctx context.Context, name string, want wanted, old []*inspected) (*inspected, error) {
	if err := a.network(ctx); err != nil {
		return nil, err
	}
	if want.name == "" {
		var err error
		if want.name, err = a.e.named(ctx, runtime.Pin{Image: want.ref, ImageID: want.imageID, Digest: want.digest}, a.w.Image); err != nil {
			return nil, err
		}
	}
	s, err := specOf(a.w, want)
	if err != nil {
		return nil, err
	}
	carry(old, s.HostConfig)
	for {
		made, err := a.e.api.ContainerCreate(ctx, s.Config, s.HostConfig, s.NetworkingConfig, nil, name)
		if errdefs.IsConflict(err) {
			err = fmt.Errorf("%w: %w: rename or remove the other container", errNameTaken, err)
		}
		if err != nil {
			return nil, failed(err, "create container %s", name)
		}
		c, err := a.e.inspect(ctx, made.ID)
		switch {
		case err != nil:
			return nil, err
		case c == nil:
			return nil, fmt.Errorf("create container %s: it was removed at once", name)
		case c.ImageID == want.imageID || s.Image == want.imageID:
			return c, nil
		}
		// Meanwhile the reference was given to another image.
		if err := a.e.remove(ctx, c); err != nil {
			return nil, err
		}
		s.Image = want.imageID
	}
}

// carry mounts the old container's own volumes in the engine, as an image declares
// them, where the config mounts nothing. Without them the new container would
// begin with empty ones.
func carry(old []*inspected, host *container.HostConfig) {
	for _, c := range old {
		for _, m := range c.raw.Mounts {
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
	if _, err := a.e.api.NetworkInspect(ctx, name, network.InspectOptions{}); !errdefs.IsNotFound(err) {
		return failed(err, "inspect network %s", name)
	}
	_, err := a.e.api.NetworkCreate(ctx, name, network.CreateOptions{Driver: "bridge", Labels: map[string]string{labelNetwork: name}})
	if errdefs.IsConflict(err) {
		return nil // another workload of the project made it just now
	}
	return failed(err, "create network %s", name)
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
	lacks, err := a.e.lacks(ctx, c)
	if err != nil {
		return false, err
	}
	sick := c.health() != container.Healthy && c.health() != container.NoHealthcheck || lacks != ""
	ours := c.label(labelConfig) == "" || c.label(labelConfig) == a.w.Config
	return ours && want.is(c) && c.active() && !sick && c.Name == a.w.ContainerName && c.Policy == restartOf(a.w), nil
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
		pin, imageErr = a.e.choose(ctx, want, ran, a.w.Image, want.Taken[""])
		plan.Pins = map[string]runtime.Pin{"": pin}
	}
	if imageErr == nil {
		imageErr = a.e.checkPin(ctx, pin, a.w.Image)
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
func startable(own []*inspected, pin runtime.Pin, hash string) *inspected {
	i := slices.IndexFunc(own, func(c *inspected) bool { return wanted{imageID: pin.ImageID, hash: hash}.is(c) })
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

func (a *imageApp) checkTaken(ctx context.Context, own []*inspected) error {
	_, bindings, err := nat.ParsePortSpecs(a.w.Ports)
	if err != nil {
		return fmt.Errorf("workload %s: ports: %w", a.w.Name, err)
	}
	var ports []port
	for key, hosts := range bindings {
		for _, h := range hosts {
			ports = append(ports, port{h.HostIP, h.HostPort, key.Proto()})
		}
	}
	holder, err := a.e.inspect(ctx, a.w.ContainerName)
	if holder != nil && holder.Name == a.w.ContainerName && byID(own, holder.ID) == nil {
		err = fmt.Errorf("container %s (%.12s): %w: snap did not make it for workload %s: rename or remove it",
			holder.Name, holder.ID, errNameTaken, a.w.Name)
	}
	return errors.Join(a.e.checkPorts(ctx, ports, own), err)
}

// image returns the image of a reference or an id; nothing when this host has none.
func (e *engine) image(ctx context.Context, ref string) (image.InspectResponse, error) {
	var raw bytes.Buffer
	found, err := e.api.ImageInspect(ctx, ref, client.ImageInspectWithRawResponse(&raw))
	if errdefs.IsNotFound(err) {
		return image.InspectResponse{}, nil
	}
	if err != nil {
		return found, failed(err, "inspect image %s", ref)
	}
	found.RepoDigests = slices.DeleteFunc(found.RepoDigests, func(d string) bool { return !pullable(d, found.ID, raw.Bytes()) })
	return found, nil
}

// pullable reports whether a registry has the image under that digest. An image that was
// built here has digests too, where the engine keeps images in containerd: they are those
// of its manifest, which is then also its id. There only what the engine knows of the
// image's origin tells (Identity, since Docker 29). podman names what it built localhost.
func pullable(digest, id string, raw []byte) bool {
	repository, sum, _ := strings.Cut(digest, "@")
	if sum != id {
		return !strings.HasPrefix(repository, "localhost/")
	}
	var origin struct {
		Identity struct{ Pull []struct{ Repository string } }
	}
	_ = json.Unmarshal(raw, &origin) // an engine that is older says nothing
	familiar := func(name string) string {
		return strings.TrimPrefix(strings.TrimPrefix(name, "docker.io/"), "library/")
	}
	return slices.ContainsFunc(origin.Identity.Pull, func(p struct{ Repository string }) bool {
		return familiar(p.Repository) == familiar(repository)
	})
}

// digestOf chooses the digest of ref's repository, where there is one.
func digestOf(ref string, digests []string) string {
	if len(digests) == 0 {
		return "" // the image was never in a registry
	}
	repository := repositoryOf(ref)
	i := slices.IndexFunc(digests, func(d string) bool { return strings.HasPrefix(d, repository+"@") })
	return digests[max(i, 0)]
}

// checkPin returns nil when the pinned image, or else that of ref, is on this host.
func (e *engine) checkPin(ctx context.Context, pin runtime.Pin, ref string) error {
	found, err := e.image(ctx, cmp.Or(pin.ImageID, ref))
	if err != nil || found.ID != "" {
		return err
	}
	return missingImage(pin, ref)
}

func missingImage(pin runtime.Pin, ref string) error {
	if pin.ImageID == "" {
		return &runtime.MissingImage{Image: ref, Pull: ref}
	}
	return &runtime.MissingImage{Image: pin.Image, ImageID: pin.ImageID, Pull: pin.Digest}
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
	for dec := json.NewDecoder(progress); ; {
		var line struct{ Error string }
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
