package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
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

// compose is the host's own docker compose command on one file.
type compose struct {
	files []string
	host  string // DOCKER_HOST for it: a context must not lead it elsewhere
}

// project is what docker compose config makes of a Compose file, as far as
// snap looks at it. Images and environments in it may hold secrets: it is never
// printed.
type project struct {
	Name     string             `json:"name"`
	Services map[string]service `json:"services"`
}

type service struct {
	Image string `json:"image"`
	Ports []struct {
		Published string `json:"published"`
		HostIP    string `json:"host_ip"`
		Protocol  string `json:"protocol"`
	} `json:"ports"`
	Volumes []serviceMount `json:"volumes"`
}

type serviceMount struct {
	Type     string `json:"type"`
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only"`
}

// image returns the reference that a service's container is made from. An image
// that is built without a name gets its name from Compose.
func (p *project) image(name string) string {
	if ref := p.Services[name].Image; ref != "" {
		return ref
	}
	return p.Name + "-" + name
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

// config returns the resolved Compose file.
func (c compose) config(ctx context.Context) (*project, error) {
	out, err := c.run(ctx, nil, "config", "--format", "json")
	if err != nil {
		return nil, err
	}
	p := &project{}
	if err := json.Unmarshal(out, p); err != nil {
		return nil, fmt.Errorf("docker compose config of %s: %w", c.files[0], err)
	}
	if p.Name == "" {
		return nil, fmt.Errorf("docker compose config of %s: it names no project: Compose v2 is needed", c.files[0])
	}
	return p, nil
}

// run runs docker compose, with an override on its standard input where there
// is one. The command has a process group of its own: snap handles an interrupt
// of the terminal, which must not stop Compose half-way. The command is told to
// end when ctx ends, and when snap is killed: without the workload's lock nothing
// may go on.
func (c compose) run(ctx context.Context, override []byte, args ...string) ([]byte, error) {
	words := []string{"compose"}
	for _, file := range c.files {
		words = append(words, "-f", file)
	}
	if override != nil {
		words = append(words, "-f", "-")
	}
	words = append(words, args...)
	cmd := exec.CommandContext(ctx, "docker", words...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "DOCKER_CONTEXT=") || strings.HasPrefix(kv, "DOCKER_HOST=")
	}), "DOCKER_HOST="+c.host)
	cmd.Dir = filepath.Dir(c.files[0])
	if override != nil {
		cmd.Stdin = bytes.NewReader(override)
	}
	var stdout bytes.Buffer
	var stderr lastBytes
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	// Pdeathsig fires when the thread that started the child ends, so the thread
	// must live as long as the child (golang.org/issue/27505).
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	err := cmd.Run()
	switch {
	case err == nil:
		return stdout.Bytes(), nil
	case ctx.Err() != nil:
		err = ctx.Err()
	case errors.Is(err, exec.ErrNotFound):
		err = errors.New("there is no docker command: a Compose workload needs the Docker CLI with its compose plugin")
	}
	return nil, &composeError{verb: args[0], file: c.files[0], said: tail(stderr.text()), err: err}
}

// composeError is a failed docker compose command, with the end of what it said.
type composeError struct {
	verb, file, said string
	err              error
}

func (e *composeError) Error() string {
	msg := fmt.Sprintf("docker compose %s of %s: %v", e.verb, e.file, e.err)
	if e.said != "" {
		msg += ": " + e.said
	}
	return msg
}

func (e *composeError) Unwrap() error { return e.err }

// lastBytes keeps the end of what is written to it.
type lastBytes struct{ buf []byte }

var _ io.Writer = (*lastBytes)(nil)

func (l *lastBytes) Write(p []byte) (int, error) {
	const most = 8 << 10
	l.buf = append(l.buf, p...)
	if over := len(l.buf) - most; over > 0 {
		l.buf = append(l.buf[:0], l.buf[over:]...)
	}
	return len(p), nil
}

func (l *lastBytes) text() string { return string(l.buf) }

// volumes returns what the services bind. It reads the Compose file anew only
// where this runtime has not read it yet: what Check and Redeploy look at later
// is the same project.
func (a *composeApp) volumes(ctx context.Context) ([]runtime.Volume, []string, error) {
	p, err := a.config(ctx)
	if err != nil {
		return nil, nil, err
	}
	volumes, notices, err := p.volumes()
	if err != nil {
		return nil, nil, fmt.Errorf("workload %s: %w", a.w.Name, err)
	}
	return volumes, notices, nil
}

func (p *project) volumes() ([]runtime.Volume, []string, error) {
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
	if len(errs) > 0 {
		return nil, nil, errors.Join(errs...)
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
	switch m.Type {
	case "tmpfs":
		return "", nil
	case "bind":
		if m.ReadOnly {
			return "it is mounted read-only", nil
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
	case "volume":
		switch {
		case m.ReadOnly:
			return "it is mounted read-only", nil
		case m.Source == "":
			return "an anonymous volume ends with its container", nil
		}
		return "", fmt.Errorf("named volume %s (%s) is not supported: it lies in the engine's own folder, which only the engine may change; "+
			"mount a directory instead, or list the volumes that snap shall take in the config", m.Source, m.Target)
	}
	return "a mount of type " + m.Type + " is not a directory of this host", nil
}

// checkMounted returns an error for each of the config's volumes that no service
// binds: it would be restored, and the app would not see it. A config without
// volumes needs no such check: the engine then takes those of the same file.
func (p *project) checkMounted(volumes []workload.Volume) error {
	bound := map[string]bool{}
	for _, s := range p.Services {
		for _, m := range s.Volumes {
			if m.Type == "bind" {
				bound[filepath.Clean(m.Source)] = true
				bound[realPath(filepath.Clean(m.Source))] = true
			}
		}
	}
	var errs []error
	for i := range volumes {
		if path := volumes[i].Path(); !bound[path] && !bound[realPath(path)] {
			errs = append(errs, fmt.Errorf("volume %s (%s): %w: correct volumes in the config, or the Compose file", volumes[i].Name, path, errNotMounted))
		}
	}
	return errors.Join(errs...)
}
