// Package mounts finds out what the containers of a workload mount: which of it snap
// captures, where the engine keeps the named volumes among it, and what is left out.
//
// [Find] asks the engine and changes nothing. [Make] and [Unmake] have the engine make
// and remove a named volume; each may be repeated, also by another process.
//
// The engine is believed only where it names, as the directory of a volume, the one
// place below its own root at which the driver local keeps a volume of that name.
package mounts

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"

	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Why a mount is left out. Mounts with the same reason are told together.
const (
	ReadOnly  = "mounted read-only"
	Memory    = "in memory: tmpfs"
	Socket    = "a socket"
	Device    = "a device"
	Pipe      = "a fifo"
	System    = "a directory of the system"
	Foreign   = "not a directory of this host"
	Excluded  = "left alone: exclude in the config"
	Unlisted  = "not among the volumes that the config lists"
	Unknown   = "mounted by a container, and not in the Compose file"
	Anonymous = "an anonymous volume: kept when its container starts again, lost when the container is removed"
)

// labelTx is the label of a named volume that a restore made: its transaction.
const labelTx = "snap.tx"

// Project is what containers mount as a Compose file says it, with all names resolved.
type Project struct {
	Services map[string]Service
	Volumes  map[string]Volume // by their keys in the file
}

// Service is one service of a project. That of an image workload has the name "".
type Service struct {
	Image  string
	Mounts []Mount
	Tmpfs  []string
}

// Mount is one mount of a service.
type Mount struct {
	Type     string `json:"type"`
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only"`
	Volume   struct {
		NoCopy bool `json:"nocopy"`
	} `json:"volume"`
}

// Volume is a named volume as the Compose file describes it.
type Volume struct {
	Name     string            `json:"name"`
	External bool              `json:"external"`
	Driver   string            `json:"driver"`
	Options  map[string]string `json:"driver_opts"`
	Labels   map[string]string `json:"labels"`
}

// Container is a container of a service as the engine has it.
type Container struct {
	Service string
	Mounts  []container.MountPoint
}

// Find returns what the containers of a workload mount. p is their own description, own
// returns the containers that exist; nil means that there are none. Neither the engine
// nor own is asked in vain: where no engine answers, only named volumes are an error.
func Find(ctx context.Context, api *client.Client, w *workload.Workload, p *Project, own func(context.Context) ([]Container, error)) (*runtime.Mounts, error) {
	s := &survey{api: api, w: w, p: p, found: map[string]int{}, left: map[string]runtime.Left{}, excluded: map[string]bool{}, refused: map[string]error{}, made: map[string]bool{}}
	s.findRoot(ctx)
	if w.Kind() == workload.Compose {
		for _, name := range slices.Sorted(maps.Keys(p.Services)) {
			for _, m := range p.Services[name].Mounts {
				if err := s.add(ctx, name, m); err != nil {
					return nil, err
				}
			}
		}
	}
	if s.noRoot == nil && own != nil {
		containers, err := own(ctx)
		if err != nil {
			return nil, err
		}
		if err := s.addUndescribed(ctx, containers); err != nil {
			return nil, err
		}
	}
	if len(w.Volumes) > 0 || w.Kind() != workload.Compose {
		return s.beside(ctx)
	}
	return s.all()
}

// Make has the engine make a named volume that it does not have, and notes the
// transaction in it.
func Make(ctx context.Context, api *client.Client, want volume.CreateOptions, tx string) error {
	labels := map[string]string{labelTx: tx}
	maps.Copy(labels, want.Labels)
	want.Labels = labels
	made, err := api.VolumeCreate(ctx, want)
	if err != nil {
		return fmt.Errorf("create volume %s: %w", want.Name, err)
	}
	// The engine also returns a volume that it had already.
	if made.Labels[labelTx] != tx {
		return fmt.Errorf("create volume %s: somebody else has made it just now", want.Name)
	}
	return nil
}

// Unmake removes a volume that Make made for this transaction, unless a container has
// it or something is in it by now.
func Unmake(ctx context.Context, api *client.Client, name, tx string) error {
	v, err := api.VolumeInspect(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("inspect volume %s: %w", name, err)
	}
	if v.Labels[labelTx] != tx {
		return nil
	}
	if files, err := os.ReadDir(v.Mountpoint); err != nil || len(files) > 0 {
		return err
	}
	// Without force the engine refuses where a container has the volume.
	if err := api.VolumeRemove(ctx, name, false); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	return nil
}

// RealPath resolves the symbolic links of a path as far as it exists.
func RealPath(path string) string {
	for dir, rest := path, ""; ; dir, rest = filepath.Dir(dir), filepath.Join(filepath.Base(dir), rest) {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(real, rest)
		}
		if dir == "/" {
			return path
		}
	}
}
