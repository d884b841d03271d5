package compose

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

// Command is the host's own docker compose command on one project: what every call of
// it is given.
type Command struct {
	Files     []string // -f
	Project   string   // -p; "" until it is known
	Directory string   // --project-directory; "" for the folder of the first file
	EnvFiles  []string // --env-file
	Profiles  []string // --profile
	Host      string   // DOCKER_HOST for it, which stands above any context
}

// flags are what stands between docker compose and its verb.
func (c Command) flags() []string {
	var flags []string
	add := func(flag string, values ...string) {
		for _, v := range values {
			flags = append(flags, flag, v)
		}
	}
	add("-f", c.Files...)
	if c.Project != "" {
		add("-p", c.Project)
	}
	if c.Directory != "" {
		add("--project-directory", c.Directory)
	}
	add("--env-file", c.EnvFiles...)
	add("--profile", c.Profiles...)
	return flags
}

// Folder is where the command runs.
func (c Command) Folder() string {
	if c.Directory != "" || len(c.Files) == 0 {
		return c.Directory
	}
	return filepath.Dir(c.Files[0])
}

// complete refuses a project whose files are not all there.
func (c Command) complete() error {
	missing := func(what, path string) error {
		return &runtime.Refusal{
			Code: runtime.ComposeMissing, Reason: fmt.Sprintf("the %s %s of the Compose project does not exist", what, path),
			Hint: "put it back, or correct `compose:` in the config",
		}
	}
	if len(c.Files) == 0 {
		return &runtime.Refusal{
			Code: runtime.ComposeMissing, Reason: fmt.Sprintf("no container of Compose project %s exists that could tell its files", c.Project),
			Hint: "name the files in the config: `compose: {project: " + c.Project + ", files: [/path/of/compose.yaml]}`",
		}
	}
	if info, err := os.Stat(c.Folder()); errors.Is(err, os.ErrNotExist) || err == nil && !info.IsDir() {
		return missing("folder", c.Folder())
	}
	for what, paths := range map[string][]string{"file": c.Files, "env file": c.EnvFiles} {
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
func (c Command) environment() []string {
	decided := []string{"DOCKER_HOST", "DOCKER_CONTEXT", "COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_ENV_FILES", "COMPOSE_REMOVE_ORPHANS", "COMPOSE_IGNORE_ORPHANS"}
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		key, _, _ := strings.Cut(kv, "=")
		return slices.Contains(decided, key)
	})
	return append(env, "DOCKER_HOST="+c.Host, "COMPOSE_REMOVE_ORPHANS=false", "COMPOSE_IGNORE_ORPHANS=true", "PWD="+c.Folder())
}

// Run runs docker compose, with an override on its standard input where there is
// one, and returns what it printed and what it said. It has a process group of its
// own: an interrupt of the terminal must not stop it half-way. It is told to end when
// ctx ends, and when snap is killed: without the workload's lock nothing may go on.
func (c Command) Run(ctx context.Context, override []byte, args ...string) (printed []byte, said string, err error) {
	if err := c.complete(); err != nil {
		return nil, "", err
	}
	words := append([]string{"compose"}, c.flags()...)
	if override != nil {
		words = append(words, "-f", "-")
	}
	cmd := exec.CommandContext(ctx, "docker", append(words, args...)...)
	cmd.Env, cmd.Dir = c.environment(), c.Folder()
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
	failure := &Error{what: strings.Join(c.Files, ", "), verb: args[0], Said: stderr.String(), err: err}
	return nil, "", failure
}

// Error is a failed docker compose command, with what it said.
type Error struct {
	Said string

	verb, what string
	err        error
}

func (e *Error) Error() string {
	msg := fmt.Sprintf("docker compose %s of %s: %v", e.verb, e.what, e.err)
	if said := runtime.Tail(e.Said); said != "" {
		msg += ": " + said
	}
	return msg
}

func (e *Error) Unwrap() error { return e.err }

// TooOld reports whether the command failed because this Compose does not know a flag:
// --dry-run came with 2.18, config --environment with 2.25.
func TooOld(err error) bool {
	failure, ok := errors.AsType[*Error](err)
	return ok && strings.Contains(failure.Said, "unknown flag")
}

// warning is a warning of docker compose, which writes it as logrus does: for a
// terminal or for a file.
var warning = regexp.MustCompile(`(?m)^(?:WARN\[\d+\]\s+(.*)|.*level=warning msg=("(?:[^"\\]|\\.)*"|\S+).*)$`)

// Warnings returns the warnings in what docker compose said, each once.
func Warnings(said string) (list []string) {
	for _, found := range warning.FindAllStringSubmatch(said, -1) {
		text := found[1]
		if text == "" {
			text = found[2]
			if plain, err := strconv.Unquote(text); err == nil {
				text = plain
			}
		}
		text = runtime.Printable(strings.TrimSpace(text))
		// That the key version is obsolete tells nothing about the containers.
		if !strings.Contains(text, "`version` is obsolete") && !slices.Contains(list, text) {
			list = append(list, text)
		}
	}
	return list
}

// Spell returns the command line of a call, so that it can be pasted.
func (c Command) Spell(args ...string) string {
	words := append(append([]string{"docker", "compose"}, c.flags()...), args...)
	for i, word := range words {
		if !plain.MatchString(word) {
			words[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// plain is a word that a shell leaves as it is.
var plain = regexp.MustCompile(`^[A-Za-z0-9_./,:=@%+-]+$`)
