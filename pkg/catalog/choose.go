package catalog

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tiny-forge/snap/pkg/archive/part"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/near"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/store"
)

// chosen is a volume of a snapshot, or a part of it.
type chosen struct {
	volume *store.Volume
	choice *part.Choice // nil: all of it
}

// choose returns what VOLUME and VOLUME:PATH arguments name, in the order of the
// snapshot; everything for none.
func choose(m *store.Manifest, args []string) ([]chosen, error) {
	paths, whole := map[*store.Volume][]string{}, map[*store.Volume]bool{}
	for _, arg := range args {
		v, path, err := split(m, arg)
		if err != nil {
			return nil, err
		}
		if path == nil {
			whole[v] = true
		} else {
			paths[v] = append(paths[v], *path)
		}
	}
	var list []chosen
	for i := range m.Volumes {
		v := &m.Volumes[i]
		switch {
		case len(args) == 0 || whole[v]:
			list = append(list, chosen{volume: v})
		case paths[v] != nil:
			choice, err := part.Choose(paths[v])
			if err != nil {
				return nil, fault.New(fault.Usage, "bad_path", remedy.Of("write it as it is seen from the volume's own directory, without a leading slash, . and ..: VOLUME:dir/file"), "volume %s: %w", v.Name, err)
			}
			list = append(list, chosen{v, choice})
		}
	}
	if len(list) == 0 {
		return nil, fault.Refuse("no_volumes", remedy.Of(remedy.List(m.Workload)), "the snapshot has no volumes")
	}
	return list, nil
}

// split takes an argument apart. A name of a volume may have colons in it, so the longest
// name that fits counts.
func split(m *store.Manifest, arg string) (v *store.Volume, path *string, err error) {
	if v := named(m, arg); v != nil {
		return v, nil, nil
	}
	for at := strings.LastIndexByte(arg, ':'); at >= 0; at = strings.LastIndexByte(arg[:at], ':') {
		if v := named(m, arg[:at]); v != nil {
			rest := arg[at+1:]
			return v, &rest, nil
		}
	}
	return nil, nil, unknown(m, arg)
}

// named returns the volume of that name, or the only named volume that has the name as its
// key in a Compose file, <project>_<key>.
func named(m *store.Manifest, name string) *store.Volume {
	var also []*store.Volume
	for i := range m.Volumes {
		v := &m.Volumes[i]
		if v.Name == name {
			return v
		}
		if v.Scope == "named" && name != "" && strings.HasSuffix(v.Name, "_"+name) {
			also = append(also, v)
		}
	}
	if len(also) == 1 {
		return also[0]
	}
	return nil
}

// unknown says which volumes there are, and what may have been meant.
func unknown(m *store.Manifest, arg string) error {
	name, path, _ := strings.Cut(arg, ":")
	var names, like []string
	for i := range m.Volumes {
		v := m.Volumes[i].Name
		names = append(names, fmt.Sprintf("%q", v))
		if near.Resembles(name, v) {
			like = append(like, join(v, path))
		}
	}
	way := remedy.Remedy{}
	switch {
	case len(like) > 0:
		way = remedy.Of(near.Ask(like))
	case len(m.Volumes) == 1:
		way = remedy.Of("a path is written with its volume: " + join(m.Volumes[0].Name, arg))
	}
	return fault.New(fault.Usage, "no_such_volume", way, "the snapshot has no volume %q; it has %s", name, strings.Join(names, ", "))
}

func join(volume, path string) string {
	if path == "" {
		return volume
	}
	return volume + ":" + path
}

// missing refuses what the snapshot does not have.
func missing(m *store.Manifest, v *store.Volume, list []part.Missing) error {
	var lines, like []string
	for _, one := range list {
		line := fmt.Sprintf("%q", one.Name)
		if one.In != "." {
			line += fmt.Sprintf(" (it has %q)", one.In)
		}
		lines = append(lines, line)
		for _, name := range one.Near {
			like = append(like, remedy.Shown(v.Name+":"+name)) // out of the snapshot, so anything
		}
	}
	slices.Sort(like)
	there := v.Name
	if len(list) == 1 && list[0].In != "." {
		there = join(there, list[0].In)
	}
	way := remedy.Of("see what is in it: ", remedy.Ls(m.Workload, m.SID, there), "; other snapshots: ", remedy.List(m.Workload))
	if like = slices.Compact(like); len(like) > 0 {
		way = remedy.Of(near.Ask(like))
	}
	return fault.Refuse("path_not_found", way, "volume %s of the snapshot has no %s", v.Name, strings.Join(lines, ", no "))
}
