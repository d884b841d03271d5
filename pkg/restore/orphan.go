package restore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// orphans looks beside the live directories of workloads (none means all) for
// wrappers of restores that the store does not know: then the store is another
// than the one that they have recorded in, or its filesystem is not mounted,
// and "nothing to recover" would be a guess.
//
// known are workloads whose volumes the caller has found already.
func (e *Engine) orphans(ctx context.Context, names []string, known map[string]*workload.Workload) ([]Recovery, error) {
	if len(names) == 0 {
		names = e.Config.Names()
	}
	var list []Recovery
	seen := map[string]bool{}
	for _, name := range names {
		var err error
		w := known[name]
		if w == nil {
			w, err = e.volumesOf(ctx, name)
		}
		if err != nil {
			e.say("notice: the volumes of %s cannot be looked for: %v", name, err)
			continue
		}
		for i := range w.Volumes {
			v := &w.Volumes[i]
			id, err := e.orphan(v)
			if err != nil {
				return list, fault(Frozen, "frozen", strings.Join(remedies("", err), "; or "), "volume %s of workload %s (%s) cannot be looked at: %w", v.Name, name, v.Path(), err)
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

// volumesOf returns a workload with its volumes. Where the config lists them
// nothing else is asked: the engine may not be up yet.
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

// orphan returns the transaction of a wrapper beside a volume's live directory
// that the journal does not know, or "".
func (e *Engine) orphan(v *workload.Volume) (string, error) {
	return swap.FindOrphan(v.Root(), v.Rel(), e.knownTxs)
}

// knownTxs lists the transactions that have not ended.
func (e *Engine) knownTxs() ([]string, error) {
	if e.Journal == nil {
		return nil, nil
	}
	return e.Journal.List()
}

func (e *Engine) orphanError(volume, path, id string) error {
	why := "does not know"
	if e.Store == nil {
		why = "(where there is none) does not know"
	}
	parent := filepath.Dir(path)
	return fault(Frozen, "stray_wrapper", "mount the store that the restore was made with, or correct `store:`, then snap recover; where that store is lost, see docs/operating.md, section Frozen",
		"volume %s: %s/%s is of a restore that the store %s %s: its data may be half old and half new",
		volume, parent, journal.Wrapper(id), e.Config.Store, why)
}

// noOrphans refuses to work on volumes beside which such a wrapper lies.
func (s *session) noOrphans(volumes []*swap.Volume) error {
	for i, v := range volumes {
		id, err := v.Orphan(s.knownTxs)
		if err != nil {
			return err
		}
		if id != "" {
			return s.orphanError(volumes[i].Name, volumes[i].Path(), id)
		}
	}
	return nil
}

// noStore is the status of a workload whose snapshots cannot be listed because
// there is no store.
func (e *Engine) noStore() string {
	return fmt.Sprintf("there is no store in %s: nothing was captured yet, or its filesystem is not mounted", e.Config.Store)
}
