package docker

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/volume"

	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Users returns everybody else's containers that mount one of the paths,
// something inside one, or something above one. Those of also_stop do not
// count, nor do the workload's own; a container of docker compose run does.
// Where a workload of data alone finds no engine at all on the host, nobody
// uses anything.
func (r *Runtime) Users(ctx context.Context, paths []string) ([]runtime.User, error) {
	if r.w.Kind() == workload.Data && r.e.socketMissing() {
		return nil, nil
	}
	boxes, err := r.boxes(ctx)
	if err != nil {
		return nil, err
	}
	all, err := r.e.api.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return nil, failed(err, "list containers")
	}
	devices, err := r.e.volumeDevices(ctx)
	if err != nil {
		return nil, err
	}
	wanted := make([]place, len(paths))
	for i, path := range paths {
		wanted[i] = placeOf(path)
	}
	var users []runtime.User
	for _, c := range all {
		if slices.ContainsFunc(boxes, func(b *box) bool { return b.ID == c.ID }) {
			continue
		}
		for _, source := range sources(c, devices) {
			at := placeOf(source)
			for i, path := range paths {
				if rel := relation(at, wanted[i]); rel != "" {
					running := c.State == container.StateRunning || c.State == container.StatePaused || c.State == container.StateRestarting
					users = append(users, runtime.User{ID: c.ID, Name: nameOf(c), Running: running, Source: source, Path: path, Relation: rel})
				}
			}
		}
	}
	slices.SortStableFunc(users, func(a, b runtime.User) int { return strings.Compare(a.Name, b.Name) })
	return users, nil
}

// volumeDevices returns the directories behind the named volumes that are bind
// mounts in disguise (driver local, with a device).
func (e *engine) volumeDevices(ctx context.Context) (map[string]string, error) {
	found, err := e.api.VolumeList(ctx, volume.ListOptions{})
	if err != nil {
		return nil, failed(err, "list volumes")
	}
	devices := map[string]string{}
	for _, v := range found.Volumes {
		if device := v.Options["device"]; v.Driver == "local" && filepath.IsAbs(device) {
			devices[v.Name] = device
		}
	}
	return devices, nil
}

// sources are the host paths that a container mounts.
func sources(c container.Summary, devices map[string]string) []string {
	var out []string
	for _, m := range c.Mounts {
		if device, ok := devices[m.Name]; ok && m.Type == mount.TypeVolume {
			out = append(out, device)
		} else if filepath.IsAbs(m.Source) {
			out = append(out, filepath.Clean(m.Source))
		}
	}
	return out
}

// place is a path as it is written and as it is, and the directories on the
// way to it, itself last.
type place struct {
	written, real string
	way           []os.FileInfo
}

func placeOf(path string) place {
	p := place{written: filepath.Clean(path)}
	p.real = realPath(p.written)
	// The root is left out: everything lies below it, and prefixes tell that.
	for dir := p.real; dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil {
			p.way = append(p.way, info)
		} else if dir == p.real {
			p.way = append(p.way, nil)
		}
	}
	return p
}

// realPath resolves the symbolic links of a path as far as it exists.
func realPath(path string) string {
	for dir, rest := path, ""; ; dir, rest = filepath.Dir(dir), filepath.Join(filepath.Base(dir), rest) {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(real, rest)
		}
		if dir == "/" {
			return path
		}
	}
}

// relation says how a mount's source lies to a volume; "" is not at all. Paths
// are compared as written and as resolved, and by what they are: the same
// directory may have two names by a bind mount of the host.
func relation(source, path place) runtime.Relation {
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
		return ""
	case os.SameFile(source.way[0], path.way[0]):
		return runtime.Same
	case through(source.way, path.way[0]):
		return runtime.Inside
	case through(path.way, source.way[0]):
		return runtime.Above
	}
	return ""
}

// through reports whether the way to a place leads through dir.
func through(way []os.FileInfo, dir os.FileInfo) bool {
	return dir != nil && slices.ContainsFunc(way, func(step os.FileInfo) bool { return os.SameFile(step, dir) })
}
