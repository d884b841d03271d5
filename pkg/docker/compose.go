package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// compose is the host's own docker compose command on one project: what every call
// of it is given.
type compose struct {
	files     []string // -f
	project   string   // -p; "" until it is known
	directory string   // --project-directory; "" for the folder of the first file
	envFiles  []string // --env-file
	profiles  []string // --profile
	host      string   // DOCKER_HOST for it, which stands above any context
}

// flags are what stands between docker compose and its verb.
func (c compose) flags() []string {
	var flags []string
	add := func(flag string, values ...string) {
		for _, v := range values {
			flags = append(flags, flag, v)
		}
	}
	add("-f", c.files...)
	if c.project != "" {
		add("-p", c.project)
	}
	if c.directory != "" {
		add("--project-directory", c.directory)
	}
	add("--env-file", c.envFiles...)
	add("--profile", c.profiles...)
	return flags
}

// folder is where the command runs.
func (c compose) folder() string {
	if c.directory != "" || len(c.files) == 0 {
		return c.directory
	}
	return filepath.Dir(c.files[0])
}

// complete refuses a project whose files are not all there.
func (c compose) complete() error {
	missing := func(what, path string) error {
		return &runtime.Refusal{
			Code: runtime.ComposeMissing, Reason: fmt.Sprintf("the %s %s of the Compose project does not exist", what, path),
			Hint: "put it back, or correct `compose:` in the config",
		}
	}
	if len(c.files) == 0 {
		return &runtime.Refusal{
			Code: runtime.ComposeMissing, Reason: fmt.Sprintf("no container of Compose project %s exists that could tell its files", c.project),
			Hint: "name the files in the config: `compose: {project: " + c.project + ", files: [/path/of/compose.yaml]}`",
		}
	}
	if info, err := os.Stat(c.folder()); errors.Is(err, os.ErrNotExist) || err == nil && !info.IsDir() {
		return missing("folder", c.folder())
	}
	for what, paths := range map[string][]string{"file": c.files, "env file": c.envFiles} {
		for _, path := range paths {
			if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
				return missing(what, path)
			}
		}
	}
	return nil
}

// environment is that of the command. What decides which project it is has been
// decided, and orphans are snap's own business: no variable may say otherwise.
func (c compose) environment() []string {
	decided := []string{"DOCKER_HOST", "DOCKER_CONTEXT", "COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_ENV_FILES", "COMPOSE_REMOVE_ORPHANS", "COMPOSE_IGNORE_ORPHANS"}
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		key, _, _ := strings.Cut(kv, "=")
		return slices.Contains(decided, key)
	})
	return append(env, "DOCKER_HOST="+c.host, "COMPOSE_REMOVE_ORPHANS=false", "COMPOSE_IGNORE_ORPHANS=true", "PWD="+c.folder())
}

// run runs docker compose, with an override on its standard input where there is
// one, and returns what it printed and what it said. It has a process group of its
// own: an interrupt of the terminal must not stop it half-way. It is told to end when
// ctx ends, and when snap is killed: without the workload's lock nothing may go on.
func (c compose) run(ctx context.Context, override []byte, args ...string) (printed []byte, said string, err error) {
	if err := c.complete(); err != nil {
		return nil, "", err
	}
	words := append([]string{"compose"}, c.flags()...)
	if override != nil {
		words = append(words, "-f", "-")
	}
	cmd := exec.CommandContext(ctx, "docker", append(words, args...)...)
	cmd.Env, cmd.Dir = c.environment(), c.folder()
	cmd.Stdin = bytes.NewReader(override)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	// Pdeathsig fires when the thread that started the child ends, so the thread
	// must live as long as the child (golang.org/issue/27505).
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	printed, err = cmd.Output()
	switch {
	case err == nil:
		return printed, stderr.String(), nil
	case ctx.Err() != nil:
		err = ctx.Err()
	case errors.Is(err, exec.ErrNotFound):
		err = errors.New("there is no docker command: a Compose workload needs the Docker CLI with its compose plugin")
	}
	failure := &composeError{what: strings.Join(c.files, ", "), verb: args[0], said: stderr.String(), err: err}
	return nil, "", failure
}

// composeError is a failed docker compose command, with what it said.
type composeError struct {
	verb, what, said string
	err              error
}

func (e *composeError) Error() string {
	msg := fmt.Sprintf("docker compose %s of %s: %v", e.verb, e.what, e.err)
	if said := tail(e.said); said != "" {
		msg += ": " + said
	}
	return msg
}

func (e *composeError) Unwrap() error { return e.err }

// warning is a warning of docker compose, which writes it as logrus does: for a
// terminal or for a file.
var warning = regexp.MustCompile(`(?m)^(?:WARN\[\d+\]\s+(.*)|.*level=warning msg=("(?:[^"\\]|\\.)*"|\S+).*)$`)

// warnings returns the warnings in what docker compose said, each once.
func warnings(said string) (list []string) {
	for _, found := range warning.FindAllStringSubmatch(said, -1) {
		text := found[1]
		if text == "" {
			text = found[2]
			if plain, err := strconv.Unquote(text); err == nil {
				text = plain
			}
		}
		text = printable(strings.TrimSpace(text))
		// That the key version is obsolete tells nothing about the containers.
		if !strings.Contains(text, "`version` is obsolete") && !slices.Contains(list, text) {
			list = append(list, text)
		}
	}
	return list
}
