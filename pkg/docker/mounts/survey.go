package mounts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/client"

	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// survey collects the mounts of a project.
type survey struct {
	api    *client.Client
	w      *workload.Workload
	p      *Project
	root   string // the engine's own folder as it really is, "" where no engine answers
	stated string // the same as the engine says it
	noRoot error  // why it is not known

	volumes  []runtime.Volume
	found    map[string]int          // path, or "volume" and its key → its number in volumes
	left     map[string]runtime.Left // by what
	excluded map[string]bool         // the entries of exclude that are mounts
	alone    []string                // all names of what exclude leaves alone
	refused  map[string]error        // by their keys: volumes that are neither captured nor left out
	made     map[string]bool         // the services that have containers
}

// findRoot asks where the engine keeps its own files. Directories can do without the
// answer; needRoot is for those who cannot.
func (s *survey) findRoot(ctx context.Context) {
	// Something may listen on the socket that never answers.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	info, err := s.api.Info(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", runtime.ErrUnreachable, err)
	}
	if err != nil {
		s.noRoot = fmt.Errorf("ask the engine at %s where it keeps volumes: %w", s.api.DaemonHost(), err)
		return
	}
	if !filepath.IsAbs(info.DockerRootDir) {
		s.noRoot = fmt.Errorf("the engine at %s says that its root is %q", s.api.DaemonHost(), info.DockerRootDir)
		return
	}
	s.stated = filepath.Clean(info.DockerRootDir)
	s.root = RealPath(s.stated)
}

func (s *survey) needRoot(volume string) error {
	if s.noRoot == nil {
		return nil
	}
	return fmt.Errorf("volume %s: %w", volume, s.noRoot)
}

// add takes one mount of a service.
func (s *survey) add(ctx context.Context, service string, m Mount) error {
	switch m.Type {
	case "volume":
		return s.addNamed(ctx, service, m)
	case "bind":
		source := filepath.Clean(m.Source)
		why, lost, err := s.binds(source, m.ReadOnly)
		if err != nil {
			return fmt.Errorf("service %s: %w", service, err)
		}
		if why != "" {
			s.leave(source, why, lost)
			return nil
		}
		s.take(source, runtime.Volume{Volume: workload.Volume{Name: source, Scope: workload.Absolute, Source: source, Target: m.Target}})
	case "tmpfs":
		s.leave(m.Target+in(service), Memory, false)
	default:
		s.leave(m.Target+in(service), Foreign, false)
	}
	return nil
}

// binds says why a bind mount is not a volume, "" where it is, and whether data is
// lost with it.
func (s *survey) binds(source string, readOnly bool) (why string, lost bool, err error) {
	if s.excludes(source) {
		return Excluded, false, nil
	}
	if readOnly {
		return ReadOnly, false, nil
	}
	info, err := os.Stat(source)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist): // Compose makes a missing directory
		return "", false, fmt.Errorf("bind mount %s: %w", source, err)
	case err == nil && info.Mode()&fs.ModeSocket != 0:
		return Socket, false, nil
	case err == nil && info.Mode()&fs.ModeDevice != 0:
		return Device, false, nil
	case workload.SystemDirectory(source, s.root, s.stated) != "" || workload.SystemDirectory(RealPath(source), s.root) != "":
		// A folder of its own there may hold what the app writes: /etc/letsencrypt.
		own := workload.Contains("/etc", filepath.Dir(source)) || workload.Contains("/usr/local", filepath.Dir(source))
		return System, own && (err != nil || info.IsDir()), nil
	case err == nil && !info.IsDir() && !info.Mode().IsRegular():
		return Pipe, false, nil
	}
	return "", false, nil
}

