package compose

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Leaf is a string in the model of a service, before variables are put in.
type Leaf struct {
	Path []string
	Text string
}

// variable finds the variables in a string of a Compose file: $NAME and ${NAME…}. An
// escaped $$ is none.
var variable = regexp.MustCompile(`\$\$|\$\{?([A-Za-z_][A-Za-z0-9_]*)`)

// Variables returns the names of the variables in the string.
func (l Leaf) Variables() []string {
	var names []string
	for _, match := range variable.FindAllStringSubmatch(l.Text, -1) {
		if match[1] != "" {
			names = append(names, match[1])
		}
	}
	return names
}

// Leaves returns the strings of a service with the variables in them.
func (c Command) Leaves(ctx context.Context, name string) ([]Leaf, error) {
	c.Profiles = append(slices.Clone(c.Profiles), "*")
	out, _, err := c.Run(ctx, nil, "config", "--no-interpolate", "--format", "json")
	if err != nil {
		return nil, err
	}
	var model struct {
		Services map[string]any `json:"services"`
	}
	if err := json.Unmarshal(out, &model); err != nil {
		return nil, fmt.Errorf("docker compose config --no-interpolate of %s: %w", c.Files[0], err)
	}
	var list []Leaf
	var walk func(path []string, value any)
	walk = func(path []string, value any) {
		switch value := value.(type) {
		case string:
			list = append(list, Leaf{slices.Clone(path), value})
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

// Set returns the variables that Compose knows: of snap's environment, of .env, of
// the env files.
func (c Command) Set(ctx context.Context) (map[string]bool, error) {
	out, _, err := c.Run(ctx, nil, "config", "--environment")
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
