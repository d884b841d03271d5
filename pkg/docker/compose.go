package docker

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"syscall"
	"time"

	"github.com/tiny-forge/snap/pkg/docker/mounts"
)

// The labels that docker compose gives its containers.
const (
	composeProject = "com.docker.compose.project"
	composeService = "com.docker.compose.service"
	composeOneOff  = "com.docker.compose.oneoff"
)

// project is what docker compose config makes of a Compose file, as far as snap
// looks at it. It may hold secrets: it is never printed.
type project struct {
	Name     string                   `json:"name"`
	Services map[string]service       `json:"services"`
	Volumes  map[string]mounts.Volume `json:"volumes"`
}

type service struct {
	Image   string         `json:"image"`
	Ports   []port         `json:"ports"`
	Volumes []mounts.Mount `json:"volumes"`
	Tmpfs   []string       `json:"tmpfs"`
}

// image returns the reference that a service's container is made from, which is
// Compose's own for an image that is built without a name.
func (p *project) image(name string) string {
	return cmp.Or(p.Services[name].Image, p.Name+"-"+name)
}

// composeFiles are the files that docker compose would read in the file's folder.
// A file with a default name has an override beside it, which -f leaves out.
func composeFiles(path string) []string {
	dir, name := filepath.Split(path)
	defaults := []string{"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"}
	overrides := []string{"compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"}
	if slices.Contains(defaults, name) {
		for _, override := range overrides {
			if _, err := os.Stat(dir + override); err == nil {
				return []string{path, dir + override}
			}
		}
	}
	return []string{path}
}

// config returns the resolved Compose file, which is read once.
func (a *composeApp) config(ctx context.Context) (*project, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.project != nil {
		return a.project, nil
	}
	out, err := a.compose(ctx, nil, "config", "--format", "json")
	if err != nil {
		return nil, fmt.Errorf("workload %s: %w", a.w.Name, err)
	}
	p := &project{}
	if err = json.Unmarshal(out, p); err == nil && p.Name == "" {
		err = errors.New("it names no project: Compose v2 is needed")
	}
	if err != nil {
		return nil, fmt.Errorf("workload %s: docker compose config of %s: %w", a.w.Name, a.w.Compose, err)
	}
	a.project = p
	return p, nil
}

// compose runs docker compose, with an override on its standard input where there is
// one. It has a process group of its own: an interrupt of the terminal must not stop
// it half-way. It is told to end when ctx ends, and when snap is killed: without the
// workload's lock nothing may go on.
func (a *composeApp) compose(ctx context.Context, override []byte, args ...string) ([]byte, error) {
	words := []string{"compose"}
	for _, file := range a.files {
		words = append(words, "-f", file)
	}
	if override != nil {
		words = append(words, "-f", "-")
	}
	words = append(words, args...)
	cmd := exec.CommandContext(ctx, "docker", words...)
	// The engine that snap uses, whatever the context is by now.
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+a.e.api.DaemonHost(), "DOCKER_CONTEXT=")
	cmd.Dir = filepath.Dir(a.w.Compose)
	cmd.Stdin = bytes.NewReader(override)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	// Pdeathsig fires when the thread that started the child ends, so the thread
	// must live as long as the child (golang.org/issue/27505).
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	out, err := cmd.Output()
	var said string
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		said = tail(string(exit.Stderr))
	}
	switch {
	case err == nil:
		return out, nil
	case ctx.Err() != nil:
		err = ctx.Err()
	case errors.Is(err, exec.ErrNotFound):
		err = errors.New("there is no docker command: a Compose workload needs the Docker CLI with its compose plugin")
	}
	if said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return nil, fmt.Errorf("docker compose %s of %s: %w", args[0], a.w.Compose, err)
}