func (s *survey) addNamed(ctx context.Context, service string, m Mount) error {
	if m.Source == "" {
		s.leave(m.Target+in(service), Anonymous, true)
		return nil
	}
	model, ok := s.p.Volumes[m.Source]
	if !ok {
		model = Volume{Name: m.Source}
	}
	what := "volume " + m.Source
	switch {
	case s.excludes(m.Source, model.Name):
		s.leave(what, Excluded, false)
		return nil
	case m.ReadOnly:
		s.leave(what, ReadOnly, false)
		return nil
	case s.noRoot != nil:
		return s.needRoot(m.Source)
	}
	if i, twice := s.found[what]; twice {
		s.volumes[i].Fills = s.volumes[i].Fills || named(s.volumes[i]) && !m.Volume.NoCopy
		return nil
	}
	k, err := s.kept(ctx, model.Name, &model)
	var unfit *runtime.Unsupported
	switch {
	case errors.As(err, &unfit):
		s.refuse(m.Source, model.Name, unfit)
		return nil
	case err != nil:
		return err
	case k.why() != "":
		s.leave(what, k.why(), false)
		return nil
	}
	v := k.volume(workload.Volume{Name: model.Name, Alias: m.Source, Scope: workload.Named, Source: model.Name, Target: m.Target})
	v.External, v.Fills = model.External, named(v) && !m.Volume.NoCopy
	if !named(v) {
		v.Name = v.Source
		why, lost, err := s.binds(v.Source, false)
		if err != nil {
			return fmt.Errorf("volume %s: %w", m.Source, err)
		}
		if why != "" {
			s.leave(what+" ("+v.Source+")", why, lost)
			return nil
		}
		if i, twice := s.found[v.Source]; twice {
			s.found[what] = i
			return nil
		}
		s.take(v.Source, v)
	}
	s.take(what, v)
	return nil
}

func named(v runtime.Volume) bool { return v.Scope == workload.Named }

// take adds a volume, once.
func (s *survey) take(what string, v runtime.Volume) {
	if _, twice := s.found[what]; twice {
		return
	}
	if i := slices.IndexFunc(s.volumes, func(o runtime.Volume) bool { return o.Name == v.Name }); i >= 0 {
		s.found[what] = i
		return
	}
	s.found[what] = len(s.volumes)
	s.volumes = append(s.volumes, v)
}

func (s *survey) leave(what, why string, lost bool) {
	if _, twice := s.left[what]; !twice {
		s.left[what] = runtime.Left{What: what, Why: why, Lost: lost}
	}
}

// refuse notes a volume that snap can neither capture nor leave out in silence. One
// that the config does not list is left out.
func (s *survey) refuse(key, name string, err *runtime.Unsupported) {
	if len(s.w.Volumes) > 0 && !s.lists(runtime.Volume{Volume: workload.Volume{Scope: workload.Named}, Engine: name}) {
		s.leave("volume "+key, Unlisted, true)
		return
	}
	s.refused[key] = err
}

// excludes reports whether the config leaves a volume alone that has these names.
func (s *survey) excludes(names ...string) bool {
	yes := false
	for _, name := range names {
		if s.w.Excludes(name) {
			yes, s.excluded[name] = true, true
		}
	}
	if yes {
		s.alone = append(s.alone, names...)
	}
	return yes
}

// lists reports whether the config lists the volume, or a directory that it is in.
func (s *survey) lists(v runtime.Volume) bool {
	return slices.ContainsFunc(s.w.Volumes, func(o workload.Volume) bool {
		if o.Scope == workload.Named {
			return o.Source == v.Engine
		}
		return !named(v) && (workload.Contains(o.Path(), v.Source) || workload.Contains(RealPath(o.Path()), RealPath(v.Source)))
	})
}

// addUndescribed adds what containers mount although no service of the Compose file
// says so: volumes that an image declares, those of another container
// (volumes_from), and those from before the file was changed.
func (s *survey) addUndescribed(ctx context.Context, own []Container) error {
	for _, c := range own {
		s.made[c.Service] = true
	}
	for _, name := range slices.Sorted(maps.Keys(s.p.Services)) {
		if s.made[name] {
			continue // what it mounts, it says itself
		}
		image, err := s.api.ImageInspect(ctx, s.p.Services[name].Image)
		switch {
		case errdefs.IsNotFound(err) || err == nil && image.Config == nil:
			continue
		case err != nil:
			return fmt.Errorf("inspect image %s: %w", s.p.Services[name].Image, err)
		}
		service := s.p.Services[name]
		for _, target := range slices.Sorted(maps.Keys(image.Config.Volumes)) {
			if !service.mountsAt(target) {
				s.leave(target+in(name), Anonymous, true)
			}
		}
	}
	for _, c := range own {
		service := s.p.Services[c.Service]
		for _, m := range c.Mounts {
			switch {
			case !m.RW || service.mountsAt(m.Destination):
			case m.Type == mount.TypeVolume && madeUp(m.Name):
				s.leave(m.Destination+in(c.Service), Anonymous, true)
			case m.Type == mount.TypeVolume && !s.knowsName(m.Name), m.Type == mount.TypeBind && !s.knowsPath(m.Source):
				s.leave(m.Destination+in(c.Service), Unknown, true)
			}
		}
	}
	return nil
}

