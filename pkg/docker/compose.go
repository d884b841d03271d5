package docker

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"syscall"
	"time"

	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
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
	Name     string             `json:"name"`
	Services map[string]service `json:"services"`
}

type service struct {
	Image   string         `json:"image"`
	Ports   []port         `json:"ports"`
	Volumes []serviceMount `json:"volumes"`
}

type serviceMount struct {
	Type     string `json:"type"`
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only"`
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

func (a *composeApp) volumes(ctx context.Context) ([]runtime.Volume, []string, error) {
	p, err := a.config(ctx)
	if err != nil {
		return nil, nil, err
	}
	byPath := map[string]runtime.Volume{}
	skipped := map[string]string{} // what → why, of mounts that no other service has writable
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		for _, m := range p.Services[name].Volumes {
			why, err := leftOut(m)
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("service %s: %w", name, err))
			case why != "":
				skipped[m.what()] = fmt.Sprintf("service %s: %s is left out: %s", name, m.what(), why)
			case m.Type == "bind":
				source := filepath.Clean(m.Source)
				if _, twice := byPath[source]; !twice {
					byPath[source] = runtime.Volume{Name: source, Source: source, Target: m.Target}
				}
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, fmt.Errorf("workload %s: %w", a.w.Name, err)
	}
	var volumes []runtime.Volume
	var notices []string
	for _, path := range slices.Sorted(maps.Keys(byPath)) {
		// Sorted, so that a directory comes before what lies in it.
		if i := slices.IndexFunc(volumes, func(v runtime.Volume) bool { return workload.Contains(v.Source, path) }); i >= 0 {
			notices = append(notices, fmt.Sprintf("%s is part of volume %s", path, volumes[i].Source))
			continue
		}
		volumes = append(volumes, byPath[path])
	}
	for _, what := range slices.Sorted(maps.Keys(skipped)) {
		if _, writable := byPath[what]; !writable {
			notices = append(notices, skipped[what])
		}
	}
	return volumes, notices, nil
}

func (m serviceMount) what() string {
	switch {
	case m.Type == "bind":
		return filepath.Clean(m.Source)
	case m.Source == "":
		return "the anonymous volume at " + m.Target
	}
	return m.Type + " " + m.Source
}

// leftOut says why a mount is not a volume of the workload: a reason where the
// operator should know, an error where leaving it out would lose data.
func leftOut(m serviceMount) (why string, err error) {
	switch {
	case m.Type == "tmpfs":
		return "", nil
	case m.Type != "bind" && m.Type != "volume":
		return "a mount of type " + m.Type + " is not a directory of this host", nil
	case m.ReadOnly:
		return "it is mounted read-only", nil
	case m.Type == "volume" && m.Source == "":
		return "an anonymous volume ends with its container", nil
	case m.Type == "volume":
		return "", fmt.Errorf("named volume %s (%s) is not supported: it lies in the engine's own folder, which only the engine may change; "+
			"mount a directory instead, or list the volumes that snap shall take in the config", m.Source, m.Target)
	}
	info, err := os.Stat(m.Source)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", nil // Compose makes the directory
	case err != nil:
		return "", fmt.Errorf("bind mount %s: %w", m.Source, err)
	case !info.IsDir():
		return "it is not a directory", nil
	}
	return "", nil
}

// checkMounted returns an error for each of the config's volumes that no service
// binds: it would be restored, and the app would not see it.
func (p *project) checkMounted(volumes []workload.Volume) error {
	bound := map[string]bool{}
	for _, s := range p.Services {
		for _, m := range s.Volumes {
			if m.Type == "bind" {
				bound[realPath(filepath.Clean(m.Source))] = true
			}
		}
	}
	var errs []error
	for _, v := range volumes {
		if !bound[realPath(v.Path())] {
			errs = append(errs, fmt.Errorf("volume %s (%s): %w: correct volumes in the config, or the Compose file", v.Name, v.Path(), errNotMounted))
		}
	}
	return errors.Join(errs...)
}
