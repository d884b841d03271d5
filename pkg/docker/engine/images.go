package engine

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
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// Choose returns the image on which a container comes up. ran is what it runs on, ref
// what the config names now, and taken what it ran on when the snapshot was taken.
func (e *Engine) Choose(ctx context.Context, want runtime.Want, ran runtime.Pin, ref string, taken runtime.Pin) (runtime.Pin, error) {
	byID := strings.HasPrefix(ran.Image, "sha256:")
	switch {
	case want.Image == runtime.ImageSnapshot && taken.ImageID != "":
		for _, name := range []string{taken.ImageID, taken.Digest} {
			if name == "" {
				continue
			}
			found, err := e.Image(ctx, name)
			if err != nil {
				return taken, err
			}
			if found.ID != "" {
				return runtime.Pin{Image: taken.Image, ImageID: found.ID, Digest: taken.Digest}, nil
			}
		}
		return taken, MissingImage(taken, ref)
	case want.Image == runtime.ImageConfig, want.Image != runtime.ImageSnapshot && ran.Image != ref && !byID:
		found, err := e.Image(ctx, ref)
		if err == nil && found.ID == "" {
			err = MissingImage(runtime.Pin{}, ref)
		}
		return runtime.Pin{Image: ref, ImageID: found.ID, Digest: DigestOf(ref, found.RepoDigests)}, err
	case byID:
		ran.Image = ref
	}
	return ran, nil
}

// Named returns a reference that means the pinned image, so that a list of containers
// shows a name: the configured one where it still does, or that which the image had,
// or that with its digest. An image that has lost all its names gets a new one of
// snap's. No name that an operator gave is moved to another image.
func (e *Engine) Named(ctx context.Context, pin runtime.Pin, ref string) (string, error) {
	_, digest, _ := strings.Cut(pin.Digest, "@")
	for _, name := range []string{ref, pin.Image, withDigest(pin.Image, digest), pin.Digest} {
		if name == "" || strings.HasPrefix(name, "sha256:") {
			continue
		}
		found, err := e.Image(ctx, name)
		if err != nil {
			return "", err
		}
		if found.ID == pin.ImageID {
			return name, nil
		}
	}
	found, err := e.Image(ctx, pin.ImageID)
	if err != nil {
		return "", err
	}
	if found.ID == "" {
		return "", MissingImage(pin, ref)
	}
	repository := repositoryOf(ref)
	if i := slices.IndexFunc(found.RepoTags, func(tag string) bool { return repositoryOf(tag) == repository }); i >= 0 {
		return found.RepoTags[i], nil
	}
	name := fmt.Sprintf("%s:snap-%.12s", repository, strings.TrimPrefix(found.ID, "sha256:"))
	return name, Failed(e.API.ImageTag(ctx, found.ID, name), "name image %s %s", found.ID, name)
}

func withDigest(ref, digest string) string {
	if ref == "" || digest == "" || strings.Contains(ref, "@") {
		return ""
	}
	return ref + "@" + digest
}

// repositoryOf returns a reference without its tag and digest.
func repositoryOf(ref string) string {
	repository, _, _ := strings.Cut(ref, "@")
	if i := strings.LastIndexByte(repository, ':'); i > strings.LastIndexByte(repository, '/') {
		repository = repository[:i]
	}
	return repository
}

// Image returns the image of a reference or an id; nothing when this host has none.
func (e *Engine) Image(ctx context.Context, ref string) (image.InspectResponse, error) {
	var raw bytes.Buffer
	found, err := e.API.ImageInspect(ctx, ref, client.ImageInspectWithRawResponse(&raw))
	if errdefs.IsNotFound(err) {
		return image.InspectResponse{}, nil
	}
	if err != nil {
		return found, Failed(err, "inspect image %s", ref)
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

// DigestOf chooses the digest of ref's repository, where there is one.
func DigestOf(ref string, digests []string) string {
	if len(digests) == 0 {
		return "" // the image was never in a registry
	}
	repository := repositoryOf(ref)
	i := slices.IndexFunc(digests, func(d string) bool { return strings.HasPrefix(d, repository+"@") })
	return digests[max(i, 0)]
}

// CheckPin returns nil when the pinned image, or else that of ref, is on this host.
func (e *Engine) CheckPin(ctx context.Context, pin runtime.Pin, ref string) error {
	found, err := e.Image(ctx, cmp.Or(pin.ImageID, ref))
	if err != nil || found.ID != "" {
		return err
	}
	return MissingImage(pin, ref)
}

// MissingImage is the error for a pinned image, or else that of ref, which is not on
// this host.
func MissingImage(pin runtime.Pin, ref string) error {
	if pin.ImageID == "" {
		return &runtime.MissingImage{Image: ref, Pull: ref}
	}
	return &runtime.MissingImage{Image: pin.Image, ImageID: pin.ImageID, Pull: pin.Digest}
}

// Pull fetches an image as a user who is not logged in.
func (e *Engine) Pull(ctx context.Context, ref string) error {
	body, err := e.API.ImagePull(ctx, ref, image.PullOptions{})
	if err == nil {
		defer body.Close()
		err = lastError(body)
	}
	if err != nil {
		return fmt.Errorf("%w: if the registry wants a login, run: docker pull %s", Failed(err, "pull image %s", ref), ref)
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
