// Package endpoint says which engine the docker command would use.
//
// [Resolve] follows the docker command: --context, --host, DOCKER_HOST, DOCKER_CONTEXT,
// and the current context of its configuration, in this order; then the default socket.
//
// It reads the two JSON files itself. The docker command's own library for contexts
// (github.com/docker/cli) would bring its configuration, its credential helpers and its
// plug-ins along, and what snap needs is one name in one file and one address in another.
package endpoint

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"
)

// Default is the context that means DOCKER_HOST, or else the default socket.
const Default = "default"

const defaultHost = "unix:///var/run/docker.sock"

// Choice is what an operator has chosen on the command line. Each may be "".
type Choice struct {
	Host    string // --host
	Context string // --context
}

// Endpoint is an engine, and who chose it.
type Endpoint struct {
	Host string // "unix:///var/run/docker.sock"
	From string // in words, such as "DOCKER_HOST"; "" for the default
	// Context is the name of the context that names the host, "" where none does.
	Context string
}

// String says which engine it is, and why.
func (e Endpoint) String() string {
	if e.From == "" {
		return e.Host
	}
	return fmt.Sprintf("%s (%s)", e.Host, e.From)
}

// Local reports whether the engine is reached over a socket of this host.
func (e Endpoint) Local() bool { return strings.HasPrefix(e.Host, "unix://") }

// ErrConflict says that both --host and --context were given. The docker command refuses
// that as well.
var ErrConflict = errors.New("--host and --context cannot be given together")

// Resolve returns the engine that the docker command would use.
func Resolve(c Choice, getenv func(string) string) (Endpoint, error) {
	switch {
	case c.Host != "" && c.Context != "":
		return Endpoint{}, ErrConflict
	case c.Context != "":
		return named(c.Context, "--context", getenv)
	case c.Host != "":
		return Endpoint{Host: c.Host, From: "--host"}, nil
	case getenv("DOCKER_HOST") != "":
		return Endpoint{Host: getenv("DOCKER_HOST"), From: "DOCKER_HOST"}, nil
	case getenv("DOCKER_CONTEXT") != "":
		return named(getenv("DOCKER_CONTEXT"), "DOCKER_CONTEXT", getenv)
	}
	file := filepath.Join(folder(getenv), "config.json")
	var config struct {
		CurrentContext string `json:"currentContext"`
	}
	if err := read(file, &config); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Endpoint{}, fmt.Errorf("the docker command's configuration: %w", err)
	}
	if config.CurrentContext == "" {
		return Endpoint{Host: defaultHost}, nil
	}
	return named(config.CurrentContext, "currentContext of "+file, getenv)
}

// named returns the engine of a context.
func named(name, from string, getenv func(string) string) (Endpoint, error) {
	if name == Default {
		if host := getenv("DOCKER_HOST"); host != "" {
			return Endpoint{Host: host, From: "DOCKER_HOST"}, nil
		}
		return Endpoint{Host: defaultHost}, nil
	}
	file := filepath.Join(folder(getenv), "contexts", "meta", fmt.Sprintf("%x", sha256.Sum256([]byte(name))), "meta.json")
	var meta struct {
		Endpoints struct {
			Docker struct{ Host string } `json:"docker"`
		}
	}
	err := read(file, &meta)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("there is no such context: %w", err)
	}
	if err != nil {
		return Endpoint{}, fmt.Errorf("context %q of the docker command (%s): %w", name, from, err)
	}
	host := meta.Endpoints.Docker.Host
	if host == "" {
		host = defaultHost
	}
	return Endpoint{Host: host, From: fmt.Sprintf("context %s, %s", name, from), Context: name}, nil
}

// folder is that of the docker command's configuration.
func folder(getenv func(string) string) string {
	if dir := getenv("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	home := getenv("HOME")
	if home == "" { // a unit of systemd has none
		if who, err := user.Current(); err == nil {
			home = who.HomeDir
		}
	}
	return filepath.Join(home, ".docker")
}

func read(file string, into any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
