package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/compose"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// The labels by which the containers of an image workload are known again.
const (
	LabelWorkload = "snap.workload"    // the workload's name
	LabelConfig   = "snap.config"      // the path of the config it was made from
	LabelHash     = "snap.config-hash" // of what that config says of the container
	LabelImage    = "snap.image"       // the reference, where it was made by the id
	LabelNetwork  = "snap.network"     // of a network: its name
)

// Engine is the connection to the Docker engine. Its methods may be called by several
// goroutines.
type Engine struct {
	API *client.Client
	// Notice is told, in one line each, what the operator should know although nothing
	// has failed. Not nil.
	Notice func(line string)
}

// Failed says in an error what failed, and whether the engine did not answer
// ([runtime.ErrUnreachable]). It returns nil for nil.
func Failed(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	if client.IsErrConnectionFailed(err) {
		err = fmt.Errorf("%w: %w", runtime.ErrUnreachable, err)
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}

// Refused reports whether the engine answered and said no. Then its state is
// known, and it makes sense to try something else.
func Refused(err error) bool {
	return err != nil && !errors.Is(err, runtime.ErrUnreachable) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// Detached is a context for undoing work after the caller's has ended, with a limit.
func Detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 5*time.Minute)
}

// Container is one container as the engine shows it.
type Container struct {
	runtime.Container
	Raw container.InspectResponse // what Container leaves out
}

// Label returns the value of a label, "" where the container does not have it.
func (c *Container) Label(key string) string { return c.Raw.Config.Labels[key] }

// ByID returns the container of that id, or nil.
func ByID(containers []*Container, id string) *Container {
	return First(containers, func(c *Container) bool { return c.ID == id })
}

// ByName returns the container of that name, or nil.
func ByName(containers []*Container, name string) *Container {
	return First(containers, func(c *Container) bool { return c.Name == name })
}

// First returns the first container for which is reports true, or nil.
func First(containers []*Container, is func(*Container) bool) *Container {
	if i := slices.IndexFunc(containers, is); i >= 0 {
		return containers[i]
	}
	return nil
}

// Active reports whether its processes run and are not frozen.
func (c *Container) Active() bool { return c.Awake() && !c.Raw.State.Restarting }

// List returns the containers that have all of these labels, as "key=value".
func (e *Engine) List(ctx context.Context, labels ...string) ([]*Container, error) {
	filter := filters.NewArgs()
	for _, label := range labels {
		filter.Add("label", label)
	}
	found, err := e.API.ContainerList(ctx, container.ListOptions{All: true, Filters: filter})
	if err != nil {
		return nil, Failed(err, "list containers")
	}
	var containers []*Container
	for _, summary := range found {
		c, err := e.Inspect(ctx, summary.ID)
		if err != nil {
			return nil, err
		}
		if c != nil && c.Raw.State.Status != "removing" {
			containers = append(containers, c)
		}
	}
	return containers, nil
}

// Inspect returns a container, or nil when there is none of that name or id.
func (e *Engine) Inspect(ctx context.Context, id string) (*Container, error) {
	raw, err := e.API.ContainerInspect(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, Failed(err, "inspect container %s", id)
	}
	policy := raw.HostConfig.RestartPolicy
	c := &Container{Raw: raw, Container: runtime.Container{
		ID:      raw.ID,
		Name:    strings.TrimPrefix(raw.Name, "/"),
		Service: raw.Config.Labels[compose.LabelService],
		Image:   cmp.Or(raw.Config.Labels[LabelImage], raw.Config.Image),
		ImageID: raw.Image,
		Running: raw.State.Running,
		Paused:  raw.State.Paused,
		PID:     raw.State.Pid,
		Policy:  runtime.Policy{Name: cmp.Or(string(policy.Name), Never.Name), Retries: policy.MaximumRetryCount},

		StopTimeout: 10 * time.Second, // the engine's, where the container asks for nothing else
	}}
	c.Crashed = crashed(&raw, c.Policy)
	if s := raw.Config.StopTimeout; s != nil {
		c.StopTimeout = time.Duration(*s) * time.Second
	}
	for _, m := range raw.Mounts {
		if m.Type == "bind" {
			c.Mounts = append(c.Mounts, runtime.Mount{Source: m.Source, Target: m.Destination, Writable: m.RW})
		}
	}
	return c, nil
}

