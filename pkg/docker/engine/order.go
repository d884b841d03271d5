package engine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/tiny-forge/snap/pkg/compose"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// patience bounds the wait for one dependency: bringing containers back waits
// for health only to start them in the order that the Compose file asks for.
const patience = 30 * time.Second

// dependencies returns the services that a container is started after, and
// under which condition. Compose lists them in a label:
// "db:service_healthy:false,job:service_completed_successfully:false".
func dependencies(c *Container) map[string]string {
	out := map[string]string{}
	for item := range strings.SplitSeq(c.Raw.Config.Labels[compose.LabelDepends], ",") {
		if parts := strings.Split(item, ":"); len(parts) > 1 {
			out[parts[0]] = parts[1]
		}
	}
	return out
}

// InOrder sorts containers so that each comes after those it depends on, and after
// those whose namespaces it joins. Those that depend on nothing, or on one another,
// keep their order.
func InOrder(containers []*Container) []*Container {
	var out []*Container
	visiting := map[string]bool{}
	var visit func(c *Container)
	visit = func(c *Container) {
		if visiting[c.ID] {
			return
		}
		visiting[c.ID] = true
		deps := dependencies(c)
		for _, other := range containers {
			if _, ok := deps[other.Service]; ok && other.Service != "" || c.Joins(other.Container) {
				visit(other)
			}
		}
		out = append(out, c)
	}
	for _, c := range containers {
		visit(c)
	}
	return out
}

// AwaitDependencies waits until the containers that c wants healthy are so, or say
// that they are not, each for 30 s at most: c is started in any case.
func (e *Engine) AwaitDependencies(ctx context.Context, c *Container, containers []*Container) error {
	for service, condition := range dependencies(c) {
		other := First(containers, func(o *Container) bool { return o.Service == service })
		if condition != "service_healthy" || other == nil {
			continue
		}
		if err := e.awaitOne(ctx, &Watch{ID: other.ID}); err != nil {
			return err
		}
	}
	return nil
}

// awaitOne waits while the engine has not made up its mind about a container, and its
// check has not passed when snap itself ran it: the engine's first probe comes late.
func (e *Engine) awaitOne(ctx context.Context, w *Watch) error {
	defer w.probe.end()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		now, err := e.Inspect(ctx, w.ID)
		if err != nil {
			return err
		}
		if now == nil || !now.Active() || now.Health() != container.Starting || w.probe.passedAt().After(lastFailure(now)) {
			return nil
		}
		e.probeOnce(ctx, w, now)
		if err := sleep(ctx, poll); err != nil {
			return err
		}
	}
	return nil
}

// StartAgain starts a container. One that joins another container, of whoever, tries
// until that one runs.
func (e *Engine) StartAgain(ctx context.Context, c *Container) error {
	host := c.Raw.HostConfig
	joins := host.NetworkMode.IsContainer() || host.IpcMode.IsContainer() || host.PidMode.IsContainer()
	for deadline := time.Now().Add(patience); ; {
		err := e.Start(ctx, c)
		if !joins || !Refused(err) || errors.Is(err, runtime.ErrPortTaken) || time.Now().After(deadline) {
			return err
		}
		if waitErr := sleep(ctx, 2*poll); waitErr != nil {
			return errors.Join(err, waitErr)
		}
	}
}

// Joins reports whether a container lives in a namespace of the other one, or takes
// its volumes.
func (c *Container) Joins(other runtime.Container) bool {
	if c.Raw.ContainerJSONBase == nil || c.ID == other.ID {
		return false
	}
	host := c.Raw.HostConfig
	joined := func(name string) bool { return name != "" && (name == other.ID || name == other.Name) }
	if joined(host.NetworkMode.ConnectedContainer()) || joined(host.IpcMode.Container()) || joined(host.PidMode.Container()) {
		return true
	}
	return slices.ContainsFunc(host.VolumesFrom, func(from string) bool {
		name, _, _ := strings.Cut(from, ":")
		return joined(name)
	})
}
