package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	host   string
	notice func(string)
}

func connect(opts Options, more ...client.Opt) (*engine, error) {
	all := append([]client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}, more...)
	api, err := client.NewClientWithOpts(all...)
	if err != nil {
		return nil, fmt.Errorf("docker engine (DOCKER_HOST=%q): %w", os.Getenv(client.EnvOverrideHost), err)
	}
	host := api.DaemonHost()
	if !strings.HasPrefix(host, "unix://") {
		return nil, errors.Join(fmt.Errorf("docker engine %s: %w: set DOCKER_HOST to a unix:// socket, or unset it", host, ErrNotLocal), api.Close())
	}
	e := &engine{api: api, host: host, notice: opts.Notice}
	if e.notice == nil {
		e.notice = func(string) {}
	}
	return e, nil
}

// socketMissing reports whether there is no engine at all.
func (e *engine) socketMissing() bool {
	_, err := os.Stat(strings.TrimPrefix(e.host, "unix://"))
	return errors.Is(err, os.ErrNotExist)
}

// failed says in an error what failed, and marks it where the engine did not
// answer.
func failed(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	what := fmt.Sprintf(format, args...)
	if client.IsErrConnectionFailed(err) {
		return fmt.Errorf("%s: %w: %w", what, runtime.ErrUnreachable, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// refused reports whether the engine answered and said no. Then its state is
// known, and it makes sense to try something else.
func refused(err error) bool {
	return err != nil && !errors.Is(err, runtime.ErrUnreachable) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// detached is a context for undoing work after the caller's has ended. It has a
// limit, so that an engine that hangs does not hold snap for ever.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 5*time.Minute)
}

// inspected is one container as the engine shows it.
type inspected struct {
	runtime.Container
	raw container.InspectResponse
}

func (c *inspected) label(key string) string { return c.raw.Config.Labels[key] }

// active reports whether its processes run and are not frozen.
func (c *inspected) active() bool { return c.Running && !c.Paused && !c.raw.State.Restarting }

func (e *engine) list(ctx context.Context, filter filters.Args) ([]*inspected, error) {
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
	c := &inspected{raw: raw, Container: runtime.Container{
		ID:      raw.ID,
		Name:    strings.TrimPrefix(raw.Name, "/"),
		Service: raw.Config.Labels[composeService],
		Image:   raw.Config.Labels[labelImage],
		ImageID: raw.Image,
		Running: raw.State.Running,
		Paused:  raw.State.Paused,
		Policy:  policyOf(raw.HostConfig.RestartPolicy),

		StopTimeout: stopTimeout(raw.Config.StopTimeout),
	}}
	if c.Image == "" {
		c.Image = raw.Config.Image
	}
	for _, m := range raw.Mounts {
		if m.Type == "bind" {
			c.Mounts = append(c.Mounts, runtime.Mount{Source: m.Source, Target: m.Destination, Writable: m.RW})
		}
	}
	return c, nil
}

// stopTimeout returns how long the engine waits for a clean stop, which is ten
// seconds unless the container asks for something else; negative is for ever.
func stopTimeout(seconds *int) time.Duration {
	if seconds == nil {
		return 10 * time.Second
	}
	return time.Duration(*seconds) * time.Second
}

func policyOf(p container.RestartPolicy) runtime.Policy {
	if p.Name == "" {
		p.Name = container.RestartPolicyDisabled
	}
	return runtime.Policy{Name: string(p.Name), Retries: p.MaximumRetryCount}
}

// never is the policy of a fenced container.
var never = runtime.Policy{Name: string(container.RestartPolicyDisabled)}

// setPolicy gives a container its restart policy; nothing is to do for one that
// is gone. It tries more than once: the engine refuses while a container exits or
// starts, and one that crashes over and over often does.
func (e *engine) setPolicy(ctx context.Context, c *inspected, p runtime.Policy) error {
	if p.Name == "" {
		p = never
	}
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

func (e *engine) pause(ctx context.Context, c *inspected) error {
	return e.alreadySo(ctx, c, e.api.ContainerPause(ctx, c.ID), "pause", func(now *inspected) bool { return now != nil && now.Paused })
}

func (e *engine) unpause(ctx context.Context, c *inspected) error {
	return e.alreadySo(ctx, c, e.api.ContainerUnpause(ctx, c.ID), "unpause", func(now *inspected) bool { return now != nil && now.Running && !now.Paused })
}

// alreadySo drops the error of a step when the container is in the wanted state
// all the same: engines differ in how they answer then.
func (e *engine) alreadySo(ctx context.Context, c *inspected, err error, verb string, done func(*inspected) bool) error {
	if err == nil {
		return nil
	}
	err = failed(err, "%s container %s", verb, c.Name)
	if !refused(err) {
		return err
	}
	now, lookErr := e.inspect(ctx, c.ID)
	if lookErr != nil {
		return errors.Join(err, lookErr)
	}
	if done(now) {
		return nil
	}
	return err
}

func (e *engine) rename(ctx context.Context, c *inspected, name string) error {
	if c.Name == name {
		return nil
	}
	if err := e.api.ContainerRename(ctx, c.ID, name); err != nil {
		return failed(err, "rename container %s to %s", c.Name, name)
	}
	c.Name = name
	return nil
}

// remove removes a container, but not its volumes: they may hold data that
// another container takes over. It returns once the container is gone.
func (e *engine) remove(ctx context.Context, c *inspected) error {
	var err error
	for range 20 {
		err = e.api.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true})
		if errdefs.IsNotFound(err) {
			return nil
		}
		// The errors "already in progress" and "device or resource busy" go away
		// by themselves, and an answer may be lost. So look whether it is gone.
		err = failed(err, "remove container %s", c.Name)
		now, lookErr := e.inspect(ctx, c.ID)
		if lookErr != nil {
			return errors.Join(err, lookErr)
		}
		if now == nil {
			return nil
		}
		if waitErr := sleep(ctx, 100*time.Millisecond); waitErr != nil {
			return errors.Join(err, waitErr)
		}
	}
	if err == nil {
		err = fmt.Errorf("remove container %s: it is still there", c.Name)
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
