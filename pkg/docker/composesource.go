package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// The labels that docker compose gives its containers.
const (
	composeProject  = "com.docker.compose.project"
	composeService  = "com.docker.compose.service"
	composeOneOff   = "com.docker.compose.oneoff"
	composeHash     = "com.docker.compose.config-hash"
	composeFolder   = "com.docker.compose.project.working_dir"
	composeFileList = "com.docker.compose.project.config_files"
	composeEnvFiles = "com.docker.compose.project.environment_file"
	composeDepends  = "com.docker.compose.depends_on"
)

// origin is what a container of Compose was made from, as its labels tell.
type origin struct {
	project, directory string
	files, envFiles    []string
}

func originOf(labels map[string]string) origin {
	paths := func(label string) []string {
		return slices.DeleteFunc(strings.Split(labels[label], ","), func(path string) bool {
			return !filepath.IsAbs(path) // none at all, or the standard input
		})
	}
	return origin{labels[composeProject], labels[composeFolder], paths(composeFileList), paths(composeEnvFiles)}
}

// config says in the words of snap's config what a container was made from.
func (o origin) config() string {
	parts := []string{"files: [" + strings.Join(o.files, ", ") + "]", "project: " + o.project}
	if len(o.files) == 0 || o.directory != filepath.Dir(o.files[0]) {
		parts = append(parts, "directory: "+o.directory)
	}
	if len(o.envFiles) > 0 {
		parts = append(parts, "env_files: ["+strings.Join(o.envFiles, ", ")+"]")
	}
	return "compose: {" + strings.Join(parts, ", ") + "}"
}

// differs says how the origin differs from the project that the config names, and
// nothing when it is the same.
func (o origin) differs(c compose) string {
	switch {
	case !samePaths(o.files, c.files):
		return "from " + strings.Join(o.files, " and ")
	case !samePaths([]string{o.directory}, []string{c.folder()}):
		return "in " + o.directory
	case !samePaths(o.envFiles, c.envFiles) && len(o.envFiles) > 0:
		return "with the env file " + strings.Join(o.envFiles, ", ")
	case !samePaths(o.envFiles, c.envFiles):
		return "without " + strings.Join(c.envFiles, ", ")
	}
	return ""
}

func samePaths(a, b []string) bool {
	return slices.EqualFunc(a, b, func(x, y string) bool { return x == y || realPath(filepath.Clean(x)) == realPath(filepath.Clean(y)) })
}

// composeFiles are the files that docker compose would read in the file's folder.
// A file with a default name has an override beside it, which -f leaves out.
func composeFiles(path string) []string {
	files := []string{path}
	defaults := []string{"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"}
	if !slices.Contains(defaults, filepath.Base(path)) {
		return files
	}
	for _, name := range []string{"compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"} {
		override := filepath.Join(filepath.Dir(path), name)
		if _, err := os.Stat(override); err == nil {
			return append(files, override)
		}
	}
	return files
}

// given is the project as far as the config alone tells it.
func given(c *workload.Composition, host string) compose {
	files := c.Files
	if c.Alone {
		files = composeFiles(c.Files[0])
	}
	return compose{files: files, project: c.Project, directory: c.Directory, envFiles: c.EnvFiles, profiles: c.Profiles, host: host}
}

// command returns the command on the workload's project: as the config names it, and
// where the config is silent as the labels of what runs tell. Without an engine the
// config alone must do.
func (a *composeApp) command(ctx context.Context) (compose, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.found != nil {
		return *a.found, nil
	}
	c := given(a.w.Compose, a.e.api.DaemonHost())
	list, err := a.e.composed(ctx)
	if errors.Is(err, runtime.ErrUnreachable) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	if c.project == "" {
		if c.project, err = c.projectOf(ctx, list); err != nil {
			return c, err
		}
	}
	i := slices.IndexFunc(list, func(s container.Summary) bool { return s.Labels[composeProject] == c.project })
	if i >= 0 {
		c.fill(a.w.Compose, originOf(list[i].Labels))
	}
	for _, s := range list {
		if s.Labels[composeProject] == c.project {
			a.made = append(a.made, s.Labels[composeService])
		}
	}
	a.found = &c
	return c, nil
}

