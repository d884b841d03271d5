package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// strays looks beside the live directories of workloads (none means all) for
// wrappers of restores that the journal does not know: then the state is another
// than the one that they were recorded in, or its filesystem is not mounted,
// and "nothing to recover" would be a guess.
func (e *Engine) strays(ctx context.Context, names []string) ([]Recovery, error) {
	if len(names) == 0 {
		names = e.Config.Names()
	}
	var list []Recovery
	seen := map[string]bool{}
	for _, name := range names {
		w, err := e.withVolumes(ctx, name)
		if err != nil {
			e.say("notice: the volumes of %s cannot be looked for: %v", name, err)
			continue
		}
		for i := range w.Volumes {
			v := &w.Volumes[i]
			id, err := e.stray(v)
			if err != nil {
				return list, fault(Frozen, "frozen", strings.Join(remedies("", err), "; or "), "volume %s of workload %s (%s) cannot be looked at: %w", v.Name, name, v.Path(), err)
			}
			if id == "" || seen[name+id] {
				continue
			}
			seen[name+id] = true
			list = append(list, Recovery{Workload: name, Tx: id, Found: "unknown", Action: FrozenTx, Err: e.strayError(v, id)})
		}
	}
	return list, nil
}

// withVolumes returns a workload with its volumes. Where the config lists them
// nothing else is asked: the engine may not be up yet.
func (e *Engine) withVolumes(ctx context.Context, name string) (*workload.Workload, error) {
	w, err := e.Config.Workload(name)
	if err != nil || len(w.Volumes) > 0 {
		return w, err
	}
	s, err := e.lookup(ctx, "recover", name)
	if err != nil {
		return nil, err
	}
	s.close()
	return s.w, nil
}

// stray returns the transaction of a wrapper beside a volume's live directory
// that the journal does not know, or "".
func (e *Engine) stray(v *workload.Volume) (string, error) {
	root, err := disk.OpenRoot(v.Root())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer root.Close()
	above, _ := dirName(v.Rel())
	parent, err := openBelow(root, above)
	// A restore follows no symbolic link, so it has left nothing behind one.
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer parent.Close()
	return e.strayIn(parent)
}

// strayIn is stray for an open directory.
func (e *Engine) strayIn(parent *disk.Dir) (string, error) {
	names, err := parent.Names()
	if err != nil {
		return "", err
	}
	// Behind the look at the names: a transaction is known before its wrapper
	// is made.
	var known []string
	if known, err = e.Journal.List(); err != nil {
		return "", err
	}
	for _, name := range names {
		id, ok := strings.CutPrefix(name, journal.Wrapper(""))
		if !ok || !disk.ValidID(id) || slices.Contains(known, id) {
			continue
		}
		there, err := parent.Exists(name)
		if err != nil {
			return "", err
		}
		if there { // else it ended meanwhile
			return id, nil
		}
	}
	return "", nil
}

func (e *Engine) strayError(v *workload.Volume, id string) error {
	// An earlier version of snap kept its records in the store.
	hint := "use the state that the restore was recorded in: mount its filesystem, or correct `state:`, then snap recover; where that state is lost, see docs/operating.md, section Frozen"
	if e.Store == nil {
		hint = "mount the store; or " + hint
	}
	parent, _ := dirName(v.Path())
	return fault(Frozen, "stray_wrapper", hint,
		"volume %s: %s/%s is of a restore that the state %s does not know: its data may be half old and half new",
		v.Name, parent, journal.Wrapper(id), e.Config.State)
}

// strayWrappers refuses to work on places beside which such a wrapper lies.
func (s *session) strayWrappers(places []*place) error {
	for _, p := range places {
		if p.parent == nil {
			continue
		}
		id, err := s.strayIn(p.parent)
		if err != nil {
			return err
		}
		if id != "" {
			return s.strayError(p.vol, id)
		}
	}
	return nil
}

// noStore is the status of a workload whose snapshots cannot be listed because
// there is no store.
func (e *Engine) noStore() string {
	if e.NoStore != nil {
		return e.NoStore.Error()
	}
	return fmt.Sprintf("there is no store in %s: nothing was captured yet, or its filesystem is not mounted", e.Config.Store)
}

// stored returns the store for what cannot be done without it. Its error is what
// keeps a transaction pending while the store is not there.
func (e *Engine) stored() (*store.Store, error) {
	if e.Store != nil {
		return e.Store, nil
	}
	if e.NoStore != nil {
		return nil, e.NoStore
	}
	return nil, &store.Missing{Path: e.Config.Store, Reason: "there is no store"}
}

// discard removes what an unfinished publication of a snapshot left.
func (e *Engine) discard(workload, sid string) error {
	st, err := e.stored()
	if err != nil {
		return err
	}
	return st.Discard(workload, sid)
}

// clear removes what a transaction has in the store and has not published.
func (e *Engine) clear(tx string) error {
	st, err := e.stored()
	if err != nil {
		return err
	}
	return st.Clear(tx)
}
