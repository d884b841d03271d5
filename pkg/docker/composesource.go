package docker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/tiny-forge/snap/pkg/compose"
	"github.com/tiny-forge/snap/pkg/docker/engine"
	"github.com/tiny-forge/snap/pkg/docker/mounts"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// The labels that docker compose gives its containers.
const (
	composeProject = compose.LabelProject
	composeService = compose.LabelService
	composeOneOff  = compose.LabelOneOff
	composeHash    = compose.LabelHash
	composeDepends = compose.LabelDepends
)

// command returns the command on the workload's project: as the config names it, and
// where the config is silent as the labels of what runs tell.
func (a *composeApp) command(ctx context.Context) (compose.Command, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.found != nil {
		return *a.found, nil
	}
	c := compose.Given(a.w.Compose, a.e.API.DaemonHost())
	list, err := a.composed(ctx)
	if err == nil {
		c, err = a.find(ctx, c, list)
	}
	if err != nil {
		return c, err
	}
	for _, s := range list {
		if s.Labels[composeProject] == c.Project {
			a.made = append(a.made, s.Labels[composeService])
		}
	}
	a.found = &c
	return c, nil
}

// find completes the command from the labels of the project's containers. The labels do
// not decide which project it is: when the files were brought up under another name
// than they have by themselves, the config must say so.
func (a *composeApp) find(ctx context.Context, c compose.Command, list []container.Summary) (compose.Command, error) {
	fill := func(name string) {
		if i := slices.IndexFunc(list, func(s container.Summary) bool { return s.Labels[composeProject] == name }); i >= 0 {
			c.Fill(a.w.Compose, compose.OriginOf(list[i].Labels))
		}
	}
	if c.Project != "" {
		fill(c.Project)
		return c, nil
	}
	names := namesOf(list, c.Files[0])
	if len(names) == 1 {
		fill(names[0]) // the files may not make sense without their env file
	}
	p, said, err := config(ctx, c, nil)
	if err != nil {
		return c, err
	}
	if len(names) > 0 && !slices.Contains(names, p.Name) {
		return c, &runtime.Refusal{
			Code:   runtime.ComposeMismatch,
			Reason: fmt.Sprintf("%s was brought up as project %s; by itself it is project %s", c.Files[0], strings.Join(names, ", "), p.Name),
			Hint:   fmt.Sprintf("name the project in the config: `compose: {files: [%s], project: %s}`", strings.Join(c.Files, ", "), names[0]),
		}
	}
	c.Project = p.Name
	if len(names) == 1 {
		a.early = &reading{p, said} // with -p Compose would say the same
		return c, nil
	}
	fill(p.Name)
	return c, nil
}

// composed returns all containers of Compose projects, the newest first: what was made
// last tells best how a project is used.
func (a *composeApp) composed(ctx context.Context) ([]container.Summary, error) {
	// At boot systemd may listen on the engine's socket long before the engine starts,
	// and the engine may wait for a recovery that only wants to know the volumes.
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	list, err := a.e.API.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(
		filters.Arg("label", composeProject), filters.Arg("label", composeOneOff+"=False"))})
	slices.SortStableFunc(list, func(x, y container.Summary) int { return int(y.Created - x.Created) })
	if ctx.Err() != nil && whole.Err() == nil {
		return nil, fmt.Errorf("list containers: %w within %v", runtime.ErrUnreachable, answerWithin)
	}
	return list, engine.Failed(err, "list containers")
}

// answerWithin bounds the first question to the engine.
const answerWithin = 10 * time.Second

// namesOf returns the projects whose containers were made from a file.
func namesOf(list []container.Summary, file string) []string {
	var names []string
	for _, s := range list {
		o := compose.OriginOf(s.Labels)
		made := slices.ContainsFunc(o.Files, func(path string) bool { return compose.SamePaths([]string{path}, []string{file}) })
		if made && !slices.Contains(names, o.Project) {
			names = append(names, o.Project)
		}
	}
	return names
}

