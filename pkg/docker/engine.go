package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// The labels by which the containers of an image workload are known again.
const (
	labelWorkload = "snap.workload"    // the workload's name
	labelHash     = "snap.config-hash" // of the config it was made from
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
		if err == nil || errdefs.IsNotFound(err) {
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

func (e *engine) start(ctx context.Context, c *inspected) error {
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
	return errors.Join(err, lookErr)
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
