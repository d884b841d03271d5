package docker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"

	"github.com/tiny-forge/snap/pkg/docker/engine"
	"github.com/tiny-forge/snap/pkg/docker/mounts"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Users does not count the containers of also_stop. For a workload of data alone on a host without an engine there are no users.
func (r *Runtime) Users(ctx context.Context, paths []string) ([]runtime.User, error) {
	if r.w.Kind() == workload.Data {
		if _, err := os.Stat(strings.TrimPrefix(r.e.API.DaemonHost(), "unix://")); errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
	}
	containers, err := r.inspectAll(ctx)
	if err != nil {
		return nil, err
	}
	all, err := r.e.API.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return nil, engine.Failed(err, "list containers")
	}
	devices, err := r.e.VolumeDevices(ctx)
	if err != nil {
		return nil, err
	}
	wanted := make([]location, len(paths))
	for i, path := range paths {
		wanted[i] = locate(path)
	}
	var users []runtime.User
	for _, c := range all {
		if engine.ByID(containers, c.ID) != nil {
			continue
		}
		for _, source := range sources(c, devices) {
			at := locate(source.path)
			for i, path := range paths {
				if rel := relation(at, wanted[i]); rel != "" {
					running := c.State == container.StateRunning || c.State == container.StatePaused || c.State == container.StateRestarting
					_, release := manager(c.Labels)
					users = append(users, runtime.User{Name: engine.NameOf(c), Running: running, Source: source.path, Path: path, Relation: rel, ReadOnly: source.readOnly, Release: release})
				}
			}
		}
	}
	slices.SortStableFunc(users, func(a, b runtime.User) int { return strings.Compare(a.Name, b.Name) })
	return users, nil
}

// source is a host path that a container mounts.
type source struct {
	path     string
	readOnly bool
}

func sources(c container.Summary, devices map[string]string) []source {
	var out []source
	for _, m := range c.Mounts {
		if device, ok := devices[m.Name]; ok && m.Type == mount.TypeVolume {
			out = append(out, source{device, !m.RW})
		} else if filepath.IsAbs(m.Source) {
			out = append(out, source{filepath.Clean(m.Source), !m.RW})
		}
	}
	return out
}

// location is a path as written and as resolved, with the directories on the way
// to it: the path itself first (nil if it does not exist), then its parents.
type location struct {
	written, real string
	way           []os.FileInfo
}

func locate(path string) location {
	p := location{written: filepath.Clean(path)}
	p.real = mounts.RealPath(p.written)
	// Without the root: everything lies below it, and comparing prefixes tells so.
	for dir := p.real; dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil || dir == p.real {
			p.way = append(p.way, info)
		}
	}
	return p
}

// relation says how a mount's source relates to a volume; "" is not at all. Paths
// are compared as written, as resolved, and by inode: by a bind mount of the host
// the same directory may have two names.
func relation(source, path location) runtime.Relation {
	for _, s := range []string{source.written, source.real} {
		for _, p := range []string{path.written, path.real} {
			switch {
			case s == p:
				return runtime.Same
			case workload.Contains(p, s):
				return runtime.Inside
			case workload.Contains(s, p):
				return runtime.Above
			}
		}
	}
	switch {
	case len(source.way) == 0 || len(path.way) == 0:
	case os.SameFile(source.way[0], path.way[0]):
		return runtime.Same
	case through(source.way, path.way[0]):
		return runtime.Inside
	case through(path.way, source.way[0]):
		return runtime.Above
	}
	return ""
}

// through reports whether the way to a location leads through dir.
func through(way []os.FileInfo, dir os.FileInfo) bool {
	return dir != nil && slices.ContainsFunc(way, func(step os.FileInfo) bool { return os.SameFile(step, dir) })
}