// in says which service has something; the container of an image workload is of none.
func in(service string) string {
	if service == "" {
		return ""
	}
	return " of service " + service
}

// madeUp reports whether the engine made the name of a volume up.
func madeUp(name string) bool {
	return len(name) == 64 && strings.Trim(name, "0123456789abcdef") == ""
}

func (s *survey) knowsName(name string) bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(s.p.Volumes)), func(v Volume) bool { return v.Name == name })
}

func (s *survey) knowsPath(path string) bool {
	_, left := s.left[filepath.Clean(path)]
	return left || slices.ContainsFunc(s.volumes, func(v runtime.Volume) bool { return !named(v) && workload.Contains(v.Source, path) })
}

// mountsAt reports whether the Compose file says what a service has at a path.
func (s Service) mountsAt(target string) bool {
	return slices.ContainsFunc(s.Mounts, func(m Mount) bool { return filepath.Clean(m.Target) == filepath.Clean(target) }) ||
		slices.ContainsFunc(s.Tmpfs, func(t string) bool {
			path, _, _ := strings.Cut(t, ":")
			return filepath.Clean(path) == filepath.Clean(target)
		})
}

// all is the result where the config lists no volumes: all that were found, without
// those that lie in another.
func (s *survey) all() (*runtime.Mounts, error) {
	m := &runtime.Mounts{Root: s.root, Excluded: s.alone}
	var inside []runtime.Left
	// Sorted, so that a directory comes before what lies in it.
	slices.SortFunc(s.volumes, func(x, y runtime.Volume) int { return strings.Compare(x.Source, y.Source) })
	for _, v := range s.volumes {
		v.Unmade = s.unmade(v)
		around := slices.IndexFunc(m.Volumes, func(o runtime.Volume) bool { return !named(o) && !named(v) && workload.Contains(o.Source, v.Source) })
		if around < 0 {
			m.Volumes = append(m.Volumes, v)
			continue
		}
		inside = append(inside, runtime.Left{What: v.Source, Why: "part of volume " + m.Volumes[around].Source})
	}
	m.Left = append(s.leftOut(), inside...)
	for _, name := range s.w.Exclude {
		if !s.excluded[name] {
			m.Left = append(m.Left, runtime.Left{What: name, Why: "exclude in the config names it, and no service mounts it"})
		}
	}
	return m, s.refusal()
}

// unmade reports whether nothing has made a volume yet: see [runtime.Volume].
func (s *survey) unmade(v runtime.Volume) bool {
	if !named(v) {
		if _, err := os.Lstat(v.Source); !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	if len(s.made) == 0 || v.External || named(v) && !v.Absent {
		return false
	}
	for name, service := range s.p.Services {
		if s.made[name] && slices.ContainsFunc(service.Mounts, func(m Mount) bool {
			return v.Alias != "" && m.Source == v.Alias || filepath.Clean(m.Source) == v.Source
		}) {
			return false
		}
	}
	return true
}

// refusal is one error for all volumes that are refused, with one way out.
func (s *survey) refusal() error {
	if len(s.refused) == 0 {
		return nil
	}
	var errs []error
	keys := slices.Sorted(maps.Keys(s.refused))
	for _, key := range keys {
		errs = append(errs, s.refused[key])
	}
	return &runtime.Unsupported{
		Err:  errors.Join(errs...),
		Hint: fmt.Sprintf("leave alone what snap cannot exchange: write `exclude: [%s]` for workload %s into the config", strings.Join(keys, ", "), s.w.Name),
	}
}

// beside is the result where the config lists the volumes: what else the services
// write to is lost.
func (s *survey) beside(ctx context.Context) (*runtime.Mounts, error) {
	volumes, err := s.placed(ctx)
	if err != nil {
		return nil, err
	}
	m := &runtime.Mounts{Volumes: volumes, Root: s.root, Left: s.leftOut()}
	for _, v := range s.volumes {
		if !s.lists(v) {
			m.Left = append(m.Left, runtime.Left{What: shown(v), Why: Unlisted, Lost: true})
		}
	}
	return m, nil
}

// leftOut is what is left out, without what another service has as a volume.
func (s *survey) leftOut() (list []runtime.Left) {
	for _, what := range slices.Sorted(maps.Keys(s.left)) {
		if _, taken := s.found[what]; !taken {
			list = append(list, s.left[what])
		}
	}
	return list
}

func shown(v runtime.Volume) string {
	if v.Alias != "" {
		return "volume " + v.Alias
	}
	return v.Source
}
