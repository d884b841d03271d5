package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/tiny-forge/snap/pkg/compose"
	"github.com/tiny-forge/snap/pkg/docker/engine"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// mismatch refuses what was made from something else than the redeploy would use: it
// would come back as another thing than what runs. A container that Compose would
// leave as it is starts again, whatever it was made from.
func (a *composeApp) mismatch(ctx context.Context, v *composeView, fates []runtime.Fate) error {
	var errs []error
	for _, f := range fates {
		c := engine.ByID(v.own, f.ID)
		if c == nil || f.Also || c.OneOff || !f.Ran() {
			continue
		}
		_, known := v.Services[c.Service]
		if known && (f.Then != runtime.MadeAnew || v.same[c.ID]) {
			continue
		}
		o := compose.OriginOf(c.Raw.Config.Labels)
		if how := o.Differs(v.cli); how != "" {
			errs = append(errs, &runtime.Refusal{
				Code:   runtime.ComposeMismatch,
				Reason: fmt.Sprintf("container %s was made %s, and the config names %s%s", c.Name, how, strings.Join(v.cli.Files, " and "), v.withEnvFiles()),
				Hint:   fmt.Sprintf("write into the config what it was made from: `%s`; or bring up what the config names: %s", o.Config(), v.cli.Spell("up", "-d")),
			})
			continue
		}
		if !known {
			continue // its service is no longer in the file; the container starts again
		}
		names, err := a.onlyElsewhere(ctx, v, c)
		if err != nil {
			return err
		}
		if len(names) > 0 {
			errs = append(errs, v.unset(c, names))
		}
	}
	return errors.Join(errs...)
}

func (v *composeView) withEnvFiles() string {
	if len(v.cli.EnvFiles) == 0 {
		return ""
	}
	return " with " + strings.Join(v.cli.EnvFiles, ", ")
}

func (v *composeView) unset(c *engine.Container, names []string) error {
	into := v.cli.Folder() + "/.env"
	if n := len(v.cli.EnvFiles); n > 0 {
		into = v.cli.EnvFiles[n-1]
	}
	lines := make([]string, len(names))
	for i, name := range names {
		lines[i] = name + "=…"
	}
	return &runtime.Refusal{
		Code:   runtime.ComposeMismatch,
		Reason: fmt.Sprintf("container %s was made with a value of %s that is not set here: it would be made anew with another one", c.Name, strings.Join(names, ", ")),
		Hint: fmt.Sprintf("put %s into %s, or name a file that has it in the config: `compose: {files: [%s], env_files: [FILE]}`",
			strings.Join(lines, " and "), into, strings.Join(v.cli.Files, ", ")),
	}
}

// onlyElsewhere returns the variables that are not set here and with whose value the
// container was made, as far as that can be seen: the value was in somebody's shell.
func (a *composeApp) onlyElsewhere(ctx context.Context, v *composeView, c *engine.Container) ([]string, error) {
	s, has := v.Services[c.Service], environmentOf(c.Raw.Config.Env)
	found := map[string]bool{}
	image, err := a.e.Image(ctx, c.ImageID)
	if err != nil {
		return nil, err
	}
	byImage := map[string]string{}
	if image.Config != nil {
		byImage = environmentOf(image.Config.Env)
	}
	for key, value := range s.Environment {
		if is, set := has[key]; value == nil && set && byImage[key] != is {
			found[key] = true
		}
	}
	leaves, err := v.cli.Leaves(ctx, c.Service)
	var set map[string]bool
	if err == nil {
		set, err = v.cli.Set(ctx)
	}
	if compose.TooOld(err) {
		leaves, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	edited := v.editedSince(c)
	for _, leaf := range leaves {
		for _, name := range leaf.Variables() {
			if !set[name] && explains(leaf, s, c, has, edited) {
				found[name] = true
			}
		}
	}
	names := make([]string, 0, len(found))
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

func environmentOf(list []string) map[string]string {
	out := map[string]string{}
	for _, kv := range list {
		key, value, _ := strings.Cut(kv, "=")
		out[key] = value
	}
	return out
}

// explains reports whether a variable in the string can be why the container differs
// from the model. What can be compared is compared. Of the rest it can, unless
// somebody has edited the files since.
func explains(l compose.Leaf, s service, c *engine.Container, has map[string]string, edited bool) bool {
	switch {
	case len(l.Path) == 1 && l.Path[0] == "image":
		return s.Image != c.Raw.Config.Image
	case len(l.Path) == 2 && l.Path[0] == "environment":
		key := l.Path[1]
		if name, _, listed := strings.Cut(l.Text, "="); listed && s.Environment[key] == nil {
			key = name
		}
		value := s.Environment[key]
		return value != nil && *value != has[key]
	}
	return !edited
}

// editedSince reports whether a file that makes the model was written after the
// container was made.
func (v *composeView) editedSince(c *engine.Container) bool {
	made, err := time.Parse(time.RFC3339Nano, c.Raw.Created)
	return err != nil || slices.ContainsFunc(slices.Concat(v.cli.Files, v.cli.EnvFiles, []string{v.cli.Folder() + "/.env"}), func(path string) bool {
		info, err := os.Stat(path)
		return err == nil && info.ModTime().After(made)
	})
}

// stray refuses when the config names a project without containers, and the same
// files have containers under another name.
func (a *composeApp) stray(ctx context.Context, v *composeView) error {
	if a.w.Compose.Project == "" || len(v.own) > 0 {
		return nil
	}
	list, err := a.composed(ctx)
	if err != nil {
		return err
	}
	// Made with another folder or other env files, it is another instance.
	list = slices.DeleteFunc(list, func(s container.Summary) bool { return compose.OriginOf(s.Labels).Differs(v.cli) != "" })
	others := namesOf(list, v.cli.Files[0])
	if len(others) == 0 {
		return nil
	}
	return &runtime.Refusal{
		Code:   runtime.ComposeMismatch,
		Reason: fmt.Sprintf("the config names project %s, which has no container, and %s was brought up as project %s", v.cli.Project, v.cli.Files[0], strings.Join(others, ", ")),
		Hint:   fmt.Sprintf("name that project in the config: `compose: {files: [%s], project: %s}`", strings.Join(v.cli.Files, ", "), others[0]),
	}
}
