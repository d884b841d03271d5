package engine

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// attach makes sure that a container that has just started has the networks and the
// published ports that it was made with, as was, a look at it from before the start,
// still shows. When a start fails because a port is taken, Docker 29 forgets the networks
// of the container, and the next start succeeds without any (moby/moby issue 51758). A
// container that lacks some is connected and started once more; if that does not help, it
// is [*runtime.Unhealthy].
func (e *Engine) attach(ctx context.Context, c, was *Container) error {
	lacks, err := e.Lacks(ctx, c)
	if err != nil || lacks == "" {
		return err
	}
	e.Notice(fmt.Sprintf("container %s runs without %s; snap starts it once more", c.Name, lacks))
	if err := e.Stop(ctx, c, 0); err != nil {
		return err
	}
	if err := e.reconnect(ctx, c, was); err != nil {
		return err
	}
	if err := e.startOnce(ctx, c); err != nil {
		return err
	}
	now, err := e.Inspect(ctx, c.ID)
	if err != nil || now == nil {
		return err
	}
	if lacks, err = e.Lacks(ctx, now); err != nil || lacks == "" {
		return err
	}
	return &runtime.Unhealthy{Container: c.Name, Reason: "it runs, and cannot be reached: it was started without " + lacks}
}

// reconnect connects a stopped container anew to the networks that it has lost.
func (e *Engine) reconnect(ctx context.Context, c, was *Container) error {
	wanted := maps.Clone(was.Raw.NetworkSettings.Networks)
	if wanted == nil {
		wanted = map[string]*network.EndpointSettings{}
	}
	own := networkOf(c)
	known := func(at *network.EndpointSettings) bool { return at != nil && at.NetworkID == own }
	if wanted[own] == nil && !slices.ContainsFunc(slices.Collect(maps.Values(wanted)), known) { // forgotten: of its names there, the labels tell
		wanted[own] = &network.EndpointSettings{}
		if c.Raw.HostConfig.NetworkMode.IsUserDefined() {
			wanted[own].Aliases = slices.DeleteFunc([]string{c.Raw.Config.Labels[LabelWorkload], c.Service}, func(alias string) bool { return alias == "" })
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if !unattached(c.Raw.NetworkSettings.Networks[name]) {
			continue
		}
		// A refusal means that the container is not connected; the connect tells.
		if err := Failed(e.API.NetworkDisconnect(ctx, name, c.ID, true), "disconnect container %s from network %s", c.Name, name); err != nil && !Refused(err) {
			return err
		}
		had := wanted[name]
		// The engine adds the short id of a container to its aliases.
		aliases := slices.DeleteFunc(slices.Clone(had.Aliases), func(alias string) bool { return len(alias) == 12 && strings.HasPrefix(c.ID, alias) })
		as := &network.EndpointSettings{IPAMConfig: had.IPAMConfig, Links: had.Links, Aliases: aliases, DriverOpts: had.DriverOpts}
		if err := e.API.NetworkConnect(ctx, name, c.ID, as); err != nil {
			return Failed(err, "connect container %s to network %s", c.Name, name)
		}
	}
	return nil
}

// networkOf is the network that a container was made on.
func networkOf(c *Container) string {
	if mode := c.Raw.HostConfig.NetworkMode; !mode.IsDefault() {
		return mode.NetworkName()
	}
	return network.NetworkBridge
}

// unattached reports whether a running container is not on the network. podman has no
// ids of endpoints; a network that gives no addresses leaves those empty.
func unattached(at *network.EndpointSettings) bool {
	return at == nil || cmp.Or(at.EndpointID, at.IPAddress, at.GlobalIPv6Address) == ""
}

// Lacks says which networks and published ports a running container should have and
// does not; "" for none.
func (e *Engine) Lacks(ctx context.Context, c *Container) (string, error) {
	mode, has := c.Raw.HostConfig.NetworkMode, c.Raw.NetworkSettings
	if !c.Active() || has == nil || c.Raw.Config.NetworkDisabled || mode.IsHost() || mode.IsNone() || mode.IsContainer() {
		return "", nil
	}
	if len(has.Networks) == 0 {
		name := networkOf(c)
		// What is not a network of the engine is another way to reach the container,
		// such as podman's slirp4netns.
		if _, err := e.API.NetworkInspect(ctx, name, network.InspectOptions{}); err != nil {
			if errdefs.IsNotFound(err) {
				return "", nil
			}
			return "", Failed(err, "inspect network %s", name)
		}
		return "network " + name, nil
	}
	for _, name := range slices.Sorted(maps.Keys(has.Networks)) {
		if unattached(has.Networks[name]) {
			return "network " + name, nil
		}
	}
	var ports []string
	for port, asked := range c.Raw.HostConfig.PortBindings {
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
func (e *Engine) publishes(ctx context.Context, c *Container) (bool, error) {
	for name, at := range c.Raw.NetworkSettings.Networks {
		net, err := e.API.NetworkInspect(ctx, cmp.Or(at.NetworkID, name), network.InspectOptions{})
		if err != nil {
			return false, Failed(err, "inspect network %s", name)
		}
		if net.Driver == "bridge" && !net.Internal {
			return true, nil
		}
	}
	return false, nil
}
