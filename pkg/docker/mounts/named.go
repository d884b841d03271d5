package mounts

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/volume"

	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// kept is where and how the engine keeps a named volume.
type kept struct {
	root, rel string
	absent    bool
	device    string // driver local, with o=bind: the directory that it really is
	readOnly  bool
	memory    bool
}

// why says why there is nothing to capture, "" where there is.
func (k kept) why() string {
	switch {
	case k.memory:
		return Memory
	case k.readOnly:
		return ReadOnly
	}
	return ""
}

// volume is a named volume with its place.
func (k kept) volume(v workload.Volume) runtime.Volume {
	found := runtime.Volume{Volume: v.At(k.root, k.rel), Engine: v.Source, Absent: k.absent}
	if k.device != "" {
		found.Scope, found.Source, found.Absent = workload.Absolute, k.device, false
	}
	return found
}

func unsupported(name, why string) error {
	return &runtime.Unsupported{Err: fmt.Errorf("volume %s: %s", name, why)}
}

// kept asks the engine for a named volume. Of one that the engine does not have,
// model tells what it will be.
func (s *survey) kept(ctx context.Context, name string, model *Volume) (kept, error) {
	v, err := s.api.VolumeInspect(ctx, name)
	k := kept{absent: errdefs.IsNotFound(err)}
	switch {
	case k.absent && model != nil:
		v = volume.Volume{Driver: model.Driver, Options: model.Options}
	case k.absent:
		v = volume.Volume{}
	case err != nil:
		return k, fmt.Errorf("inspect volume %s: %w", name, err)
	}
	if v.Driver != "" && v.Driver != "local" {
		return k, unsupported(name, fmt.Sprintf("the plug-in %s keeps its data, and snap can exchange only directories of this host", v.Driver))
	}
	// The options are those of mount(8), and may hold a password: they are not printed.
	options := strings.Split(v.Options["o"], ",")
	kind, device := v.Options["type"], v.Options["device"]
	switch {
	case kind == "tmpfs":
		k.memory = true
		return k, nil
	case slices.Contains(options, "bind") || slices.Contains(options, "rbind"):
		if !filepath.IsAbs(device) {
			return k, unsupported(name, fmt.Sprintf("its device %q is not an absolute path", device))
		}
		k.device, k.readOnly = filepath.Clean(device), slices.Contains(options, "ro")
		return k, nil
	case kind != "" && kind != "none" || device != "":
		return k, unsupported(name, fmt.Sprintf("it is a mount of type %s, and snap can exchange only directories on a disk of this host", kind))
	}
	err = s.place(name, v.Mountpoint, &k)
	return k, err
}

// place takes the directory of a volume from the engine's own word, and believes
// nothing but the one place below the engine's root where the driver local keeps a
// volume of that name. The folder of all volumes may be a symbolic link, or on
// another disk; that is the operator's doing.
func (s *survey) place(name, mountpoint string, k *kept) error {
	folder := filepath.Join(s.stated, "volumes")
	if want := filepath.Join(folder, name, "_data"); !k.absent && mountpoint != want {
		return unsupported(name, fmt.Sprintf("the engine says that it is %s, which is not %s", mountpoint, want))
	}
	real, err := filepath.EvalSymlinks(folder)
	if err != nil {
		return unsupported(name, fmt.Sprintf("the engine keeps its volumes in %s, which is not a directory of this host: %v", folder, err))
	}
	if k.root, k.rel = filepath.Join(real, name), "_data"; k.absent {
		k.root, k.rel = real, filepath.Join(name, "_data")
	}
	return nil
}

// placed are the volumes that the config lists, the named ones where the engine keeps
// them.
func (s *survey) placed(ctx context.Context) ([]runtime.Volume, error) {
	var list []runtime.Volume
	var errs []error
	for _, v := range s.w.Volumes {
		if v.Scope != workload.Named {
			list = append(list, runtime.Volume{Volume: v})
			continue
		}
		if err := s.needRoot(v.Name); err != nil {
			return nil, err
		}
		model := s.model(v.Source)
		k, err := s.kept(ctx, v.Source, model)
		if err == nil && k.why() != "" {
			err = unsupported(v.Name, "it is "+k.why())
		}
		var unfit *runtime.Unsupported
		if errors.As(err, &unfit) {
			unfit.Hint = "take it out of `volumes` in the config"
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found := k.volume(v)
		found.External = model != nil && model.External
		list = append(list, found)
	}
	return list, errors.Join(errs...)
}

// model is the named volume that the engine has under this name, as the Compose file
// describes it.
func (s *survey) model(name string) *Volume {
	for _, v := range s.p.Volumes {
		if v.Name == name {
			return &v
		}
	}
	return nil
}
