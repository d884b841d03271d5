package docker

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/go-connections/nat"

	"github.com/tiny-forge/snap/pkg/docker/engine"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

func networkName(w *workload.Workload) string { return w.Project + "_" + w.Stage }

// specOf turns the config of a workload into a container. Its restart policy is
// "no": it gets the configured one when it has become healthy.
func specOf(w *workload.Workload, want wanted) (*container.CreateRequest, error) {
	exposed, bindings, err := nat.ParsePortSpecs(w.Ports)
	if err != nil {
		return nil, fmt.Errorf("workload %s: ports: %w", w.Name, err)
	}
	security, err := securityOf(w.SecurityOpt)
	if err != nil {
		return nil, fmt.Errorf("workload %s: security_opt: %w", w.Name, err)
	}
	labels := map[string]string{}
	maps.Copy(labels, w.Labels)
	maps.Copy(labels, map[string]string{engine.LabelWorkload: w.Name, engine.LabelConfig: w.Config, engine.LabelHash: want.hash, engine.LabelImage: want.ref})
	net := networkName(w)
	s := &container.CreateRequest{
		Config: &container.Config{
			Image: want.name, Env: pairs(w.Environment), Labels: labels, ExposedPorts: exposed,
			Cmd: []string(w.Command), Entrypoint: []string(w.Entrypoint),
			User: w.User, WorkingDir: w.WorkingDir, Hostname: w.Hostname,
			StopSignal: w.StopSignal, StopTimeout: engine.Seconds(time.Duration(w.StopGracePeriod)),
			Healthcheck: healthOf(w.Healthcheck),
		},
		HostConfig: &container.HostConfig{
			NetworkMode: container.NetworkMode(net), PortBindings: bindings,
			RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
			ShmSize:       int64(w.ShmSize), Init: w.Init, ReadonlyRootfs: w.ReadOnly, Tmpfs: tmpfsOf(w.Tmpfs),
			CapAdd: w.CapAdd, CapDrop: w.CapDrop, SecurityOpt: security, ExtraHosts: hostsOf(w.ExtraHosts), Sysctls: w.Sysctls,
		},
		NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
			net: {Aliases: []string{w.Name}},
		}},
	}
	for _, v := range w.Volumes {
		if v.Scope == workload.Named {
			s.HostConfig.Mounts = append(s.HostConfig.Mounts, mount.Mount{Type: mount.TypeVolume, Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly,
				VolumeOptions: &mount.VolumeOptions{NoCopy: want.asItIs}})
			continue
		}
		// Not HostConfig.Binds: there the engine makes a missing directory,
		// empty, and the app would come up without its data.
		bind := mount.Mount{Type: mount.TypeBind, Source: v.Path(), Target: v.Target, ReadOnly: v.ReadOnly}
		s.HostConfig.Mounts = append(s.HostConfig.Mounts, bind)
	}
	return s, nil
}

// restartOf is the configured restart policy.
func restartOf(w *workload.Workload) runtime.Policy {
	name, count, _ := strings.Cut(w.Restart, ":")
	retries, _ := strconv.Atoi(count) // none, and what Load let through, is 0: without end
	return runtime.Policy{Name: cmp.Or(name, engine.Never.Name), Retries: retries}
}

func healthOf(h *workload.Healthcheck) *container.HealthConfig {
	switch {
	case h == nil:
		return nil
	case h.Disable || len(h.Test) > 0 && h.Test[0] == "NONE":
		return &container.HealthConfig{Test: []string{"NONE"}}
	}
	return &container.HealthConfig{
		Test: h.Test, Interval: time.Duration(h.Interval), Timeout: time.Duration(h.Timeout),
		Retries: h.Retries, StartPeriod: time.Duration(h.StartPeriod),
	}
}

func pairs(m workload.Mapping) []string {
	out := make([]string, 0, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		out = append(out, key+"="+m[key])
	}
	return out
}

func tmpfsOf(mounts []string) map[string]string {
	out := map[string]string{}
	for _, m := range mounts {
		path, options, _ := strings.Cut(m, ":")
		out[path] = options
	}
	return out
}

// hostsOf takes Compose's "name=address" besides the engine's "name:address".
func hostsOf(hosts []string) []string {
	out := make([]string, len(hosts))
	for i, h := range hosts {
		out[i] = strings.Replace(h, "=", ":", 1)
	}
	return out
}

// securityOf puts the text of a seccomp profile where the config names its
// file: the engine does not read files.
func securityOf(options []string) ([]string, error) {
	out := make([]string, len(options))
	for i, o := range options {
		out[i] = o
		path, ok := strings.CutPrefix(strings.Replace(o, ":", "=", 1), "seccomp=")
		if !ok || path == "unconfined" || path == "builtin" {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, text); err != nil {
			return nil, fmt.Errorf("seccomp profile %s: %w", path, err)
		}
		out[i] = "seccomp=" + compact.String()
	}
	return out, nil
}

// hashOf names the config that a container is made from. Two configs with the
// same hash make the same container, given the same image.
func hashOf(w *workload.Workload) (string, error) {
	type bind struct {
		Source, Target string
		ReadOnly       bool
	}
	all := struct {
		Name, Network, Init string
		Container           workload.Container
		Binds               []bind
	}{Name: w.Name, Network: networkName(w), Container: w.Container}
	if w.Init != nil {
		all.Init = strconv.FormatBool(*w.Init) // false is not the same as unset
	}
	for _, v := range w.Volumes {
		source := v.Path()
		if v.Scope == workload.Named {
			source = v.Source
		}
		all.Binds = append(all.Binds, bind{source, v.Target, v.ReadOnly})
	}
	text, err := json.Marshal(all)
	if err != nil {
		return "", err
	}
	// Unset keys are left out. So a key that a later version of snap adds does not
	// change the hash of a config without it.
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		return "", err
	}
	if text, err = json.Marshal(prune(tree)); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sha256.Sum256(text)), nil
}

// prune drops the zero values of all objects in a JSON tree.
func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if value = prune(value); empty(value) {
				delete(v, key)
			} else {
				v[key] = value
			}
		}
	case []any:
		for i := range v {
			v[i] = prune(v[i])
		}
	}
	return v
}

func empty(v any) bool {
	switch v := v.(type) {
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return v == nil || v == false || v == 0.0 || v == ""
}
