package docker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
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
func (c compose) config(ctx context.Context, override []byte) (*project, []string, error) {
	out, said, err := c.run(ctx, override, "config", "--format", "json")
	if err != nil {
		return nil, nil, err
	}
	p := &project{}
	// In what config prints a $ is doubled, so that it can be read as a file again.
	if err := json.Unmarshal(bytes.ReplaceAll(out, []byte("$$"), []byte("$")), p); err != nil {
		return nil, nil, fmt.Errorf("docker compose config of %s: %w", c.files[0], err)
	}
	if p.Name == "" {
		return nil, nil, fmt.Errorf("docker compose config of %s: it names no project: Compose v2 is needed", c.files[0])
	}
	return p, warnings(said), nil
}

// hash is the hash with which Compose labels a container of the service
// (com.docker.compose.config-hash): of the model as it is printed, without the keys
// that need no new container, and with the containers in place of the services that
// it joins (ServiceHash in pkg/compose/hash.go and resolveServiceReferences in
// convergence.go of docker/compose v2). Other versions may do it another way, so an
// equal hash proves that nothing has changed, and another one proves nothing.
func (s service) hash(container func(service string) string) (string, error) {
	text, err := edit(s.raw, func(key string, value json.RawMessage) (json.RawMessage, error) {
		switch key {
		case "build", "pull_policy", "scale", "depends_on", "profiles":
			return nil, nil
		case "deploy":
			return edit(value, func(key string, value json.RawMessage) (json.RawMessage, error) {
				if key == "replicas" {
					return nil, nil
				}
				return value, nil
			})
		case "network_mode", "ipc", "pid":
			var mode string
			if json.Unmarshal(value, &mode) == nil {
				if name, joins := strings.CutPrefix(mode, "service:"); joins {
					return json.Marshal("container:" + container(name))
				}
			}
		case "volumes_from":
			var from []string
			if json.Unmarshal(value, &from) == nil {
				for i, spec := range from {
					name, rest, _ := strings.Cut(spec, ":")
					if from[i] = container(name); name == "container" {
						from[i], _, _ = strings.Cut(rest, ":")
					}
				}
				return json.Marshal(from)
			}
		}
		return value, nil
	})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// edit passes the members of a JSON object through change, in their order; nil drops
// one. The result has no blanks.
func edit(object json.RawMessage, change func(key string, value json.RawMessage) (json.RawMessage, error)) (json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(object))
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	out := bytes.NewBufferString("{")
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		if value, err = change(fmt.Sprint(key), value); err != nil {
			return nil, err
		}
		if value == nil {
			continue
		}
		if out.Len() > 1 {
			out.WriteByte(',')
		}
		name, err := json.Marshal(key)
		if err != nil {
			return nil, err
		}
		out.Write(name)
		out.WriteByte(':')
		if err := json.Compact(out, value); err != nil {
			return nil, err
		}
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}
