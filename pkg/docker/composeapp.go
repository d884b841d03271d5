package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"

	"github.com/tiny-forge/snap/pkg/compose"
	"github.com/tiny-forge/snap/pkg/docker/engine"
	"github.com/tiny-forge/snap/pkg/docker/mounts"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// composeApp is a workload that docker compose brings up.
type composeApp struct {
	e *engine.Engine
	w *workload.Workload

	mu      sync.Mutex
	found   *compose.Command // nil until it is known which project it is
	made    []string         // the services that had containers then
	early   *reading         // the model, where it had to be read to find the project
	project *project         // nil until the files were read, and then the same for every call
}

// own returns all containers of the project: of its services, of services that are no
// longer in the file, and of docker compose run.
func (a *composeApp) own(ctx context.Context) ([]*engine.Container, error) {
	name, err := a.name(ctx)
	if err != nil {
		return nil, err
	}
	own, err := a.e.List(ctx, composeProject+"="+name)
	for _, c := range own {
		c.OneOff = c.Label(composeOneOff) == "True"
		a.addDependencies(c)
	}
	// As Compose sorts them: the first of a service is the one that others join.
	slices.SortFunc(own, func(x, y *engine.Container) int { return strings.Compare(x.Name, y.Name) })
	return own, err
}

// addDependencies fills in the label that is empty where the container was made by
// docker compose up --no-deps, as operators and snap itself do. Nobody tells its
// dependencies before the files are read.
func (a *composeApp) addDependencies(c *engine.Container) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.project == nil || c.OneOff || c.Label(composeDepends) != "" {
		return
	}
	if list := a.project.dependencies(c.Service); list != "" {
		c.Raw.Config.Labels[composeDepends] = list
	}
}

// redeploy brings back what ran. A deploy brings up what the Compose file says, and so
// does the redeploy of a workload that did not run.
func (a *composeApp) redeploy(ctx context.Context, r runtime.Redeploy) error {
	var err error
	if r.Pull || !runtime.Containers(r.Before).Ran() {
		err = a.deploy(ctx, r)
	} else {
		var v *composeView
		var fates []runtime.Fate
		if v, fates, err = a.prepare(ctx, r); err != nil {
			return fmt.Errorf("workload %s: %w", a.w.Name, err)
		}
		err = a.bringAgain(ctx, v, fates, r)
	}
	if _, sick := errors.AsType[*runtime.Unhealthy](err); sick {
		return err
	}
	again, crashed := errors.AsType[*runtime.Crashed](err)
	if err == nil || crashed {
		err = a.settle(ctx, r.Before)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("workload %s: %w", a.w.Name, err), a.putDown(ctx, r.StopTimeout))
	}
	missing := a.missing(ctx, r.Before)
	if crashed && missing != nil {
		return fmt.Errorf("%w; and %w", again, missing)
	}
	if crashed {
		return again
	}
	return missing
}

// prepare decides what becomes of each container, and reports an image that cannot be
// had before any of them is touched.
func (a *composeApp) prepare(ctx context.Context, r runtime.Redeploy) (*composeView, []runtime.Fate, error) {
	if err := a.removeHalves(ctx, r.Before, r.StopTimeout); err != nil {
		return nil, nil, err
	}
	v, err := a.look(ctx, r.Before)
	if err == nil {
		err = a.compare(ctx, v)
	}
	if err != nil {
		return nil, nil, err
	}
	fates := v.decide(r.Pins)
	return v, fates, a.checkImages(ctx, fates)
}

// bringAgain starts the containers that start again and makes the others anew, each
// after those it depends on, and waits until all are healthy.
func (a *composeApp) bringAgain(ctx context.Context, v *composeView, fates []runtime.Fate, r runtime.Redeploy) error {
	override, err := a.override(ctx, v, fates)
	if err != nil {
		return err
	}
	anew, up := map[string]bool{}, map[string]bool{}
	var nodes []*engine.Container
	for _, f := range fates {
		c := engine.ByID(v.own, f.ID)
		switch {
		case f.Also || f.Then == runtime.StaysStopped:
		case f.Then == runtime.MadeAnew:
			anew[f.Service] = true
			nodes = append(nodes, v.planned(f.Container, c))
		case c != nil:
			nodes = append(nodes, c)
		}
	}
	var started []*engine.Container
	now := v.own
	for _, c := range engine.InOrder(nodes) {
		if up[c.Service] && !c.OneOff {
			continue
		}
		if err := a.e.AwaitDependencies(ctx, c, now); err != nil {
			return err
		}
		if c.OneOff || !anew[c.Service] {
			if err := a.e.StartAgain(ctx, c); err != nil {
				return err
			}
			started = append(started, c)
			continue
		}
		up[c.Service] = true
		fresh, err := a.makeService(ctx, v, c.Service, override, r)
		if err != nil {
			return err
		}
		started = append(started, fresh...)
		if now, err = a.own(ctx); err != nil {
			return err
		}
	}
	var watches []*engine.Watch
	for _, c := range started {
		was := recorded(r.Before, c.ID)
		crashed := was != nil && was.Crashed || was == nil && crashedBefore(r.Before, c.Service)
		watches = append(watches, &engine.Watch{ID: c.ID, MayEnd: c.OneOff, Crashed: crashed})
	}
	return a.e.WaitAll(ctx, watches, r)
}

