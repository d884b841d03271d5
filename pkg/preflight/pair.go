package preflight

import (
	"fmt"
	"maps"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// pairing says which volume of a snapshot goes into which volume of the config, by the
// name of the latter.
type pairing map[string]*store.Volume

// pair matches the snapshot's volumes with those of the config: as the operator says it,
// and else by name, scope and source, or by what a volume was. Where data goes the current
// config alone says, so a volume of the snapshot that none of the config is, is refused.
func (h *Host) pair(p *Plan) (pairing, error) {
	pairs, taken := pairing{}, map[*store.Volume]string{}
	for _, arg := range p.req.Map {
		from, into, err := h.mapped(p.manifest, arg)
		if err != nil {
			return nil, err
		}
		if pairs[into.Name] != nil || taken[from] != "" {
			return nil, fault.New(fault.Usage, "bad_map", remedy.Remedy{}, "--map %q: a volume can be mapped once", arg)
		}
		pairs[into.Name], taken[from] = from, into.Name
	}
	said := maps.Clone(taken)
	for i := range h.Workload.Volumes {
		v := &h.Workload.Volumes[i]
		from := snapshot.Stored(p.manifest, v)
		if pairs[v.Name] != nil || from == nil || said[from] != "" {
			continue
		}
		if taken[from] != "" {
			return nil, fault.Refuse("volume_unresolved", remedy.Of("correct `was:` in the config, or choose with --map"),
				"volumes %q and %q of the config both are the snapshot's volume %q", taken[from], v.Name, from.Name)
		}
		pairs[v.Name], taken[from] = from, v.Name
	}
	for i := range p.manifest.Volumes {
		if m := &p.manifest.Volumes[i]; taken[m] == "" {
			if err := h.unpaired(p, m); err != nil {
				return nil, err
			}
		}
	}
	return pairs, nil
}

// mapped takes OLD=NEW apart. Names may have an = in them, so every one is tried.
func (h *Host) mapped(m *store.Manifest, arg string) (from *store.Volume, into *workload.Volume, err error) {
	why := fmt.Errorf("it is not OLD=NEW")
	for i, r := range arg {
		if r != '=' {
			continue
		}
		v, noVolume := h.Workload.Volume(arg[i+1:])
		s := called(m, arg[:i])
		switch {
		case noVolume != nil:
			why = noVolume
		case s == nil:
			why = fmt.Errorf("the snapshot has no volume %q", arg[:i])
		case from != nil:
			return nil, nil, fault.New(fault.Usage, "bad_map", remedy.Of("name volumes so that one = is between them"), "--map %q can be read in two ways", arg)
		default:
			from, into = s, v
		}
	}
	if from == nil {
		return nil, nil, fault.New(fault.Usage, "bad_map", remedy.Of("write --map OLD=NEW: a volume of the snapshot (`", remedy.Show(h.Workload.Name, m.SID), "`), and one of the config"), "--map %q: %w", arg, why)
	}
	return from, into, nil
}

// called returns the volume of that name, or the only one of that source.
func called(m *store.Manifest, name string) (found *store.Volume) {
	for i := range m.Volumes {
		v := &m.Volumes[i]
		if v.Name == name {
			return v
		}
		if v.Source == name {
			if found != nil {
				return nil
			}
			found = v
		}
	}
	return found
}

// unpaired refuses a volume of the snapshot that the config does not have.
func (h *Host) unpaired(p *Plan, m *store.Volume) error {
	if h.Mounts.Excludes(m.Source) {
		p.warn("the snapshot has volume %q, which `exclude` in the config leaves alone", m.Name)
		return nil
	}
	return fault.Refuse("volume_unresolved", remedy.Of("say which volume of the config it is now: --map, or `was:` in the config; or make the config's volumes match the snapshot's (`", remedy.Show(h.Workload.Name, p.SID), "`)"),
		"the snapshot has volume %q (scope %s, source %q), but the config of workload %s does not", m.Name, m.Scope, m.Source, h.Workload.Name)
}
