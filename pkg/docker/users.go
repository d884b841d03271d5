package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/volume"

	"github.com/tiny-forge/snap/pkg/docker/mounts"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Users does not count the containers of also_stop. For a workload of data alone on a host without an engine there are no users.
func (r *Runtime) Users(ctx context.Context, paths []string) ([]runtime.User, error) {
	if r.w.Kind() == workload.Data {
		if _, err := os.Stat(strings.TrimPrefix(r.e.api.DaemonHost(), "unix://")); errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
	}
	containers, err := r.inspectAll(ctx)
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
	wanted := make([]location, len(paths))
	for i, path := range paths {
		wanted[i] = locate(path)
	}
	var users []runtime.User
	for _, c := range all {
		if byID(containers, c.ID) != nil {
			continue
		}
		for _, source := range sources(c, devices) {
			at := locate(source)
			for i, path := range paths {
				if rel := relation(at, wanted[i]); rel != "" {
					running := c.State == container.StateRunning || c.State == container.StatePaused || c.State == container.StateRestarting
					_, release := manager(c.Labels)
					users = append(users, runtime.User{Name: nameOf(c), Running: running, Source: source, Path: path, Relation: rel, Release: release})
				}
			}
		}
	}
	slices.SortStableFunc(users, func(a, b runtime.User) int { return strings.Compare(a.Name, b.Name) })
	return users, nil
}

// volumeDevices returns the directories of those named volumes that are really
// bind mounts (driver local, with a device).
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

// port is one published port of the host, as docker compose config shows it.
type port struct {
	Address  string `json:"host_ip"`   // "": every one
	Number   string `json:"published"` // "", "0" or a range: the engine chooses
	Protocol string `json:"protocol"`
}

func (p port) String() string { return net.JoinHostPort(p.Address, p.Number) + "/" + p.Protocol }

// meets reports whether two ports cannot be published at once.
func (p port) meets(o port) bool {
	return p.Number == o.Number && p.Protocol == o.Protocol &&
		(p.Address == o.Address || everyAddress(p.Address) || everyAddress(o.Address))
}

func everyAddress(address string) bool { return address == "" || net.ParseIP(address).IsUnspecified() }

// checkPorts returns runtime.ErrPortTaken for each port that a foreign container
// or a process of this host has. A port that the engine chooses cannot be taken.
func (e *engine) checkPorts(ctx context.Context, ports []port, own []*inspected) error {
	ports = slices.DeleteFunc(ports, func(p port) bool {
		n, err := strconv.ParseUint(p.Number, 10, 16)
		return err != nil || n == 0
	})
	if len(ports) == 0 {
		return nil
	}
	running, err := e.api.ContainerList(ctx, container.ListOptions{})
	if err != nil {
		return failed(err, "list containers")
	}
	var errs []error
	for _, p := range ports {
		errs = append(errs, checkPort(p, running, own))
	}
	return errors.Join(errs...)
}

func checkPort(p port, running []container.Summary, own []*inspected) error {
	ours := false
	for _, summary := range running {
		for _, cp := range summary.Ports {
			if !p.meets(port{cp.IP, fmt.Sprint(cp.PublicPort), cp.Type}) {
				continue
			}
			if byID(own, summary.ID) == nil {
				return fmt.Errorf("port %s: %w: container %s publishes it", p, runtime.ErrPortTaken, nameOf(summary))
			}
			ours = true
		}
	}
	if ours {
		return nil
	}
	switch err := tryBind(p); {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("port %s: %w: a process of this host listens on it", p, runtime.ErrPortTaken)
	case errors.Is(err, syscall.EACCES):
		return nil // low ports are for root; the engine is root
	case err != nil:
		return fmt.Errorf("port %s cannot be published: %w", p, err)
	}
	return nil
}

func tryBind(p port) error {
	var l io.Closer
	var err error
	switch at := net.JoinHostPort(p.Address, p.Number); p.Protocol {
	case "tcp":
		l, err = net.Listen("tcp", at)
	case "udp":
		l, err = net.ListenPacket("udp", at)
	default:
		return nil
	}
	if err != nil {
		return err
	}
	return l.Close()
}

func nameOf(c container.Summary) string {
	if len(c.Names) == 0 {
		return c.ID
	}
	return c.Names[0][1:]
}