// planned stands for a container that is yet to be made: it depends on what the
// model says, and joins whom the old one joined.
func (v *composeView) planned(c runtime.Container, old *engine.Container) *engine.Container {
	host := &container.HostConfig{}
	if old != nil {
		host = old.Raw.HostConfig
	}
	return &engine.Container{Container: c, Raw: container.InspectResponse{
		ContainerJSONBase: &container.ContainerJSONBase{ID: c.ID, HostConfig: host, State: &container.State{}},
		Config:            &container.Config{Labels: map[string]string{composeDepends: v.dependencies(c.Service)}},
	}}
}

// makeService lets Compose make those containers of a service anew that differ, and
// start all of them. It returns those that run: a container that was stopped before
// is stopped again.
func (a *composeApp) makeService(ctx context.Context, v *composeView, service string, override []byte, r runtime.Redeploy) ([]*engine.Container, error) {
	networks := v.connectedByHand(service)
	up := func(how string) error {
		args := []string{"up", how, "--no-deps", "--no-build", "--pull", "never"}
		if s := engine.Seconds(r.StopTimeout); s != nil {
			args = append(args, "-t", strconv.Itoa(*s))
		}
		args = append(args, v.scale([]string{service})...)
		_, _, err := v.profiled().Run(ctx, override, append(args, service)...)
		return engine.PortTaken(err)
	}
	_, err := a.keepingEmpty(ctx, v, []string{service}, func() error { return up("--no-start") })
	if err == nil {
		err = up("-d")
	}
	if err != nil {
		return nil, err
	}
	own, err := a.own(ctx)
	if err != nil {
		return nil, err
	}
	var fresh []*engine.Container
	for _, c := range own {
		if c.Service != service || c.OneOff {
			continue
		}
		if was := recorded(r.Before, c.ID); was != nil && !was.Ran() {
			if err := a.e.Stop(ctx, c, r.StopTimeout); err != nil {
				return nil, err
			}
			continue
		}
		if err := a.reconnect(ctx, c, networks[c.Name]); err != nil {
			return nil, err
		}
		fresh = append(fresh, c)
	}
	return fresh, nil
}

// keepingEmpty has make make the containers of services, and start none. It does not call
// make where none of their named volumes is empty: then they can be made and started in
// one go. An empty volume is restored as such, and the engine would fill it.
func (a *composeApp) keepingEmpty(ctx context.Context, v *composeView, services []string, make func() error) (made bool, err error) {
	found, err := a.mounts(ctx)
	if err != nil {
		return false, err
	}
	volumes := slices.DeleteFunc(found.Volumes, func(volume runtime.Volume) bool {
		return volume.Engine == "" || volume.Absent || !slices.ContainsFunc(services, func(name string) bool { return v.fills(name, volume.Engine) })
	})
	release, err := mounts.KeepEmpty(volumes)
	if err != nil || release == nil {
		return false, err
	}
	return true, errors.Join(make(), release())
}

// fills reports whether a service mounts a volume of the engine so that the engine would
// put the image's files into it.
func (p *project) fills(service, name string) bool {
	return slices.ContainsFunc(p.Services[service].Volumes, func(m mounts.Mount) bool {
		return m.Type == "volume" && p.Volumes[m.Source].Name == name && !m.Volume.NoCopy
	})
}

