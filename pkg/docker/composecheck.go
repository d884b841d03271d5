package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// mismatch refuses what was made from something else than the redeploy would use: it
// would come back as another thing than what runs. A container that Compose would
// leave as it is starts again, whatever it was made from.
func (a *composeApp) mismatch(ctx context.Context, v *composeView, fates []runtime.Fate) error {
	var errs []error
	for _, f := range fates {
		c := byID(v.own, f.ID)
		if c == nil || f.Also || c.OneOff || !f.Running {
			continue
		}
		_, known := v.Services[c.Service]
		if known && (f.Then != runtime.MadeAnew || v.same[c.ID]) {
			continue
		}
		o := originOf(c.raw.Config.Labels)
		if how := o.differs(v.cli); how != "" {
			errs = append(errs, &runtime.Refusal{
				Code:   runtime.ComposeMismatch,
				Reason: fmt.Sprintf("container %s was made %s, and the config names %s%s", c.Name, how, strings.Join(v.cli.files, " and "), v.withEnvFiles()),
				Hint:   fmt.Sprintf("write into the config what it was made from: `%s`; or bring up what the config names: %s", o.config(), v.cli.spell("up", "-d")),
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
	if len(v.cli.envFiles) == 0 {
		return ""
	}
	return " with " + strings.Join(v.cli.envFiles, ", ")
}

// spell returns the command line of a call, so that it can be pasted.
func (c compose) spell(args ...string) string {
	return strings.Join(append(append([]string{"docker compose"}, c.flags()...), args...), " ")
}

func (v *composeView) unset(c *inspected, names []string) error {
	into := v.cli.folder() + "/.env"
	if n := len(v.cli.envFiles); n > 0 {
		into = v.cli.envFiles[n-1]
	}
	lines := make([]string, len(names))
	for i, name := range names {
		lines[i] = name + "=…"
	}
	return &runtime.Refusal{
		Code:   runtime.ComposeMismatch,
		Reason: fmt.Sprintf("container %s was made with a value of %s that is not set here: it would be made anew with another one", c.Name, strings.Join(names, ", ")),
		Hint: fmt.Sprintf("put %s into %s, or name a file that has it in the config: `compose: {files: [%s], env_files: [FILE]}`",
			strings.Join(lines, " and "), into, strings.Join(v.cli.files, ", ")),
	}
}

// variable finds the variables in a string of a Compose file: $NAME and ${NAME…}. An
// escaped $$ is none.
var variable = regexp.MustCompile(`\$\$|\$\{?([A-Za-z_][A-Za-z0-9_]*)`)

// onlyElsewhere returns the variables that are not set here and with whose value the
// container was made, as far as that can be seen: the value was in somebody's shell.
func (a *composeApp) onlyElsewhere(ctx context.Context, v *composeView, c *inspected) ([]string, error) {
	s, has := v.Services[c.Service], environmentOf(c.raw.Config.Env)
	found := map[string]bool{}
	image, err := a.e.image(ctx, c.ImageID)
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
	leaves, err := v.cli.leaves(ctx, c.Service)
	if err != nil {
		return nil, err
	}
	set, err := v.cli.set(ctx)
	if err != nil {
		return nil, err
	}
	edited := v.editedSince(c)
	for _, leaf := range leaves {
		for _, match := range variable.FindAllStringSubmatch(leaf.text, -1) {
			if name := match[1]; name != "" && !set[name] && leaf.explains(s, c, has, edited) {
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

// leaf is a string in the model of a service, before variables are put in.
type leaf struct {
	path []string
	text string
}

// explains reports whether a variable in the string can be why the container differs
// from the model. What can be compared is compared. Of the rest it can, unless
// somebody has edited the files since.
func (l leaf) explains(s service, c *inspected, has map[string]string, edited bool) bool {
	switch {
	case len(l.path) == 1 && l.path[0] == "image":
		return s.Image != c.raw.Config.Image
	case len(l.path) == 2 && l.path[0] == "environment":
		key := l.path[1]
		if name, _, listed := strings.Cut(l.text, "="); listed && s.Environment[key] == nil {
			key = name
		}
		value := s.Environment[key]
		return value != nil && *value != has[key]
	}
	return !edited
}

// leaves returns the strings of a service with the variables in them.
func (c compose) leaves(ctx context.Context, name string) ([]leaf, error) {
	c.profiles = append(slices.Clone(c.profiles), "*")
	out, _, err := c.run(ctx, nil, "config", "--no-interpolate", "--format", "json")
	if err != nil {
		return nil, err
	}
	var model struct {
		Services map[string]any `json:"services"`
	}
	if err := json.Unmarshal(out, &model); err != nil {
		return nil, fmt.Errorf("docker compose config --no-interpolate of %s: %w", c.files[0], err)
	}
	var list []leaf
	var walk func(path []string, value any)
	walk = func(path []string, value any) {
		switch value := value.(type) {
		case string:
			list = append(list, leaf{slices.Clone(path), value})
		case []any:
			for i, item := range value {
				walk(append(path, fmt.Sprint(i)), item)
			}
		case map[string]any:
			for key, item := range value {
				walk(append(path, key), item)
			}
		}
	}
	walk(nil, model.Services[name])
	return list, nil
}

// set returns the variables that Compose knows: of snap's environment, of .env, of
// the env files.
func (c compose) set(ctx context.Context) (map[string]bool, error) {
	out, _, err := c.run(ctx, nil, "config", "--environment")
	if err != nil {
		return nil, err
	}
	set := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		if key, _, ok := strings.Cut(line, "="); ok {
			set[key] = true
		}
	}
	return set, nil
}

// editedSince reports whether a file that makes the model was written after the
// container was made.
func (v *composeView) editedSince(c *inspected) bool {
	made, err := time.Parse(time.RFC3339Nano, c.raw.Created)
	return err != nil || slices.ContainsFunc(slices.Concat(v.cli.files, v.cli.envFiles, []string{v.cli.folder() + "/.env"}), func(path string) bool {
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
	list, err := a.e.composed(ctx)
	if err != nil {
		return err
	}
	others := namesOf(list, v.cli.files[0])
	if len(others) == 0 {
		return nil
	}
	return &runtime.Refusal{
		Code:   runtime.ComposeMismatch,
		Reason: fmt.Sprintf("the config names project %s, which has no container, and %s was brought up as project %s", v.cli.project, v.cli.files[0], strings.Join(others, ", ")),
		Hint:   fmt.Sprintf("name that project in the config: `compose: {files: [%s], project: %s}`", strings.Join(v.cli.files, ", "), others[0]),
	}
}