// config returns the model of the project. It reads the files once: what is checked,
// planned and brought up is the same model. Without an engine it is that of the config
// alone: to know the volumes that is enough, and whatever else needs the engine fails.
func (a *composeApp) config(ctx context.Context) (*project, error) {
	c, err := a.command(ctx)
	if errors.Is(err, runtime.ErrUnreachable) {
		p, _, err := config(ctx, compose.Given(a.w.Compose, a.e.API.DaemonHost()), nil)
		return p, err
	}
	if err != nil {
		return nil, fmt.Errorf("workload %s: %w", a.w.Name, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.project == nil {
		p, said, err := a.read(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("workload %s: %w", a.w.Name, err)
		}
		for _, line := range said {
			a.e.Notice("docker compose: " + line)
		}
		if err := a.addProfiles(ctx, c, p); err != nil {
			return nil, fmt.Errorf("workload %s: %w", a.w.Name, err)
		}
		a.project = p
	}
	return a.project, nil
}

// reading is a model with the warnings about it.
type reading struct {
	*project
	said []string
}

func (a *composeApp) read(ctx context.Context, c compose.Command) (*project, []string, error) {
	if a.early != nil {
		return a.early.project, a.early.said, nil
	}
	return config(ctx, c, nil)
}

// addProfiles adds the services that have containers although their profile was not
// asked for: somebody started them by name, or with a profile of that day.
func (a *composeApp) addProfiles(ctx context.Context, c compose.Command, p *project) error {
	absent := slices.DeleteFunc(slices.Clone(a.made), func(name string) bool { _, there := p.Services[name]; return there })
	if len(absent) == 0 {
		return nil
	}
	c.Profiles, p.extra = []string{"*"}, map[string]bool{}
	all, _, err := config(ctx, c, nil)
	if err != nil {
		return err
	}
	for _, name := range absent {
		if s, there := all.Services[name]; there {
			p.Services[name], p.extra[name] = s, true
		}
	}
	p.Volumes = all.Volumes
	return nil
}

// name returns the project's name. It asks Compose only where nobody else tells.
func (a *composeApp) name(ctx context.Context) (string, error) {
	c, err := a.command(ctx)
	if err != nil {
		return "", fmt.Errorf("workload %s: %w", a.w.Name, err)
	}
	if c.Project != "" {
		return c.Project, nil
	}
	p, err := a.config(ctx)
	if err != nil {
		return "", err
	}
	return p.Name, nil
}

// project is what docker compose config makes of a Compose file, as far as snap
// looks at it. It may hold secrets: it is never printed.
type project struct {
	Name     string                   `json:"name"`
	Services map[string]service       `json:"services"`
	Volumes  map[string]mounts.Volume `json:"volumes"`

	sum   string          // of the whole
	extra map[string]bool // services that no profile of the config asks for
}

type service struct {
	Image       string             `json:"image"`
	Ports       []engine.Port      `json:"ports"`
	Volumes     []mounts.Mount     `json:"volumes"`
	Tmpfs       []string           `json:"tmpfs"`
	Environment map[string]*string `json:"environment"` // nil: the variable is not set
	DependsOn   map[string]struct {
		Condition string `json:"condition"`
	} `json:"depends_on"`

	Configs json.RawMessage `json:"configs"`
	Secrets json.RawMessage `json:"secrets"`

	raw json.RawMessage
}

// UnmarshalJSON keeps the text too: Compose's hash is that of the text.
func (s *service) UnmarshalJSON(text []byte) error {
	type plain service
	if err := json.Unmarshal(text, (*plain)(s)); err != nil {
		return err
	}
	s.raw = slices.Clone(text)
	return nil
}

// image returns the reference that a service's container is made from, which is
// Compose's own for an image that is built without a name.
func (p *project) image(name string) string {
	if ref := p.Services[name].Image; ref != "" {
		return ref
	}
	return p.Name + "-" + name
}

// config returns the resolved Compose file and Compose's warnings about it.
func config(ctx context.Context, c compose.Command, override []byte) (*project, []string, error) {
	out, said, err := c.Run(ctx, override, "config", "--format", "json")
	if err != nil {
		return nil, nil, err
	}
	sum := sha256.Sum256(out)
	p := &project{sum: hex.EncodeToString(sum[:])}
	// In what config prints a $ is doubled, so that it can be read as a file again.
	if err := json.Unmarshal(bytes.ReplaceAll(out, []byte("$$"), []byte("$")), p); err != nil {
		return nil, nil, fmt.Errorf("docker compose config of %s: %w", c.Files[0], err)
	}
	if p.Name == "" {
		return nil, nil, fmt.Errorf("docker compose config of %s: it names no project: Compose v2 is needed", c.Files[0])
	}
	return p, compose.Warnings(said), nil
}