// override is a Compose file that pins the images of the services that are made anew
// and whose references mean another image by now. It leaves the others alone, as
// Compose makes a container anew when its image has another name.
func (a *composeApp) override(ctx context.Context, v *composeView, fates []runtime.Fate) ([]byte, error) {
	list := pins{}
	for _, f := range fates {
		if f.Then != runtime.MadeAnew || f.Up.ImageID == "" {
			continue
		}
		ref := v.image(f.Service)
		name, err := a.e.Named(ctx, f.Up, ref)
		if err != nil {
			return nil, err
		}
		if name != ref {
			list[f.Service] = list.service(name, f.Up.Image)
		}
	}
	return list.override()
}

// deploy brings the project up as its files say, without the services that were
// stopped on purpose.
func (a *composeApp) deploy(ctx context.Context, r runtime.Redeploy) error {
	p, err := a.config(ctx)
	if err != nil {
		return err
	}
	if err := a.removeHalves(ctx, r.Before, r.StopTimeout); err != nil {
		return err
	}
	cli, err := a.command(ctx)
	if err != nil {
		return err
	}
	pull := "never"
	if r.Pull {
		pull = "missing"
	}
	args := []string{"up", "-d", "--no-build", "--pull", pull}
	if s := engine.Seconds(r.StopTimeout); s != nil {
		args = append(args, "-t", strconv.Itoa(*s))
	}
	services := running(p, r.Before)
	if _, _, err := cli.Run(ctx, nil, append(args, services...)...); err != nil {
		return a.upFailed(ctx, err)
	}
	own, err := a.own(ctx)
	if err != nil {
		return err
	}
	own = slices.DeleteFunc(own, func(c *engine.Container) bool {
		_, known := p.Services[c.Service]
		asked := len(services) == 0 && !p.extra[c.Service] || slices.Contains(services, c.Service)
		return c.OneOff || !known || !asked
	})
	var watches []*engine.Watch
	for _, c := range own {
		watches = append(watches, &engine.Watch{ID: c.ID, MayEnd: !ran(r.Before, c.Service), Crashed: crashedBefore(r.Before, c.Service)})
	}
	return a.e.WaitAll(ctx, watches, r)
}

// running returns the services to bring up: those that ran before and those
// that are new. None means all of them.
func running(p *project, before []runtime.Container) []string {
	if !runtime.Containers(before).Ran() {
		return nil
	}
	var services []string
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		known := slices.ContainsFunc(before, func(c runtime.Container) bool { return !c.Also && !c.OneOff && c.Service == name })
		if !known || ran(before, name) {
			services = append(services, name)
		}
	}
	return services
}

func ran(before []runtime.Container, service string) bool {
	return slices.ContainsFunc(before, func(c runtime.Container) bool { return !c.Also && !c.OneOff && c.Service == service && c.Ran() })
}

// crashedBefore reports whether no container of the service was well.
func crashedBefore(before []runtime.Container, service string) bool {
	return ran(before, service) && !slices.ContainsFunc(before, func(c runtime.Container) bool {
		return !c.Also && !c.OneOff && c.Service == service && c.Running && !c.Crashed
	})
}

// upFailed tells an unhealthy app from everything else that may fail in docker
// compose up, which itself waits for the health of a service that another one
// depends on.
func (a *composeApp) upFailed(ctx context.Context, err error) error {
	failure, ok := errors.AsType[*compose.Error](err)
	if !ok || ctx.Err() != nil || !strings.Contains(failure.Said, "dependency failed to start") {
		return engine.PortTaken(err)
	}
	own, listErr := a.own(ctx)
	if listErr != nil {
		return errors.Join(err, listErr)
	}
	for _, c := range own {
		if c.Health() == container.Unhealthy {
			return &runtime.Unhealthy{Container: c.Name, Reason: "its health check fails" + a.e.Evidence(ctx, c)}
		}
	}
	for _, c := range own {
		if !c.Running && c.Raw.State.ExitCode != 0 {
			return &runtime.Unhealthy{Container: c.Name, Reason: fmt.Sprintf("it exited with code %d", c.Raw.State.ExitCode) + a.e.Evidence(ctx, c)}
		}
	}
	return &runtime.Unhealthy{Container: a.w.Name, Reason: runtime.Tail(failure.Said)}
}

// putDown stops and fences whatever a failed redeploy has started.
func (a *composeApp) putDown(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := engine.Detached(ctx)
	defer cancel()
	own, err := a.own(ctx)
	if err != nil {
		return err
	}
	return a.e.FenceAndStop(ctx, own, timeout)
}

