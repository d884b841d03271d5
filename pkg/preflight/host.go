package preflight

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Host is a workload on this host, under its locks.
type Host struct {
	Config   *workload.Config
	Workload *workload.Workload // with its volumes
	Store    *store.Store
	Journal  *journal.Journal
	Held     *journal.Held // the locks of the workload and of its volumes
	Runtime  runtime.Runtime
	Mounts   *runtime.Mounts // what the containers mount; nil where nobody could ask
	Version  string          // of snap, for the record of the exchange that is tried
}

// Open opens volumes, whose directories need not exist, and refuses one with the
// wrapper of an unknown restore beside it. The caller closes them, after an error too.
func (h *Host) Open(volumes []*workload.Volume) ([]*swap.Volume, error) {
	var list []*swap.Volume
	for _, v := range volumes {
		opened, err := h.OpenOne(v)
		if err != nil {
			return list, err
		}
		list = append(list, opened)
	}
	for _, v := range list {
		id, err := v.Orphan(h.Journal.List)
		if err != nil {
			return list, err
		}
		if id != "" {
			return list, Stray(v.Name, v.Path(), id, h.Config.State, h.Store != nil)
		}
	}
	return list, nil
}

// OpenOne opens a volume that need not exist. One that Compose expects somebody else
// to make is refused where it does not.
func (h *Host) OpenOne(v *workload.Volume) (*swap.Volume, error) {
	opened, err := swap.OpenLive(v.Name, v.Root(), v.Rel(), func(real string) error { return h.Workload.Admit(h.Config, v, filepath.Clean(real)) })
	m := h.Mounts.Volume(v.Name)
	if err != nil || m == nil || !m.Absent {
		return opened, err
	}
	if m.External {
		opened.Close()
		return nil, fault.Refuse("volume_absent", remedy.Of("docker volume create "+remedy.Quote(m.Source)),
			"volume %s: the Compose file says that it is external, so somebody else makes it, and the engine does not have it", v.Name)
	}
	opened.ByEngine(m.Source)
	return opened, nil
}

// Stray says that a wrapper beside a volume belongs to a restore that the state does
// not know. hasStore is false where there is no store: an earlier version of snap kept
// its records there.
func Stray(volume, path, tx, state string, hasStore bool) error {
	mount := ""
	if !hasStore {
		mount = "mount the filesystem of the store; or "
	}
	return fault.New(fault.Frozen, "stray_wrapper",
		remedy.Of(mount+"mount the filesystem of the state that recorded the restore, or correct `state:`, then ", remedy.RecoverAll, "; if that state is lost, see docs/operating.md, section Frozen"),
		"volume %s: %s/%s belongs to a restore that the state %s does not know: the workload's data may be partly old and partly new",
		volume, filepath.Dir(path), journal.Wrapper(tx), state)
}

// inEngine is where an engine keeps the data of a volume.
var inEngine = regexp.MustCompile(`^(/.+/volumes)/[^/]+/_data(?:/|$)`)

// Recorded makes sure that the volumes of a restore's record may be a workload's: each is
// a volume of the config, lies under one of its roots, or is where the engine keeps a
// volume. A record that says otherwise was made under another config, or by somebody
// who wants root to delete a directory. Where the engine has not answered (mounts is nil,
// or has no root), what looks like the folder of a volume is taken for one, since at boot
// the data must go back before the engine is up.
func Recorded(c *workload.Config, w *workload.Workload, mounts *runtime.Mounts, tx *journal.Tx) error {
	if tx.Begin.Kind != journal.Restore && tx.Begin.Kind != journal.Probe { // the others move nothing
		return nil
	}
	for _, v := range tx.Begin.Volumes {
		path := filepath.Join(v.Root, v.Rel)
		if slices.ContainsFunc(w.Volumes, func(own workload.Volume) bool { return own.Root() == v.Root && own.Rel() == v.Rel }) {
			continue
		}
		if (v.Root == c.Base || slices.Contains(c.AbsoluteRoots, v.Root)) && filepath.IsLocal(v.Rel) && c.CheckPath(path) == nil {
			continue
		}
		volumes := inEngine.FindStringSubmatch(path)
		if volumes != nil && filepath.IsLocal(v.Rel) && workload.Contains(volumes[1], v.Root) &&
			(mounts == nil || mounts.Root == "" || workload.Contains(mounts.Root, volumes[1])) {
			continue
		}
		return fault.New(fault.Frozen, "config_changed", remedy.Of(fmt.Sprintf("if this directory is the workload's, put the root that it was under (%s) back into the config, then ", v.Root), remedy.Recover(w.Name)),
			"transaction %s would move or delete directories beside %s, which is volume %s in its record, but neither the config nor the engine has a volume there", tx.ID, path, v.Name)
	}
	return nil
}

// SamePlaces makes sure that the engine still keeps each named volume where it was.
// Somebody may have removed one, or removed it and made another of that name.
func (h *Host) SamePlaces(ctx context.Context, volumes []*workload.Volume) error {
	if !h.Workload.AsksEngine() {
		return nil
	}
	now, err := h.Runtime.Volumes(ctx)
	if err != nil {
		return err
	}
	for _, v := range volumes {
		m := now.Volume(v.Name)
		if v.Scope == workload.Named && (m == nil || m.Absent || m.Path() != v.Path()) {
			return fault.Refuse("volume_gone", remedy.Of("find out what removes volumes (docker volume rm, docker system prune), stop it, then try again"),
				"volume %s: the engine no longer has it at %s: something has removed it", v.Name, v.Path())
		}
	}
	return nil
}
