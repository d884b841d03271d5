package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tiny-forge/snap/pkg/compose"
	"github.com/tiny-forge/snap/pkg/docker/engine"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// composeView is what a decision about a Compose workload is made from: what runs, and
// the model that a redeploy would use.
type composeView struct {
	*project
	cli    compose.Command
	own    []*engine.Container
	before []runtime.Container
	// same are the containers, by id, that Compose itself would leave as they are: the
	// model has not changed since they were made.
	same     map[string]bool
	override []byte // with which a resume made what was gone
}

// look observes the engine and the model. It changes nothing.
func (a *composeApp) look(ctx context.Context, before []runtime.Container) (*composeView, error) {
	p, err := a.config(ctx)
	if err != nil {
		return nil, err
	}
	v := &composeView{project: p, before: before, same: map[string]bool{}}
	if v.cli, err = a.command(ctx); err != nil {
		return nil, err
	}
	v.own, err = a.own(ctx)
	return v, err
}

// dependencies are those of a service in the form of Compose's label.
func (p *project) dependencies(service string) string {
	var list []string
	for name, d := range p.Services[service].DependsOn {
		list = append(list, name+":"+d.Condition+":false")
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

// profiled is the command that makes containers of named services. It knows those of
// every profile where some have containers that the config does not ask for: one may depend
// on another, and Compose refuses a dependency that it does not know, even with --no-deps.
func (v *composeView) profiled() compose.Command {
	c := v.cli
	if len(v.extra) > 0 {
		c.Profiles = []string{"*"}
	}
	return c
}

// of returns the containers of a service, without those of docker compose run, sorted
// as Compose does.
func (v *composeView) of(service string) []*engine.Container {
	return slices.DeleteFunc(slices.Clone(v.own), func(c *engine.Container) bool { return c.Service != service || c.OneOff })
}

// compare finds the containers whose model has not changed. What an earlier redeploy
// has pinned to an image counts as if the Compose file said so.
func (a *composeApp) compare(ctx context.Context, v *composeView) error {
	model, pinned := v.project, pins{}
	for _, c := range v.own {
		if _, known := v.Services[c.Service]; known && !c.OneOff && c.Label(engine.LabelImage) != "" {
			pinned[c.Service] = pinned.service(c.Raw.Config.Image, c.Label(engine.LabelImage))
		}
	}
	override, err := pinned.override()
	if err != nil {
		return err
	}
	if override != nil {
		c := v.cli
		c.Profiles = append(slices.Clone(c.Profiles), "*")
		if model, _, err = config(ctx, c, override); err != nil {
			return err
		}
	}
	firstOf := func(service string) string {
		if list := v.of(service); len(list) > 0 {
			return list[0].ID
		}
		return ""
	}
	var ask []string
	for _, c := range v.own {
		s, known := model.Services[c.Service]
		if !known || c.OneOff {
			continue
		}
		hash, err := compose.Hash(s.raw, firstOf)
		if err != nil {
			return fmt.Errorf("the model of service %s: %w", c.Service, err)
		}
		v.same[c.ID] = hash == c.Label(composeHash)
		// Compose calls a container outdated for its image too. Then its answer would
		// not tell whether the model has changed.
		image, err := a.e.Image(ctx, model.image(c.Service))
		if err != nil {
			return err
		}
		if !v.same[c.ID] && image.ID == c.ImageID && !slices.Contains(ask, c.Service) {
			ask = append(ask, c.Service)
		}
	}
	if len(ask) == 0 {
		return nil
	}
	return a.ask(ctx, v, override, ask)
}

// recreated is a line with which docker compose says that it makes a container anew.
var recreated = regexp.MustCompile(`Container (\S+)\s+Recreate`)

// ask lets Compose itself say which containers of these services it would make anew:
// its hash may be another one than snap's, which is that of one version.
func (a *composeApp) ask(ctx context.Context, v *composeView, override []byte, services []string) error {
	args := append([]string{"--dry-run", "up", "--no-start", "--no-deps", "--no-build", "--pull", "never"}, v.scale(services)...)
	_, said, err := v.profiled().Run(ctx, override, append(args, services...)...)
	if err != nil {
		if compose.TooOld(err) {
			return nil // the hashes must do
		}
		return err
	}
	var anew []string
	for _, line := range recreated.FindAllStringSubmatch(said, -1) {
		anew = append(anew, line[1])
	}
	for _, service := range services {
		for _, c := range v.of(service) {
			v.same[c.ID] = v.same[c.ID] || !slices.Contains(anew, c.Name)
		}
	}
	return nil
}

// scale returns the flags that keep as many containers of each service as there are.
func (v *composeView) scale(services []string) []string {
	var flags []string
	for _, service := range services {
		n := len(slices.DeleteFunc(slices.Clone(v.before), func(c runtime.Container) bool { return c.Also || c.OneOff || c.Service != service }))
		if n > 0 {
			flags = append(flags, "--scale", service+"="+strconv.Itoa(n))
		}
	}
	return flags
}

// decide says what becomes of each container in before, on the images of pins. It is
// the one decision: the plan shows it, the check judges it, the redeploy carries it
// out.
func (v *composeView) decide(pins map[string]runtime.Pin) []runtime.Fate {
	fates := make([]runtime.Fate, len(v.before))
	for i, was := range v.before {
		fates[i] = v.fate(was, pins)
	}
	// Whoever joins a container that is made anew would look for the old one.
	for changed := true; changed; {
		changed = false
		for i, f := range fates {
			c := engine.ByID(v.own, f.ID)
			if f.Then != runtime.StartsAgain || f.Also || c == nil || !v.makes(f.Container) {
				continue
			}
			for _, other := range fates {
				if other.Then == runtime.MadeAnew && c.Joins(other.Container) {
					fates[i].Then, fates[i].Why, changed = runtime.MadeAnew, "it joins "+other.Name+", which is made anew", true
					break
				}
			}
		}
	}
	return fates
}

// makes reports whether Compose could make the container anew.
func (v *composeView) makes(c runtime.Container) bool {
	_, known := v.Services[c.Service]
	return known && !c.OneOff
}

func (v *composeView) fate(was runtime.Container, pins map[string]runtime.Pin) runtime.Fate {
	f := runtime.Fate{Container: was, Then: runtime.StartsAgain, Up: was.Pin()}
	c, pin := engine.ByID(v.own, was.ID), pins[was.Service]
	switch {
	case !was.Ran():
		f.Then = runtime.StaysStopped
	case was.Also || !v.makes(was):
		// Nobody could make it anew, so it can only start again.
	case c == nil:
		f.Then, f.Why = runtime.MadeAnew, "it is gone"
	case pin.ImageID != "" && pin.ImageID != was.ImageID:
		f.Then, f.Why = runtime.MadeAnew, fmt.Sprintf("it comes up on image %s instead of %s", pin.Text(), was.Pin().Text())
	case !v.same[was.ID]:
		f.Then, f.Why = runtime.MadeAnew, fmt.Sprintf("its service has changed in %s since it was made", strings.Join(v.cli.Files, ", "))
	}
	if f.Then == runtime.MadeAnew && pin.ImageID != "" {
		f.Up = pin
	}
	return f
}

// choose returns the image on which each service that has containers comes up.
func (a *composeApp) choose(ctx context.Context, v *composeView, want runtime.Want) (map[string]runtime.Pin, error) {
	chosen := map[string]runtime.Pin{}
	var errs []error
	for service, ran := range runtime.Containers(want.Before).Pins() {
		if _, known := v.Services[service]; !known {
			continue
		}
		pin, err := a.e.Choose(ctx, want, ran, v.image(service), want.Taken[service])
		if err != nil {
			errs = append(errs, fmt.Errorf("service %s: %w", service, err))
		}
		chosen[service] = pin
	}
	return chosen, errors.Join(errs...)
}

// pins are the services of an override: a Compose file that says the images.
type pins map[string]any

func (pins) service(image, ref string) any {
	return map[string]any{"image": image, "labels": map[string]string{engine.LabelImage: ref}}
}

// override returns the pins as a Compose file, nil when there are none.
func (p pins) override() ([]byte, error) {
	if len(p) == 0 {
		return nil, nil
	}
	return json.Marshal(map[string]any{"services": p}) // JSON is YAML
}

// plan refuses what a redeploy could not bring back as it runs.
func (a *composeApp) plan(ctx context.Context, want runtime.Want) (*runtime.Plan, error) {
	v, err := a.look(ctx, want.Before)
	if err == nil {
		err = a.stray(ctx, v)
	}
	if err != nil {
		return nil, err
	}
	if !runtime.Containers(want.Before).Ran() {
		errs := []error{v.checkMounted(a.w.Volumes)}
		for _, name := range slices.Sorted(maps.Keys(v.Services)) {
			if err := a.e.CheckPin(ctx, runtime.Pin{}, v.image(name)); err != nil && !v.extra[name] {
				errs = append(errs, fmt.Errorf("service %s: %w", name, err))
			}
		}
		return &runtime.Plan{Fates: v.decide(nil), Model: v.sum}, errors.Join(errs...)
	}
	if err := a.compare(ctx, v); err != nil {
		return nil, err
	}
	chosen, imageErr := a.choose(ctx, v, want)
	plan := &runtime.Plan{Fates: v.decide(chosen), Pins: chosen, Model: v.sum}
	errs := []error{a.mismatch(ctx, v, plan.Fates), v.checkMounted(a.w.Volumes), imageErr, a.checkImages(ctx, plan.Fates)}
	var ports []engine.Port
	for _, name := range slices.Sorted(maps.Keys(v.Services)) {
		if len(v.of(name)) == 0 {
			continue
		}
		ports = append(ports, v.Services[name].Ports...)
	}
	return plan, errors.Join(append(errs, a.e.CheckPorts(ctx, ports, v.own))...)
}

// checkImages reports the images that are missing for a container that is made anew.
// Another one starts again without its image.
func (a *composeApp) checkImages(ctx context.Context, fates []runtime.Fate) error {
	var errs []error
	for _, f := range fates {
		if f.Then == runtime.MadeAnew {
			if err := a.e.CheckPin(ctx, f.Up, f.Up.Image); err != nil {
				errs = append(errs, fmt.Errorf("service %s: %w", f.Service, err))
			}
		}
	}
	return errors.Join(errs...)
}
