package compose

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tiny-forge/snap/pkg/workload"
)

// The labels that docker compose gives its containers.
const (
	LabelProject = "com.docker.compose.project"
	LabelService = "com.docker.compose.service"
	LabelOneOff  = "com.docker.compose.oneoff"
	LabelHash    = "com.docker.compose.config-hash"
	LabelDepends = "com.docker.compose.depends_on"

	labelFolder   = "com.docker.compose.project.working_dir"
	labelFiles    = "com.docker.compose.project.config_files"
	labelEnvFiles = "com.docker.compose.project.environment_file"
)

// Origin is what a container of Compose was made from, as its labels tell.
type Origin struct {
	Project, Directory string
	Files, EnvFiles    []string
}

// OriginOf reads the labels of a container.
func OriginOf(labels map[string]string) Origin {
	paths := func(label string) []string {
		return slices.DeleteFunc(strings.Split(labels[label], ","), func(path string) bool {
			return !filepath.IsAbs(path) // none at all, or the standard input
		})
	}
	return Origin{labels[LabelProject], labels[labelFolder], paths(labelFiles), paths(labelEnvFiles)}
}

// Config says in the words of snap's config what a container was made from.
func (o Origin) Config() string {
	parts := []string{"files: [" + strings.Join(o.Files, ", ") + "]", "project: " + o.Project}
	if len(o.Files) == 0 || o.Directory != filepath.Dir(o.Files[0]) {
		parts = append(parts, "directory: "+o.Directory)
	}
	if len(o.EnvFiles) > 0 {
		parts = append(parts, "env_files: ["+strings.Join(o.EnvFiles, ", ")+"]")
	}
	return "compose: {" + strings.Join(parts, ", ") + "}"
}

// Differs says how the origin differs from the project that the config names, and
// nothing when it is the same.
func (o Origin) Differs(c Command) string {
	switch {
	case !SamePaths(o.Files, c.Files):
		return "from " + strings.Join(o.Files, " and ")
	case !SamePaths([]string{o.Directory}, []string{c.Folder()}):
		return "in " + o.Directory
	case !SamePaths(o.EnvFiles, c.EnvFiles) && len(o.EnvFiles) > 0:
		return "with the env file " + strings.Join(o.EnvFiles, ", ")
	case !SamePaths(o.EnvFiles, c.EnvFiles):
		return "without " + strings.Join(c.EnvFiles, ", ")
	}
	return ""
}

// SamePaths compares lists of paths, through symbolic links.
func SamePaths(a, b []string) bool {
	return slices.EqualFunc(a, b, func(x, y string) bool { return x == y || real(filepath.Clean(x)) == real(filepath.Clean(y)) })
}

// Given is the command as far as the config alone tells it.
func Given(c *workload.Composition, host string) Command {
	files := c.Files
	if c.Alone {
		files = defaultFiles(c.Files[0])
	}
	return Command{Files: files, Project: c.Project, Directory: c.Directory, EnvFiles: c.EnvFiles, Profiles: c.Profiles, Host: host}
}

// Fill takes from what runs what the config does not say. A folder or an env file
// that is gone is left out: it shows when a container turns out to differ.
func (c *Command) Fill(named *workload.Composition, o Origin) {
	exists := func(path string) bool { _, err := os.Stat(path); return err == nil }
	if len(c.Files) == 0 {
		c.Files = o.Files
	}
	if c.Directory == "" && exists(o.Directory) && SamePaths(o.Files[:min(1, len(o.Files))], c.Files[:min(1, len(c.Files))]) {
		c.Directory = o.Directory
	}
	if named.EnvFiles == nil && !slices.ContainsFunc(o.EnvFiles, func(path string) bool { return !exists(path) }) {
		c.EnvFiles = o.EnvFiles
	}
}

// defaultFiles are the files that docker compose would read in the file's folder.
// A file with a default name has an override beside it, which -f leaves out.
func defaultFiles(path string) []string {
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

// real resolves the symbolic links of a path that exists.
func real(path string) string {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved
	}
	return path
}
