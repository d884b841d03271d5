package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"

	"github.com/tiny-forge/snap/pkg/runtime"
)

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
// where there are several, and "" for an image that never met a registry.
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

// lastError reads the engine's progress to its end, where errors are found.
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
