package workload

import (
	"errors"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// Composition says which Compose project a workload is: what an operator gives to
// docker compose as -f, -p, --project-directory, --env-file and --profile. A key
// that the config leaves out is nil or "": the labels of the containers that run
// tell it.
type Composition struct {
	Files     []string `yaml:"files"`
	Project   string   `yaml:"project"`
	Directory string   `yaml:"directory"`
	EnvFiles  []string `yaml:"env_files"` // an empty list is none, whatever the labels say
	Profiles  []string `yaml:"profiles"`
	// Alone says that the config gave one path, as Compose finds it by itself: the
	// override file beside it counts too.
	Alone bool `yaml:"-"`
}

// String names the composition in messages.
func (c *Composition) String() string {
	if len(c.Files) == 0 {
		return "project " + c.Project
	}
	return strings.Join(c.Files, ", ")
}

// UnmarshalYAML takes a path, or a mapping with the keys of a Composition.
func (c *Composition) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*c = Composition{Files: []string{n.Value}, Alone: true}
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: compose is a path, or a mapping with files, project, directory, env_files and profiles", n.Line)
	}
	// A decoder of a node does not refuse unknown keys, so they are looked for here.
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch key := n.Content[i]; key.Value {
		case "files", "project", "directory", "env_files", "profiles":
		default:
			return fmt.Errorf("line %d: unknown key %s in compose (it knows files, project, directory, env_files, profiles)", key.Line, key.Value)
		}
	}
	type plain Composition
	return n.Decode((*plain)(c))
}

func (c *Composition) check() error {
	if len(c.Files) == 0 && c.Project == "" {
		return errors.New("compose: give it files, or the project whose containers run")
	}
	paths := []*string{}
	for i := range c.Files {
		paths = append(paths, &c.Files[i])
	}
	for i := range c.EnvFiles {
		paths = append(paths, &c.EnvFiles[i])
	}
	if c.Directory != "" {
		paths = append(paths, &c.Directory)
	}
	for _, path := range paths {
		if err := cleanAbsolute(path); err != nil {
			return fmt.Errorf("compose: %w", err)
		}
	}
	return nil
}
