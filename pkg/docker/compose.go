package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
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

// image returns the reference a service's container is made from; one that is
// built without a name gets Compose's own.
func (p *project) image(name string) string {
	if ref := p.Services[name].Image; ref != "" {
		return ref
	}
	return p.Name + "-" + name
}

// composeFiles are the files that docker compose reads in the file's folder:
// one with a default name brings its override along, which -f would leave out.
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
// is one. It has a process group of its own: an interrupt of the terminal is
// snap's to handle, and must not stop Compose half-way. When ctx ends it is
// asked to end, and when snap is killed too: nothing may go on without the
// workload's lock.
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
	// Pdeathsig fires when the thread that started the child ends; so that is
	// kept for as long (golang.org/issue/27505).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
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
