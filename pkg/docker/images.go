package docker

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// choose returns the image on which a container comes up. ran is what it runs on, ref
// what the config names now, and taken what it ran on when the snapshot was taken.
func (e *engine) choose(ctx context.Context, want runtime.Want, ran runtime.Pin, ref string, taken runtime.Pin) (runtime.Pin, error) {
	byID := strings.HasPrefix(ran.Image, "sha256:")
	switch {
	case want.Image == runtime.ImageSnapshot && taken.ImageID != "":
		for _, name := range []string{taken.ImageID, taken.Digest} {
			if name == "" {
				continue
			}
			found, err := e.image(ctx, name)
			if err != nil {
				return taken, err
			}
			if found.ID != "" {
				return runtime.Pin{Image: taken.Image, ImageID: found.ID, Digest: taken.Digest}, nil
			}
		}
		return taken, missingImage(taken, ref)
	case want.Image == runtime.ImageConfig, want.Image != runtime.ImageSnapshot && ran.Image != ref && !byID:
		found, err := e.image(ctx, ref)
		if err == nil && found.ID == "" {
			err = missingImage(runtime.Pin{}, ref)
		}
		return runtime.Pin{Image: ref, ImageID: found.ID, Digest: digestOf(ref, found.RepoDigests)}, err
	case byID:
		ran.Image = ref
	}
	return ran, nil
}

// named returns a reference that means the pinned image, so that a list of containers
// shows a name: the configured one where it still does, or that which the image had,
// or that with its digest. An image that has lost all its names gets a new one of
// snap's. No name that an operator gave is moved to another image.
func (e *engine) named(ctx context.Context, pin runtime.Pin, ref string) (string, error) {
	_, digest, _ := strings.Cut(pin.Digest, "@")
	for _, name := range []string{ref, pin.Image, withDigest(pin.Image, digest), pin.Digest} {
		if name == "" || strings.HasPrefix(name, "sha256:") {
			continue
		}
		found, err := e.image(ctx, name)
		if err != nil {
			return "", err
		}
		if found.ID == pin.ImageID {
			return name, nil
		}
	}
	found, err := e.image(ctx, pin.ImageID)
	if err != nil {
		return "", err
	}
	if found.ID == "" {
		return "", missingImage(pin, ref)
	}
	repository := repositoryOf(ref)
	if i := slices.IndexFunc(found.RepoTags, func(tag string) bool { return repositoryOf(tag) == repository }); i >= 0 {
		return found.RepoTags[i], nil
	}
	name := fmt.Sprintf("%s:snap-%.12s", repository, strings.TrimPrefix(found.ID, "sha256:"))
	return name, failed(e.api.ImageTag(ctx, found.ID, name), "name image %s %s", found.ID, name)
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
