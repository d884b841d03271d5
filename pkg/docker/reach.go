package docker

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// attach makes sure that a container that has just started has the networks and the
// published ports that it was made with. Docker 29 starts a container without them when
// the start before has failed because a port was taken. To stop and start it once more
// helps then. If it does not, the container is [*runtime.Unhealthy].
func (e *engine) attach(ctx context.Context, c *inspected) error {
	lacks, err := e.lacks(ctx, c)
	if err != nil || lacks == "" {
		return err
	}
	e.notice(fmt.Sprintf("container %s runs without %s; snap starts it once more", c.Name, lacks))
	if err := portTaken(failed(e.api.ContainerRestart(ctx, c.ID, container.StopOptions{}), "restart container %s", c.Name)); err != nil {
		return err
	}
	now, err := e.inspect(ctx, c.ID)
	if err != nil || now == nil {
		return err
	}
	if lacks, err = e.lacks(ctx, now); err != nil || lacks == "" {
		return err
	}
	return &runtime.Unhealthy{Container: c.Name, Reason: "it runs, and cannot be reached: it was started without " + lacks}
}

// lacks says which networks and published ports a running container should have and
// does not; "" for none.
func (e *engine) lacks(ctx context.Context, c *inspected) (string, error) {
	mode, has := c.raw.HostConfig.NetworkMode, c.raw.NetworkSettings
	if !c.active() || has == nil || c.raw.Config.NetworkDisabled || mode.IsHost() || mode.IsNone() || mode.IsContainer() {
		return "", nil
	}
	if len(has.Networks) == 0 {
		name := mode.NetworkName()
		if mode.IsDefault() {
			name = network.NetworkBridge
		}
		// What is not a network of the engine is another way to reach the container,
		// such as podman's slirp4netns.
		if _, err := e.api.NetworkInspect(ctx, name, network.InspectOptions{}); err != nil {
			if errdefs.IsNotFound(err) {
				return "", nil
			}
			return "", failed(err, "inspect network %s", name)
		}
		return "network " + name, nil
	}
	for _, name := range slices.Sorted(maps.Keys(has.Networks)) {
		// podman has no endpoint ids; a network without addresses has no address.
		if at := has.Networks[name]; at == nil || cmp.Or(at.EndpointID, at.IPAddress, at.GlobalIPv6Address, at.MacAddress) == "" {
			return "network " + name, nil
		}
	}
	var ports []string
	for port, asked := range c.raw.HostConfig.PortBindings {
		if len(asked) > 0 && len(has.Ports[port]) == 0 {
			ports = append(ports, string(port))
		}
	}
	if ports == nil {
		return "", nil
	}
	publishes, err := e.publishes(ctx, c)
	if err != nil || !publishes {
		return "", err
	}
	slices.Sort(ports)
	return "port " + strings.Join(ports, ", "), nil
}

// publishes reports whether one of a container's networks publishes ports. Others, such
// as macvlan, and internal ones take the setting and ignore it.
func (e *engine) publishes(ctx context.Context, c *inspected) (bool, error) {
	for name, at := range c.raw.NetworkSettings.Networks {
		net, err := e.api.NetworkInspect(ctx, cmp.Or(at.NetworkID, name), network.InspectOptions{})
		if err != nil {
			return false, failed(err, "inspect network %s", name)
		}
		if net.Driver == "bridge" && !net.Internal {
			return true, nil
		}
	}
	return false, nil
}
