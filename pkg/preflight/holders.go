package preflight

import (
	"context"
	"path/filepath"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/swap"
)

// holders refuses what will still hold the volumes when the app's containers have
// stopped.
func (h *Host) holders(_ context.Context, p *Plan) error {
	idle, err := swap.NoHolders(swap.LiveOf(p.Opened()), ofContainers(p.Containers))
	p.Warnings = append(p.Warnings, idle...)
	return err
}

// ofContainers returns a function that tells the holders that go when the containers
// stop: processes and mounts in them, and the mounts that the engine makes for them on
// the host (a local volume with a device). A mount namespace that follows the host's,
// as that of a system service, has a copy of those, which goes with them.
func ofContainers(list runtime.Containers) func(disk.Holder) bool {
	return func(h disk.Holder) bool {
		engines := filepath.Base(h.Path) == "_data" && filepath.Base(filepath.Dir(filepath.Dir(h.Path))) == "volumes"
		return h.How == disk.Mounted && engines && list.Ran() || h.Namespace != "" && list.Have(h.Namespace, h.Cgroups)
	}
}

// Unheld refuses, with [*swap.Unfit], directories that somebody can still reach while
// no container runs any more, and returns a warning for each idle holder.
func Unheld(dirs []*disk.Dir) (idle []string, err error) {
	return swap.NoHolders(dirs, func(disk.Holder) bool { return false })
}
