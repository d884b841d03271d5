package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// The labels by which the containers of an image workload are known again.
const (
	labelWorkload = "snap.workload"    // the workload's name
	labelConfig   = "snap.config"      // the path of the config it was made from
	labelHash     = "snap.config-hash" // of what that config says of the container
	labelImage    = "snap.image"       // the reference, where it was made by the id
	labelNetwork  = "snap.network"
)

// engine is the connection to the Docker engine, with the single steps that
// everything else is made of. Each step tolerates that it is already done.
type engine struct {
	api    *client.Client
	notice func(string)
}

// failed says in an error what failed, and whether the engine did not answer.
func failed(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	if client.IsErrConnectionFailed(err) {
		err = fmt.Errorf("%w: %w", runtime.ErrUnreachable, err)
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}

// refused reports whether the engine answered and said no. Then its state is
// known, and it makes sense to try something else.
func refused(err error) bool {
	return err != nil && !errors.Is(err, runtime.ErrUnreachable) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// detached is a context for undoing work after the caller's has ended, with a limit.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 5*time.Minute)
}

// inspected is one container as the engine shows it.
type inspected struct {
	runtime.Container
	raw container.InspectResponse
}

func (c *inspected) label(key string) string { return c.raw.Config.Labels[key] }

// byID returns the container of that id, or nil.
func byID(containers []*inspected, id string) *inspected {
	return first(containers, func(c *inspected) bool { return c.ID == id })
}

// byName returns the container of that name, or nil.
func byName(containers []*inspected, name string) *inspected {
	return first(containers, func(c *inspected) bool { return c.Name == name })
}

func first(containers []*inspected, is func(*inspected) bool) *inspected {
	if i := slices.IndexFunc(containers, is); i >= 0 {
		return containers[i]
	}
	return nil
}

// active reports whether its processes run and are not frozen.
func (c *inspected) active() bool { return c.Awake() && !c.raw.State.Restarting }

// list returns the containers that have all of these labels, as "key=value".
func (e *engine) list(ctx context.Context, labels ...string) ([]*inspected, error) {
	filter := filters.NewArgs()
	for _, label := range labels {
		filter.Add("label", label)
	}
	found, err := e.api.ContainerList(ctx, container.ListOptions{All: true, Filters: filter})
	if err != nil {
		return nil, failed(err, "list containers")
	}
	var containers []*inspected
	for _, summary := range found {
		c, err := e.inspect(ctx, summary.ID)
		if err != nil {
			return nil, err
		}
		if c != nil && c.raw.State.Status != "removing" {
			containers = append(containers, c)
		}
	}
	return containers, nil
}

// inspect returns a container, or nil when there is none of that name or id.
func (e *engine) inspect(ctx context.Context, id string) (*inspected, error) {
	raw, err := e.api.ContainerInspect(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, failed(err, "inspect container %s", id)
	}
	policy := raw.HostConfig.RestartPolicy
	c := &inspected{raw: raw, Container: runtime.Container{
		ID:      raw.ID,
		Name:    strings.TrimPrefix(raw.Name, "/"),
		Service: raw.Config.Labels[composeService],
		Image:   cmp.Or(raw.Config.Labels[labelImage], raw.Config.Image),
		ImageID: raw.Image,
		Running: raw.State.Running,
		Paused:  raw.State.Paused,
		PID:     raw.State.Pid,
		Policy:  runtime.Policy{Name: cmp.Or(string(policy.Name), never.Name), Retries: policy.MaximumRetryCount},

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

// never is the policy of a fenced container.
var never = runtime.Policy{Name: string(container.RestartPolicyDisabled)}

// setPolicy gives a container, if it still exists, its restart policy. It tries more
// than once: the engine refuses while a container exits or starts, and one that
// crashes over and over often does.
func (e *engine) setPolicy(ctx context.Context, c *inspected, p runtime.Policy) error {
	p.Name = cmp.Or(p.Name, never.Name)
	if c.Policy == p {
		return nil
	}
	update := container.UpdateConfig{RestartPolicy: container.RestartPolicy{
		Name: container.RestartPolicyMode(p.Name), MaximumRetryCount: p.Retries,
	}}
	var err error
	for range 10 {
		_, err = e.api.ContainerUpdate(ctx, c.ID, update)
		if errdefs.IsNotFound(err) {
			if err = e.notFound(ctx, c, err); err != nil {
				return err
			}
		}
		if err == nil {
			c.Policy = p
			return nil
		}
		if err = failed(err, "set the restart policy of container %s to %s", c.Name, p.Name); !refused(err) {
			return err
		}
		if waitErr := sleep(ctx, 200*time.Millisecond); waitErr != nil {
			return errors.Join(err, waitErr)
		}
	}
	return err
}

// unfence gives a container that shall run its restart policy. One that has ended while
// it was fenced is started, as the engine would have done: it is then seen to crash over
// and over, and not taken for one that somebody has stopped.
func (e *engine) unfence(ctx context.Context, c *inspected, p runtime.Policy) error {
	if err := e.setPolicy(ctx, c, p); err != nil {
		return err
	}
	now, err := e.inspect(ctx, c.ID)
	if err != nil || now == nil || now.raw.State.Status != "exited" {
		return err
	}
	if restarts := p.Name != never.Name && (p.Name != string(container.RestartPolicyOnFailure) || now.raw.State.ExitCode != 0); !restarts {
		return nil
	}
	if err := e.startOnce(ctx, now); refused(err) {
		e.notice(fmt.Sprintf("container %s does not start: %v", c.Name, err))
	} else if err != nil {
		return err
	}
	return nil
}

// notFound says what it means that the engine does not know the request for a change of
// a container: the container is gone, which is no error, or the engine has no such
// request (podman 4), and then the change was not made.
func (e *engine) notFound(ctx context.Context, c *inspected, answer error) error {
	now, err := e.inspect(ctx, c.ID)
	if err != nil || now == nil {
		return err
	}
	return fmt.Errorf("set the restart policy of container %s: %w: %w", c.Name, runtime.ErrCannotFence, answer)
}

// canFence returns [runtime.ErrCannotFence] where the engine cannot change the restart
// policies of these containers. Docker can; another engine is asked to set a policy to
// what it is.
func (e *engine) canFence(ctx context.Context, containers []*inspected) error {
	c := first(containers, func(c *inspected) bool { return c.Policy != never })
	if c == nil {
		return nil
	}
	version, err := e.api.ServerVersion(ctx)
	if err != nil {
		return failed(err, "ask the engine for its version")
	}
	if slices.ContainsFunc(version.Components, func(c types.ComponentVersion) bool { return c.Name == "Engine" }) {
		return nil
	}
	_, err = e.api.ContainerUpdate(ctx, c.ID, container.UpdateConfig{RestartPolicy: c.raw.HostConfig.RestartPolicy})
	if errdefs.IsNotFound(err) {
		return e.notFound(ctx, c, err)
	}
	return nil // whatever else it says, it knows the request
}

// start starts a container and makes sure that it can be reached.
func (e *engine) start(ctx context.Context, c *inspected) error {
	if err := e.startOnce(ctx, c); err != nil {
		return err
	}
	now, err := e.inspect(ctx, c.ID)
	if err != nil || now == nil {
		return err
	}
	return e.attach(ctx, now, c)
}

func (e *engine) startOnce(ctx context.Context, c *inspected) error {
	return portTaken(failed(e.api.ContainerStart(ctx, c.ID, container.StartOptions{}), "start container %s", c.Name))
}

// portTaken marks an error that is about a port. The engine has no code for that
// error, only these words: its own, and the kernel's.
func portTaken(err error) error {
	if err != nil && (strings.Contains(err.Error(), "port is already allocated") || strings.Contains(err.Error(), "address already in use")) {
		return fmt.Errorf("%w: %w", runtime.ErrPortTaken, err)
	}
	return err
}

// setPaused pauses or unpauses a container. Engines differ in how they answer when
// it is so already, so a refusal counts only when the container is not.
func (e *engine) setPaused(ctx context.Context, c *inspected, paused bool) error {
	verb, request := "unpause", e.api.ContainerUnpause
	if paused {
		verb, request = "pause", e.api.ContainerPause
	}
	err := failed(request(ctx, c.ID), "%s container %s", verb, c.Name)
	if !refused(err) {
		return err
	}
	now, lookErr := e.inspect(ctx, c.ID)
	if now != nil && now.Running && now.Paused == paused {
		return nil
	}
	if info, infoErr := e.api.Info(ctx); paused && infoErr == nil && has(info.SecurityOptions, "rootless") && info.CgroupVersion == "1" {
		// There is no freezer without a delegated cgroup, which version 1 has not.
		err = fmt.Errorf("%w: it is rootless on cgroup v1: %w", runtime.ErrCannotPause, err)
	}
	return errors.Join(err, lookErr)
}

// has reports whether the engine shows a security option, as "name=userns".
func has(options []string, name string) bool {
	return slices.ContainsFunc(options, func(o string) bool { return strings.Split(o, ",")[0] == "name="+name })
}

func (e *engine) rename(ctx context.Context, c *inspected, name string) error {
	if c.Name == name {
		return nil
	}
	err := failed(e.api.ContainerRename(ctx, c.ID, name), "rename container %s to %s", c.Name, name)
	if err == nil {
		c.Name = name
	}
	return err
}

// remove removes a container, but not its volumes: they may hold data that
// another container takes over. It returns once the container is gone.
func (e *engine) remove(ctx context.Context, c *inspected) error {
	var err error
	for range 20 {
		err = failed(e.api.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true}), "remove container %s", c.Name)
		// The errors "already in progress" and "device or resource busy" go away
		// by themselves, and an answer may be lost. So look whether it is gone.
		now, lookErr := e.inspect(ctx, c.ID)
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