// composed returns all containers of Compose projects, the newest first: what was made
// last tells best how a project is used.
func (e *engine) composed(ctx context.Context) ([]container.Summary, error) {
	list, err := e.api.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(
		filters.Arg("label", composeProject), filters.Arg("label", composeOneOff+"=False"))})
	slices.SortStableFunc(list, func(x, y container.Summary) int { return int(y.Created - x.Created) })
	return list, failed(err, "list containers")
}

// namesOf returns the projects whose containers were made from a file.
func namesOf(list []container.Summary, file string) []string {
	var names []string
	for _, s := range list {
		o := originOf(s.Labels)
		made := slices.ContainsFunc(o.files, func(path string) bool { return samePaths([]string{path}, []string{file}) })
		if made && !slices.Contains(names, o.project) {
			names = append(names, o.project)
		}
	}
	return names
}

// projectOf returns the name of the project: of the containers that were made from
// the file, or the file's own where there is none.
func (c compose) projectOf(ctx context.Context, list []container.Summary) (string, error) {
	names := namesOf(list, c.files[0])
	if len(names) == 1 {
		return names[0], nil
	}
	p, _, err := c.config(ctx, nil)
	if err != nil {
		return "", err
	}
	if len(names) == 0 || slices.Contains(names, p.Name) {
		return p.Name, nil
	}
	return "", &runtime.Refusal{
		Code:   runtime.ComposeMismatch,
		Reason: fmt.Sprintf("%s is the file of several projects that have containers: %s", c.files[0], strings.Join(names, ", ")),
		Hint:   fmt.Sprintf("name one in the config: `compose: {files: [%s], project: %s}`", strings.Join(c.files, ", "), names[0]),
	}
}

// fill takes from what runs what the config does not say. A folder or an env file
// that is gone is left out: it shows when a container turns out to differ.
func (c *compose) fill(named *workload.Composition, o origin) {
	exists := func(path string) bool { _, err := os.Stat(path); return err == nil }
	if len(c.files) == 0 {
		c.files = o.files
	}
	if c.directory == "" && exists(o.directory) && samePaths(o.files[:min(1, len(o.files))], c.files[:min(1, len(c.files))]) {
		c.directory = o.directory
	}
	if named.EnvFiles == nil && !slices.ContainsFunc(o.envFiles, func(path string) bool { return !exists(path) }) {
		c.envFiles = o.envFiles
	}
}

// config returns the model of the project. It reads the files once: what is checked,
// planned and brought up is the same model.
func (a *composeApp) config(ctx context.Context) (*project, error) {
	c, err := a.command(ctx)
	if err != nil {
		return nil, fmt.Errorf("workload %s: %w", a.w.Name, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.project == nil {
		p, said, err := c.config(ctx, nil)
		if err != nil {
			return nil, fmt.Errorf("workload %s: %w", a.w.Name, err)
		}
		for _, line := range said {
			a.e.notice("docker compose: " + line)
		}
		if err := a.addProfiles(ctx, c, p); err != nil {
			return nil, fmt.Errorf("workload %s: %w", a.w.Name, err)
		}
		a.project = p
	}
	return a.project, nil
}

// addProfiles adds the services that have containers although their profile was not
// asked for: somebody started them by name, or with a profile of that day.
func (a *composeApp) addProfiles(ctx context.Context, c compose, p *project) error {
	absent := slices.DeleteFunc(slices.Clone(a.made), func(name string) bool { _, there := p.Services[name]; return there })
	if len(absent) == 0 {
		return nil
	}
	c.profiles, p.extra = []string{"*"}, map[string]bool{}
	all, _, err := c.config(ctx, nil)
	if err != nil {
		return err
	}
	for _, name := range absent {
		if s, there := all.Services[name]; there {
			p.Services[name], p.extra[name] = s, true
		}
	}
	return nil
}

// name returns the project's name. It asks Compose only where nobody else tells.
func (a *composeApp) name(ctx context.Context) (string, error) {
	c, err := a.command(ctx)
	if err != nil {
		return "", fmt.Errorf("workload %s: %w", a.w.Name, err)
	}
	if c.project != "" {
		return c.project, nil
	}
	p, err := a.config(ctx)
	if err != nil {
		return "", err
	}
	return p.Name, nil
}
