package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"

	"github.com/docker/docker/api/types/volume"

	"github.com/tiny-forge/snap/pkg/compose"
	"github.com/tiny-forge/snap/pkg/docker/engine"
	"github.com/tiny-forge/snap/pkg/docker/mounts"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// The labels that docker compose gives a named volume, beside that of the project.
const (
	composeVolume  = "com.docker.compose.volume"
	composeVersion = "com.docker.compose.version"
)

// Volumes returns what the containers mount: see [runtime.Runtime].
func (r *Runtime) Volumes(ctx context.Context) (*runtime.Mounts, error) {
	return r.app.mounts(ctx)
}

// mounts are those that the config lists. The image may declare more.
func (a *imageApp) mounts(ctx context.Context) (*runtime.Mounts, error) {
	s := mounts.Service{Image: a.w.Image, Tmpfs: a.w.Tmpfs}
	for _, v := range a.w.Volumes {
		s.Mounts = append(s.Mounts, mounts.Mount{Target: v.Target})
	}
	return find(ctx, a.e, a.w, &mounts.Project{Services: map[string]mounts.Service{"": s}}, containersOf(a))
}

func (a dataApp) mounts(ctx context.Context) (*runtime.Mounts, error) {
	return find(ctx, a.e, a.w, &mounts.Project{}, nil)
}

// mounts are those of the services. It reads the Compose file anew only where this
// runtime has not read it yet: what Check and Redeploy look at later is the same
// project.
func (a *composeApp) mounts(ctx context.Context) (*runtime.Mounts, error) {
	p, err := a.config(ctx)
	if err != nil {
		return nil, err
	}
	all := &mounts.Project{Services: map[string]mounts.Service{}, Volumes: p.Volumes}
	for name, s := range p.Services {
		all.Services[name] = mounts.Service{Image: p.image(name), Mounts: s.Volumes, Tmpfs: s.Tmpfs}
	}
	m, err := find(ctx, a.e, a.w, all, containersOf(a))
	if err != nil {
		return nil, err
	}
	cli, err := a.command(ctx)
	if errors.Is(err, runtime.ErrUnreachable) { // as config
		cli, err = compose.Given(a.w.Compose, a.e.API.DaemonHost()), nil
	}
	m.Files = cli.Sources()
	return m, err
}

func find(ctx context.Context, e *engine.Engine, w *workload.Workload, p *mounts.Project, own func(context.Context) ([]mounts.Container, error)) (*runtime.Mounts, error) {
	m, err := mounts.Find(ctx, e.API, w, p, own)
	return m, engine.Failed(err, "workload %s", w.Name)
}

func containersOf(a app) func(context.Context) ([]mounts.Container, error) {
	return func(ctx context.Context) ([]mounts.Container, error) {
		own, err := a.own(ctx)
		var list []mounts.Container
		for _, c := range own {
			list = append(list, mounts.Container{Service: c.Service, Mounts: c.Raw.Mounts})
		}
		return list, err
	}
}

// MakeVolume makes a named volume: see [runtime.Runtime]. The labels are those that
// Compose gives, so that `docker compose up` takes the volume for its own. Only the
// hash of its options is missing: Compose compares a hash that is there, and where it
// differs offers to make the volume anew, without the data.
func (r *Runtime) MakeVolume(ctx context.Context, name, tx string) error {
	want := volume.CreateOptions{Name: name, Labels: map[string]string{engine.LabelWorkload: r.w.Name}}
	if a, ok := r.app.(*composeApp); ok {
		var err error
		if want, err = a.volume(ctx, name); err != nil {
			return err
		}
	}
	return engine.Failed(mounts.Make(ctx, r.e.API, want, tx), "workload %s", r.w.Name)
}

// volume is a named volume as docker compose up would make it.
func (a *composeApp) volume(ctx context.Context, name string) (volume.CreateOptions, error) {
	want := volume.CreateOptions{Name: name, Labels: map[string]string{}}
	p, err := a.config(ctx)
	if err != nil {
		return want, err
	}
	cli, err := a.command(ctx)
	if err != nil {
		return want, err
	}
	version, _, err := cli.Run(ctx, nil, "version", "--short")
	if err != nil {
		return want, err
	}
	for key, v := range p.Volumes {
		if v.Name != name || v.External {
			continue
		}
		want.Driver, want.DriverOpts = v.Driver, v.Options
		maps.Copy(want.Labels, v.Labels)
		want.Labels[composeProject] = p.Name
		want.Labels[composeVolume] = key
		want.Labels[composeVersion] = strings.TrimPrefix(strings.TrimSpace(string(version)), "v")
	}
	return want, nil
}

// UnmakeVolume removes a named volume: see [runtime.Runtime].
func (r *Runtime) UnmakeVolume(ctx context.Context, name, tx string) error {
	return engine.Failed(mounts.Unmake(ctx, r.e.API, name, tx), "workload %s", r.w.Name)
}

// checkMounted returns an error for each of the config's volumes that no service
// mounts: it would be restored, and the app would not see it. A config without
// volumes needs no such check: snap then takes those of the same file.
func (p *project) checkMounted(volumes []workload.Volume) error {
	mounted := map[string]bool{} // paths, and names of volumes
	for _, s := range p.Services {
		for _, m := range s.Volumes {
			path := filepath.Clean(m.Source)
			if v, ok := p.Volumes[m.Source]; ok && m.Type == "volume" {
				mounted["volume "+v.Name] = true
				path = filepath.Clean(v.Options["device"])
			}
			if filepath.IsAbs(path) {
				mounted[path], mounted[mounts.RealPath(path)] = true, true
			}
		}
	}
	var errs []error
	for i := range volumes {
		v := &volumes[i]
		if mounted["volume "+v.Source] && v.Scope == workload.Named || mounted[v.Path()] || mounted[mounts.RealPath(v.Path())] {
			continue
		}
		where := v.Path()
		if v.Scope == workload.Named {
			where = "volume " + v.Source + " of the engine"
		}
		errs = append(errs, &runtime.Refusal{
			Code: runtime.NotMounted, Err: errNotMounted, Reason: fmt.Sprintf("volume %s (%s): %v", v.Name, where, errNotMounted),
			Hint: "correct `volumes:` in the config, or the Compose file",
		})
	}
	return errors.Join(errs...)
}
