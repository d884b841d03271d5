package restore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// orphans looks beside the live directories of workloads (none means all) for
// wrappers of restores that the journal does not know. If there is one, the restore
// was recorded in another state, or the filesystem of that state is not mounted, and
// "nothing to recover" would be a guess.
//
// known holds workloads whose volumes the caller has found already.
func (e *Engine) orphans(ctx context.Context, names []string, known map[string]*workload.Workload) ([]Recovery, error) {
	if len(names) == 0 {
		names = e.Config.Names()
	}
	var list []Recovery
	seen := map[string]bool{}
	for _, name := range names {
		w := known[name]
		if w == nil {
			var err error
			if w, err = e.volumesOf(ctx, name); err != nil {
				observer(ctx).Line(fmt.Sprintf("notice: cannot list the volumes of %s: %v", name, err))
				continue
			}
		}
		for i := range w.Volumes {
			v := &w.Volumes[i]
			id, err := swap.FindOrphan(v.Root(), v.Rel(), e.Journal.List)
			if err != nil {
				return list, fault(Frozen, "frozen", remedy.Either(remedies("", err)), "cannot look at volume %s of workload %s (%s): %w", v.Name, name, v.Path(), err)
			}
			if id == "" || seen[name+id] {
				continue
			}
			seen[name+id] = true
			list = append(list, Recovery{Workload: name, Tx: id, Found: "unknown", Action: FrozenTx, Err: e.orphanError(v.Name, v.Path(), id)})
		}
	}
	return list, nil
}

// volumesOf returns a workload with its volumes. If the config lists them, nothing
// else is asked, since Docker may not be up yet.
func (e *Engine) volumesOf(ctx context.Context, name string) (*workload.Workload, error) {
	w, err := e.Config.Workload(name)
	if err != nil || len(w.Volumes) > 0 {
		return w, err
	}
	rt, err := e.Runtime(ctx, w)
	if err != nil {
		return nil, err
	}
	w, _, err = e.withVolumes(ctx, rt, w)
	return w, errors.Join(err, rt.Close())
}

func (e *Engine) orphanError(volume, path, id string) error {
	// An earlier version of snap kept its records in the store.
	mount := ""
	if e.Store == nil {
		mount = "mount the filesystem of the store; or "
	}
	return fault(Frozen, "stray_wrapper",
		remedy.Of(mount+"mount the filesystem of the state that recorded the restore, or correct `state:`, then ", remedy.RecoverAll, "; if that state is lost, see docs/operating.md, section Frozen"),
		"volume %s: %s/%s belongs to a restore that the state %s does not know: the workload's data may be partly old and partly new",
		volume, filepath.Dir(path), journal.Wrapper(id), e.Config.State)
}

// noStore says why no snapshots can be listed where there is no store.
func (e *Engine) noStore() string {
	if e.NoStore != nil {
		return e.NoStore.Error()
	}
	return fmt.Sprintf("there is no store in %s: nothing has been captured yet, or its filesystem is not mounted", e.Config.Store)
}

// stored returns the store for work that cannot be done without it. While the store
// is missing, its error keeps a transaction pending.
func (e *Engine) stored() (*store.Store, error) {
	if e.Store != nil {
		return e.Store, nil
	}
	if e.NoStore != nil {
		return nil, e.NoStore
	}
	return nil, &store.Missing{Path: e.Config.Store, Reason: "there is no store"}
}

// discard removes from the store what a transaction has left there, unpublished: the
// remnants of the snapshot sid, and its scratch folder.
func (e *Engine) discard(tx *journal.Tx, sid string) error {
	st, err := e.stored()
	if err != nil {
		return err
	}
	return errors.Join(st.Discard(tx.Begin.Workload, sid), st.Clear(tx.ID))
}
