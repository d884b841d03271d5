package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/tiny-forge/snap/pkg/compose"
)

// project is what docker compose config makes of a Compose file, as far as snap
// looks at it. It may hold secrets: it is never printed.
type project struct {
	Name     string             `json:"name"`
	Services map[string]service `json:"services"`

	extra map[string]bool // services that no profile of the config asks for
}

type service struct {
	Image       string             `json:"image"`
	Ports       []port             `json:"ports"`
	Volumes     []serviceMount     `json:"volumes"`
	Environment map[string]*string `json:"environment"` // nil: the variable is not set
	DependsOn   map[string]struct {
		Condition string `json:"condition"`
	} `json:"depends_on"`

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
	p := &project{}
	// In what config prints a $ is doubled, so that it can be read as a file again.
	if err := json.Unmarshal(bytes.ReplaceAll(out, []byte("$$"), []byte("$")), p); err != nil {
		return nil, nil, fmt.Errorf("docker compose config of %s: %w", c.Files[0], err)
	}
	if p.Name == "" {
		return nil, nil, fmt.Errorf("docker compose config of %s: it names no project: Compose v2 is needed", c.Files[0])
	}
	return p, compose.Warnings(said), nil
}
