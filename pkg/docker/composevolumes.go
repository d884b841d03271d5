package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/tiny-forge/snap/pkg/workload"
)

// ComposeVolumes returns the volumes of a Compose workload whose config lists
// none: every directory that a service of its file binds writable, with scope
// absolute. Notices say what is left out and why. A named volume refuses the
// workload: its data lies in the engine's own folder. The engine is not asked.
func ComposeVolumes(ctx context.Context, w *workload.Workload) (volumes []workload.Volume, notices []string, err error) {
	e, err := connect(Options{})
	if err != nil {
		return nil, nil, err
	}
	defer e.api.Close()
	p, err := compose{files: composeFiles(w.Compose), host: e.host}.config(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("workload %s: %w", w.Name, err)
	}
	volumes, notices, err = p.volumes()
	if err != nil {
		return nil, nil, fmt.Errorf("workload %s: %w", w.Name, err)
	}
	return volumes, notices, nil
}

func (p *project) volumes() ([]workload.Volume, []string, error) {
	byPath := map[string]workload.Volume{}
	skipped := map[string]string{} // what → why, of mounts that no other service has writable
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		for _, m := range p.Services[name].Volumes {
			why, err := leftOut(m)
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("service %s: %w", name, err))
			case why != "":
				skipped[m.what()] = fmt.Sprintf("service %s: %s is left out: %s", name, m.what(), why)
			case m.Type == "bind":
				source := filepath.Clean(m.Source)
				if _, twice := byPath[source]; !twice {
					byPath[source] = workload.Volume{Name: source, Scope: workload.Absolute, Source: source, Target: m.Target}
				}
			}
		}
	}
	if len(errs) > 0 {
		return nil, nil, errors.Join(errs...)
	}
	var volumes []workload.Volume
	var notices []string
	for _, path := range slices.Sorted(maps.Keys(byPath)) {
		// Sorted, so that a directory comes before what lies in it.
		if i := slices.IndexFunc(volumes, func(v workload.Volume) bool { return workload.Contains(v.Source, path) }); i >= 0 {
			notices = append(notices, fmt.Sprintf("%s is part of volume %s", path, volumes[i].Source))
			continue
		}
		volumes = append(volumes, byPath[path])
	}
	for _, what := range slices.Sorted(maps.Keys(skipped)) {
		if _, writable := byPath[what]; !writable {
			notices = append(notices, skipped[what])
		}
	}
	return volumes, notices, nil
}

func (m serviceMount) what() string {
	switch {
	case m.Type == "bind":
		return filepath.Clean(m.Source)
	case m.Source == "":
		return "the anonymous volume at " + m.Target
	}
	return m.Type + " " + m.Source
}

// leftOut says why a mount is no volume of the workload: with a reason where
// the operator should know, with an error where leaving it out would lose data.
func leftOut(m serviceMount) (why string, err error) {
	switch m.Type {
	case "tmpfs":
		return "", nil
	case "bind":
		if m.ReadOnly {
			return "it is mounted read-only", nil
		}
		info, err := os.Stat(m.Source)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return "", nil // Compose makes the directory
		case err != nil:
			return "", fmt.Errorf("bind mount %s: %w", m.Source, err)
		case !info.IsDir():
			return "it is no directory", nil
		}
		return "", nil
	case "volume":
		switch {
		case m.ReadOnly:
			return "it is mounted read-only", nil
		case m.Source == "":
			return "an anonymous volume ends with its container", nil
		}
		return "", fmt.Errorf("named volume %s (%s) is not supported: it lies in the engine's own folder, which only the engine may change; "+
			"mount a directory instead, or list the volumes that snap shall take in the config", m.Source, m.Target)
	}
	return "mounts of type " + m.Type + " hold no directory of this host", nil
}

// checkMounted returns ErrNotMounted for each volume that no service binds: it
// would be restored under the feet of an app that does not look there.
func (p *project) checkMounted(volumes []workload.Volume) error {
	bound := map[string]bool{}
	for _, s := range p.Services {
		for _, m := range s.Volumes {
			if m.Type == "bind" {
				bound[filepath.Clean(m.Source)] = true
				bound[realPath(filepath.Clean(m.Source))] = true
			}
		}
	}
	var errs []error
	for i := range volumes {
		if path := volumes[i].Path(); !bound[path] && !bound[realPath(path)] {
			errs = append(errs, fmt.Errorf("volume %s (%s): %w: correct volumes in the config, or the Compose file", volumes[i].Name, path, ErrNotMounted))
		}
	}
	return errors.Join(errs...)
}
