package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// composeApp is a workload that docker compose brings up.
type composeApp struct {
	e     *engine
	w     *workload.Workload
	files []string

	mu      sync.Mutex
	project *project // nil until the file was read
}

// own leaves out the containers of docker compose run: Compose does not bring them
// back, so they count as users of the volumes.
func (a *composeApp) own(ctx context.Context) ([]*inspected, error) {
	p, err := a.config(ctx)
	if err != nil {
		return nil, err
	}
	return a.e.list(ctx, composeProject+"="+p.Name, composeOneOff+"=False")
}

func (a *composeApp) check(ctx context.Context, pins map[string]runtime.Pin, own []*inspected) error {
	p, err := a.config(ctx)
	if err != nil {
		return err
	}
	var ports []port
	for _, s := range p.Services {
		ports = append(ports, s.Ports...)
	}
	return errors.Join(p.checkMounted(a.w.Volumes), a.checkImages(ctx, p, pins), a.e.checkPorts(ctx, ports, own))
}

func (a *composeApp) checkImages(ctx context.Context, p *project, pins map[string]runtime.Pin) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		if err := a.e.checkPin(ctx, pins[name], p.image(name)); err != nil {
			errs = append(errs, fmt.Errorf("service %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// override returns a Compose file that pins the images of the services whose
// references mean another image by now; nil when there is no such service. It
// leaves the others alone: Compose makes a container anew when its image has
// another name.
func (a *composeApp) override(ctx context.Context, p *project, pins map[string]runtime.Pin) ([]byte, error) {
	services := map[string]map[string]string{}
	for name := range p.Services {
		pin := pins[name]
		if pin.ImageID == "" {
			continue
		}
		image, err := a.e.image(ctx, p.image(name))
		if err != nil {
			return nil, err
		}
		if image.ID != pin.ImageID {
			services[name] = map[string]string{"image": pin.ImageID}
		}
	}
	if len(services) == 0 {
		return nil, nil
	}
	return json.Marshal(map[string]any{"services": services}) // JSON is YAML
}

func (a *composeApp) redeploy(ctx context.Context, r runtime.Redeploy) error {
	p, err := a.config(ctx)
	if err != nil {
		return err
	}
	if !r.Pull || len(r.Pins) > 0 {
		if err := a.checkImages(ctx, p, r.Pins); err != nil {
			return fmt.Errorf("workload %s: %w", a.w.Name, err)
		}
	}
	err = a.bringUp(ctx, p, r)
	again, crashed := errors.AsType[*runtime.Crashed](err)
	if err == nil || crashed {
		err = a.settle(ctx, r.Before)
	}
	if err == nil && crashed {
		return again
	}
	if _, sick := errors.AsType[*runtime.Unhealthy](err); sick || err == nil {
		return err
	}
	return errors.Join(fmt.Errorf("workload %s: %w", a.w.Name, err), a.putDown(ctx, r.StopTimeout))
}

func (a *composeApp) bringUp(ctx context.Context, p *project, r runtime.Redeploy) error {
	if err := a.removeHalves(ctx, r.Before, r.StopTimeout); err != nil {
		return err
	}
	override, err := a.override(ctx, p, r.Pins)
	if err != nil {
		return err
	}
	pull := "never"
	if r.Pull {
		pull = "missing"
	}
	args := []string{"up", "-d", "--no-build", "--pull", pull}
	if s := seconds(r.StopTimeout); s != nil {
		args = append(args, "-t", strconv.Itoa(*s))
	}
	services := running(p, r.Before)
	if _, err := a.compose(ctx, override, append(args, services...)...); err != nil {
		return a.upFailed(ctx, err)
	}
	own, err := a.own(ctx)
	if err != nil {
		return err
	}
	if len(services) > 0 {
		own = slices.DeleteFunc(own, func(c *inspected) bool { return !slices.Contains(services, c.Service) })
	}
	var watches []*watch
	for _, c := range own {
		watches = append(watches, &watch{id: c.ID, mayEnd: !ran(r.Before, c.Service), crashed: crashedBefore(r.Before, c.Service)})
	}
	return a.e.waitAll(ctx, watches, r)
}

// running returns the services to bring up: those that ran before and those
// that are new. None means all of them.
func running(p *project, before []runtime.Container) []string {
	if !runtime.Containers(before).Ran() {
		return nil
	}
	var services []string
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		known := slices.ContainsFunc(before, func(c runtime.Container) bool { return !c.Also && c.Service == name })
		if !known || ran(before, name) {
			services = append(services, name)
		}
	}
	return services
}

func ran(before []runtime.Container, service string) bool {
	return slices.ContainsFunc(before, func(c runtime.Container) bool { return !c.Also && c.Service == service && c.Ran() })
}

// crashedBefore reports whether no container of the service was well.
func crashedBefore(before []runtime.Container, service string) bool {
	return ran(before, service) && !slices.ContainsFunc(before, func(c runtime.Container) bool {
		return !c.Also && c.Service == service && c.Running && !c.Crashed
	})
}

// upFailed tells an unhealthy app from everything else that may fail in docker
// compose up, which itself waits for the health of a service that another one
// depends on.
func (a *composeApp) upFailed(ctx context.Context, err error) error {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || !bytes.Contains(exit.Stderr, []byte("dependency failed to start")) {
		return portTaken(err)
	}
	own, listErr := a.own(ctx)
	if listErr != nil {
		return errors.Join(err, listErr)
	}
	if c := first(own, func(c *inspected) bool { return c.health() == container.Unhealthy }); c != nil {
		return &runtime.Unhealthy{Container: c.Name, Reason: "its health check fails" + a.e.evidence(ctx, c)}
	}
	if c := first(own, func(c *inspected) bool { return !c.Running && c.raw.State.ExitCode != 0 }); c != nil {
		return &runtime.Unhealthy{Container: c.Name, Reason: fmt.Sprintf("it exited with code %d", c.raw.State.ExitCode) + a.e.evidence(ctx, c)}
	}
	return &runtime.Unhealthy{Container: a.w.Name, Reason: tail(string(exit.Stderr))}
}

// putDown stops and fences whatever a failed redeploy has started.
func (a *composeApp) putDown(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := detached(ctx)
	defer cancel()
	own, err := a.own(ctx)
	if err != nil {
		return err
	}
	return a.e.fenceAndStop(ctx, own, timeout)
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
			err = a.e.unfence(ctx, c, was.Policy)
		default:
			err = a.e.setPolicy(ctx, c, was.Policy)
		}
		if err != nil {
			return err
		}
	}
	return a.e.restoreAlso(ctx, before)
}

func (a *composeApp) upToDate(context.Context) (bool, error) { return false, nil }

// half is the name of a container of Compose that has not yet replaced the old one.
var half = regexp.MustCompile(`^[0-9a-f]{12}_`)

// removeHalves removes the new containers of a docker compose up that was cut
// short, where the old container still exists.
func (a *composeApp) removeHalves(ctx context.Context, before []runtime.Container, timeout time.Duration) error {
	own, err := a.own(ctx)
	if err != nil {
		return err
	}
	var halves []*inspected
	for _, c := range own {
		_, name, _ := strings.Cut(c.Name, "_")
		if half.MatchString(c.Name) && byName(own, name) != nil && recorded(before, c.ID) == nil {
			halves = append(halves, c)
		}
	}
	return a.e.discard(ctx, halves, timeout)
}