// crashed reports whether a container crashes over and over, or has crashed, and was
// not stopped. The engine takes a restart for a success once the container has run for
// ten seconds (moby's restartmanager).
func crashed(raw *container.InspectResponse, p runtime.Policy) bool {
	state := raw.State
	if state.Running && !state.Restarting {
		began, err := time.Parse(time.RFC3339Nano, state.StartedAt)
		return err == nil && raw.RestartCount > 0 && time.Since(began) < 10*time.Second
	}
	return runtime.Exit{
		Policy: p, Code: state.ExitCode, StopSignal: signalOf(raw.Config.StopSignal), Restarts: raw.RestartCount,
		Restarting: state.Restarting, OOM: state.OOMKilled, Failed: state.Error != "",
	}.Crashed()
}

// signalOf is the number of a stop signal, as a name or a number; SIGTERM for "".
func signalOf(name string) int {
	if n, err := strconv.Atoi(name); err == nil {
		return n
	}
	name = strings.TrimPrefix(strings.ToUpper(name), "SIG")
	return int(cmp.Or(unix.SignalNum("SIG"+name), unix.SIGTERM))
}

// Never is the policy of a fenced container.
var Never = runtime.Policy{Name: string(container.RestartPolicyDisabled)}

// SetPolicy gives a container, if it still exists, its restart policy. It tries more
// than once: the engine refuses while a container exits or starts, and one that
// crashes over and over often does.
func (e *Engine) SetPolicy(ctx context.Context, c *Container, p runtime.Policy) error {
	p.Name = cmp.Or(p.Name, Never.Name)
	if c.Policy == p {
		return nil
	}
	update := container.UpdateConfig{RestartPolicy: container.RestartPolicy{
		Name: container.RestartPolicyMode(p.Name), MaximumRetryCount: p.Retries,
	}}
	var err error
	for range 10 {
		_, err = e.API.ContainerUpdate(ctx, c.ID, update)
		if errdefs.IsNotFound(err) {
			if err = e.notFound(ctx, c, err); err != nil {
				return err
			}
		}
		if err == nil {
			c.Policy = p
			return nil
		}
		if err = Failed(err, "set the restart policy of container %s to %s", c.Name, p.Name); !Refused(err) {
			return err
		}
		if waitErr := sleep(ctx, 200*time.Millisecond); waitErr != nil {
			return errors.Join(err, waitErr)
		}
	}
	return err
}

// Unfence gives a container that shall run its restart policy. One that has ended while
// it was fenced is started, as the engine would have done: it is then seen to crash over
// and over, and not taken for one that somebody has stopped.
func (e *Engine) Unfence(ctx context.Context, c *Container, p runtime.Policy) error {
	if err := e.SetPolicy(ctx, c, p); err != nil {
		return err
	}
	now, err := e.Inspect(ctx, c.ID)
	if err != nil || now == nil || now.Raw.State.Status != "exited" {
		return err
	}
	if restarts := p.Name != Never.Name && (p.Name != string(container.RestartPolicyOnFailure) || now.Raw.State.ExitCode != 0); !restarts {
		return nil
	}
	if err := e.startOnce(ctx, now); Refused(err) {
		e.Notice(fmt.Sprintf("container %s does not start: %v", c.Name, err))
	} else if err != nil {
		return err
	}
	return nil
}

// notFound says what it means that the engine does not know the request for a change of
// a container: the container is gone, which is no error, or the engine has no such
// request (podman 4), and then the change was not made.
func (e *Engine) notFound(ctx context.Context, c *Container, answer error) error {
	now, err := e.Inspect(ctx, c.ID)
	if err != nil || now == nil {
		return err
	}
	return fmt.Errorf("set the restart policy of container %s: %w: %w", c.Name, runtime.ErrCannotFence, answer)
}

// CanFence returns [runtime.ErrCannotFence] where the engine cannot change the restart
// policies of these containers. Docker can; another engine is asked to set a policy to
// what it is.
func (e *Engine) CanFence(ctx context.Context, containers []*Container) error {
	c := First(containers, func(c *Container) bool { return c.Policy != Never })
	if c == nil {
		return nil
	}
	version, err := e.API.ServerVersion(ctx)
	if err != nil {
		return Failed(err, "ask the engine for its version")
	}
	if slices.ContainsFunc(version.Components, func(c types.ComponentVersion) bool { return c.Name == "Engine" }) {
		return nil
	}
	_, err = e.API.ContainerUpdate(ctx, c.ID, container.UpdateConfig{RestartPolicy: c.Raw.HostConfig.RestartPolicy})
	if errdefs.IsNotFound(err) {
		return e.notFound(ctx, c, err)
	}
	return nil // whatever else it says, it knows the request
}