// settle gives the containers that still exist from before the policies that they
// had. A container that Compose made anew has its policy from the file.
func (a *composeApp) settle(ctx context.Context, before []runtime.Container) error {
	own, err := a.own(ctx)
	if err != nil {
		return err
	}
	for _, c := range own {
		was := recorded(before, c.ID)
		switch {
		case was == nil:
			continue
		case was.Ran():
			err = a.e.Unfence(ctx, c, was.Policy)
		default:
			err = a.e.SetPolicy(ctx, c, was.Policy)
		}
		if err != nil {
			return err
		}
	}
	return a.e.RestoreAlso(ctx, before)
}

// missing compares who ran before with who runs now. A container that was made anew
// has another id, so of each service as many must run. One of docker compose run may
// have done its work.
func (a *composeApp) missing(ctx context.Context, before []runtime.Container) error {
	own, err := a.own(ctx)
	if err != nil {
		return err
	}
	fresh := map[string]int{} // of each service, the running containers that are new
	for _, c := range own {
		if c.Running && !c.OneOff && recorded(before, c.ID) == nil {
			fresh[c.Service]++
		}
	}
	var names []string
	for _, was := range before {
		c := engine.ByID(own, was.ID)
		switch {
		case was.Also || !was.Running || was.Crashed, c != nil && c.Running, was.OneOff && c != nil && c.Raw.State.ExitCode == 0:
		case !was.OneOff && fresh[was.Service] > 0:
			fresh[was.Service]--
		default:
			names = append(names, was.Name)
		}
	}
	if len(names) > 0 {
		return &runtime.Missing{Containers: names}
	}
	return nil
}

func (a *composeApp) upToDate(context.Context) (bool, error) { return false, nil }

// half is the name of a container that Compose has made and that has not yet
// replaced the old one.
var half = regexp.MustCompile(`^[0-9a-f]{12}_`)

// removeHalves removes the new containers of a docker compose up that was cut
// short, where the old container still exists.
func (a *composeApp) removeHalves(ctx context.Context, before []runtime.Container, timeout time.Duration) error {
	own, err := a.own(ctx)
	if err != nil {
		return err
	}
	var halves []*engine.Container
	for _, c := range own {
		_, name, _ := strings.Cut(c.Name, "_")
		stands := slices.ContainsFunc(own, func(o *engine.Container) bool { return o.Name == name })
		if half.MatchString(c.Name) && stands && recorded(before, c.ID) == nil {
			halves = append(halves, c)
		}
	}
	return a.e.Discard(ctx, halves, timeout)
}

// connectedByHand returns the networks of each container of a service, by its name:
// a container that is made anew has only those of the Compose file.
func (v *composeView) connectedByHand(service string) map[string]map[string]*network.EndpointSettings {
	out := map[string]map[string]*network.EndpointSettings{}
	for _, c := range v.of(service) {
		if !c.Raw.HostConfig.NetworkMode.IsUserDefined() {
			continue
		}
		out[c.Name] = map[string]*network.EndpointSettings{}
		for name, had := range c.Raw.NetworkSettings.Networks {
			// The engine adds the short id of a container to its aliases.
			aliases := slices.DeleteFunc(slices.Clone(had.Aliases), func(alias string) bool { return alias == c.ID[:12] })
			out[c.Name][name] = &network.EndpointSettings{IPAMConfig: had.IPAMConfig, Links: had.Links, Aliases: aliases}
		}
	}
	return out
}

// reconnect connects a container that was made anew to the networks that it had. The
// networks of the project itself are the Compose file's business.
func (a *composeApp) reconnect(ctx context.Context, c *engine.Container, had map[string]*network.EndpointSettings) error {
	for _, name := range slices.Sorted(maps.Keys(had)) {
		if _, has := c.Raw.NetworkSettings.Networks[name]; has {
			continue
		}
		net, err := a.e.API.NetworkInspect(ctx, name, network.InspectOptions{})
		if errdefs.IsNotFound(err) || err == nil && net.Labels[composeProject] == c.Label(composeProject) {
			continue
		}
		if err != nil {
			return engine.Failed(err, "inspect network %s", name)
		}
		if err := a.e.API.NetworkConnect(ctx, net.ID, c.ID, had[name]); err != nil {
			return engine.Failed(err, "connect container %s to network %s", c.Name, name)
		}
		a.e.Notice(fmt.Sprintf("container %s is on network %s again, which is not in the Compose file", c.Name, name))
	}
	return nil
}
