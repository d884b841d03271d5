package docker

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
)

// connectedByHand returns the networks of each container of a service, by its name:
// a container that is made anew has only those of the Compose file.
func (v *composeView) connectedByHand(service string) map[string]map[string]*network.EndpointSettings {
	out := map[string]map[string]*network.EndpointSettings{}
	for _, c := range v.of(service) {
		if !c.raw.HostConfig.NetworkMode.IsUserDefined() {
			continue
		}
		out[c.Name] = map[string]*network.EndpointSettings{}
		for name, had := range c.raw.NetworkSettings.Networks {
			// The engine adds the short id of a container to its aliases.
			aliases := slices.DeleteFunc(slices.Clone(had.Aliases), func(alias string) bool { return alias == c.ID[:12] })
			out[c.Name][name] = &network.EndpointSettings{IPAMConfig: had.IPAMConfig, Links: had.Links, Aliases: aliases}
		}
	}
	return out
}

// reconnect connects a container that was made anew to the networks that it had. The
// networks of the project itself are the Compose file's business.
func (a *composeApp) reconnect(ctx context.Context, c *inspected, had map[string]*network.EndpointSettings) error {
	for _, name := range slices.Sorted(maps.Keys(had)) {
		if _, has := c.raw.NetworkSettings.Networks[name]; has {
			continue
		}
		net, err := a.e.api.NetworkInspect(ctx, name, network.InspectOptions{})
		if errdefs.IsNotFound(err) || err == nil && net.Labels[composeProject] == c.label(composeProject) {
			continue
		}
		if err != nil {
			return failed(err, "inspect network %s", name)
		}
		if err := a.e.api.NetworkConnect(ctx, net.ID, c.ID, had[name]); err != nil {
			return failed(err, "connect container %s to network %s", c.Name, name)
		}
		a.e.notice(fmt.Sprintf("container %s is on network %s again, which is not in the Compose file", c.Name, name))
	}
	return nil
}