// Start starts a container and makes sure that it can be reached. It returns a
// [*runtime.Unhealthy] for one that runs without its networks or ports all the same.
func (e *Engine) Start(ctx context.Context, c *Container) error {
	if err := e.startOnce(ctx, c); err != nil {
		return err
	}
	now, err := e.Inspect(ctx, c.ID)
	if err != nil || now == nil {
		return err
	}
	return e.attach(ctx, now, c)
}

func (e *Engine) startOnce(ctx context.Context, c *Container) error {
	return PortTaken(Failed(e.API.ContainerStart(ctx, c.ID, container.StartOptions{}), "start container %s", c.Name))
}

// PortTaken marks an error that is about a port. The engine has no code for that
// error, only these words: its own, and the kernel's.
func PortTaken(err error) error {
	if err != nil && (strings.Contains(err.Error(), "port is already allocated") || strings.Contains(err.Error(), "address already in use")) {
		return fmt.Errorf("%w: %w", runtime.ErrPortTaken, err)
	}
	return err
}

// SetPaused pauses or unpauses a container. Engines differ in how they answer when
// it is so already, so a refusal counts only when the container is not.
func (e *Engine) SetPaused(ctx context.Context, c *Container, paused bool) error {
	verb, request := "unpause", e.API.ContainerUnpause
	if paused {
		verb, request = "pause", e.API.ContainerPause
	}
	err := Failed(request(ctx, c.ID), "%s container %s", verb, c.Name)
	if !Refused(err) {
		return err
	}
	now, lookErr := e.Inspect(ctx, c.ID)
	if now != nil && now.Running && now.Paused == paused {
		return nil
	}
	if info, infoErr := e.API.Info(ctx); paused && infoErr == nil && has(info.SecurityOptions, "rootless") && info.CgroupVersion == "1" {
		// There is no freezer without a delegated cgroup, which version 1 has not.
		err = fmt.Errorf("%w: it is rootless on cgroup v1: %w", runtime.ErrCannotPause, err)
	}
	return errors.Join(err, lookErr)
}

// has reports whether the engine shows a security option, as "name=userns".
func has(options []string, name string) bool {
	return slices.ContainsFunc(options, func(o string) bool { return strings.Split(o, ",")[0] == "name="+name })
}

// Rename gives a container its name, where it has another one.
func (e *Engine) Rename(ctx context.Context, c *Container, name string) error {
	if c.Name == name {
		return nil
	}
	err := Failed(e.API.ContainerRename(ctx, c.ID, name), "rename container %s to %s", c.Name, name)
	if err == nil {
		c.Name = name
	}
	return err
}

// Remove removes a container, but not its volumes: they may hold data that
// another container takes over. It returns once the container is gone.
func (e *Engine) Remove(ctx context.Context, c *Container) error {
	var err error
	for range 20 {
		err = Failed(e.API.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true}), "remove container %s", c.Name)
		// The errors "already in progress" and "device or resource busy" go away
		// by themselves, and an answer may be lost. So look whether it is gone.
		now, lookErr := e.Inspect(ctx, c.ID)
		if lookErr != nil {
			return errors.Join(err, lookErr)
		}
		if now == nil {
			return nil
		}
		if waitErr := sleep(ctx, poll); waitErr != nil {
			return errors.Join(err, waitErr)
		}
	}
	return cmp.Or(err, fmt.Errorf("remove container %s: it is still there", c.Name))
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// Owner returns whose files the engine makes: root's, or those of whom it maps root to.
func (e *Engine) Owner(ctx context.Context) (uid, gid int, err error) {
	info, err := e.API.Info(ctx)
	if err != nil {
		return 0, 0, Failed(err, "ask the engine for its owner")
	}
	return ownerOf(info.SecurityOptions, info.DockerRootDir)
}

func ownerOf(options []string, root string) (uid, gid int, err error) {
	switch {
	case has(options, "userns"):
		if _, err := fmt.Sscanf(filepath.Base(root), "%d.%d", &uid, &gid); err != nil {
			return 0, 0, fmt.Errorf("the engine maps users, and its root %s does not say to whom: %w", root, err)
		}
	case has(options, "rootless"):
		info, err := os.Stat(root)
		if err != nil {
			return 0, 0, fmt.Errorf("whose the engine is: %w", err)
		}
		uid, gid = int(info.Sys().(*syscall.Stat_t).Uid), int(info.Sys().(*syscall.Stat_t).Gid)
	}
	return uid, gid, nil
}
