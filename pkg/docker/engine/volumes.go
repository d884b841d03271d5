package engine

import (
	"context"
	"path/filepath"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/volume"

	"github.com/tiny-forge/snap/pkg/docker/mounts"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// VolumeDevices returns the directories of those named volumes that are really
// bind mounts (driver local, with a device).
func (e *Engine) VolumeDevices(ctx context.Context) (map[string]string, error) {
	found, err := e.API.VolumeList(ctx, volume.ListOptions{})
	if err != nil {
		return nil, Failed(err, "list volumes")
	}
	devices := map[string]string{}
	for _, v := range found.Volumes {
		if device := v.Options["device"]; v.Driver == "local" && filepath.IsAbs(device) {
			devices[v.Name] = device
		}
	}
	return devices, nil
}

// AddNamed adds the named volumes to what containers mount: the directories that they
// really are.
func (e *Engine) AddNamed(ctx context.Context, containers []*Container) error {
	var devices map[string]string
	for _, c := range containers {
		for _, m := range c.Raw.Mounts {
			if m.Type != mount.TypeVolume || !filepath.IsAbs(m.Source) {
				continue
			}
			if devices == nil {
				var err error
				if devices, err = e.VolumeDevices(ctx); err != nil {
					return err
				}
			}
			source := devices[m.Name]
			if source == "" {
				source = mounts.RealPath(m.Source)
			}
			c.Mounts = append(c.Mounts, runtime.Mount{Source: source, Target: m.Destination, Writable: m.RW})
		}
	}
	return nil
}
