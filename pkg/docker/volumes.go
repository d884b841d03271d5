package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

type serviceMount struct {
	Type     string `json:"type"`
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only"`
}

func (a *composeApp) volumes(ctx context.Context) ([]runtime.Volume, []string, error) {
	p, err := a.config(ctx)
	if err != nil {
		return nil, nil, err
	}
	byPath := map[string]runtime.Volume{}
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
					byPath[source] = runtime.Volume{Name: source, Source: source, Target: m.Target}
				}
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, fmt.Errorf("workload %s: %w", a.w.Name, err)
	}
	var volumes []runtime.Volume
	var notices []string
	for _, path := range slices.Sorted(maps.Keys(byPath)) {
		// Sorted, so that a directory comes before what lies in it.
		if i := slices.IndexFunc(volumes, func(v runtime.Volume) bool { return workload.Contains(v.Source, path) }); i >= 0 {
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

// leftOut says why a mount is not a volume of the workload: a reason where the
// operator should know, an error where leaving it out would lose data.
func leftOut(m serviceMount) (why string, err error) {
	switch {
	case m.Type == "tmpfs":
		return "", nil
	case m.Type != "bind" && m.Type != "volume":
		return "a mount of type " + m.Type + " is not a directory of this host", nil
	case m.ReadOnly:
		return "it is mounted read-only", nil
	case m.Type == "volume" && m.Source == "":
		return "an anonymous volume ends with its container", nil
	case m.Type == "volume":
		return "", fmt.Errorf("named volume %s (%s) is not supported: it lies in the engine's own folder, which only the engine may change; "+
			"mount a directory instead, or list the volumes that snap shall take in the config", m.Source, m.Target)
	}
	info, err := os.Stat(m.Source)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", nil // Compose makes the directory
	case err != nil:
		return "", fmt.Errorf("bind mount %s: %w", m.Source, err)
	case !info.IsDir():
		return "it is not a directory", nil
	}
	return "", nil
}

// checkMounted returns an error for each of the config's volumes that no service
// binds: it would be restored, and the app would not see it.
func (p *project) checkMounted(volumes []workload.Volume) error {
	bound := map[string]bool{}
	for _, s := range p.Services {
		for _, m := range s.Volumes {
			if m.Type == "bind" {
				bound[realPath(filepath.Clean(m.Source))] = true
			}
		}
	}
	var errs []error
	for _, v := range volumes {
		if !bound[realPath(v.Path())] {
			errs = append(errs, &runtime.Refusal{
				Code: runtime.NotMounted, Err: errNotMounted, Reason: fmt.Sprintf("volume %s (%s): %v", v.Name, v.Path(), errNotMounted),
				Hint: "correct `volumes:` in the config, or the Compose file",
			})
		}
	}
	return errors.Join(errs...)
}
