package state

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/store"
)

// State is the open state directory of a host.
type State struct {
	Journal *journal.Journal

	root *disk.Dir
}

// place is what a state is. An earlier version of snap had its store in it, and the
// default of the store is a folder of it.
var place = disk.Private{
	What:  "state",
	Marks: [][]string{{storesFile}, {"tx", "lock"}},
	Names: []string{"audit.jsonl", "history", scrubFile, damageFile, "store", "store.json", "members", "snapshots", "scratch"},
}

// Open opens the state at path, which is absolute, and makes it if nothing is there.
// Nobody else may write to it, because it says which data a recovery moves. The error is
// [*disk.Unusable] if path can never be a state; it then stays as it is.
func Open(path string) (*State, error) {
	root, fresh, err := place.Make(path)
	if err != nil {
		return nil, err
	}
	j, err := journal.Open(root)
	if err == nil && fresh { // a power cut must not take the folder with the records in it
		err = root.SyncFS()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the state: %w", err), root.Close())
	}
	s := &State{Journal: j, root: root}
	s.tidy()
	return s, nil
}

// Close closes the directories; held locks stay held.
func (s *State) Close() error { return errors.Join(s.Journal.Close(), s.root.Close()) }

// Store opens the store at path and remembers it. If the host has never seen a store
// there, create makes one; without create the error wraps fs.ErrNotExist. If the
// host has seen a store there, and it is gone or has another identity, the error is
// [*store.Missing], and path is left as it is. Transactions that an earlier version
// of snap has left in the store join the journal.
func (s *State) Store(path string, create bool) (*store.Store, error) {
	seen, err := s.seen(path)
	if err != nil {
		return nil, err
	}
	st, err := store.OpenExisting(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.absent(path, seen, create, err); err == nil {
			st, err = store.Open(path)
		}
	}
	if err != nil {
		return nil, err
	}
	if err = s.recognise(st, path, seen, create); err == nil {
		err = s.Journal.Adopt(st.Root())
	}
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return st, nil
}

// absent returns why no store may be made at a path where there is none.
func (s *State) absent(path, seen string, create bool, why error) error {
	if seen != "" {
		return &store.Missing{Path: path, Reason: "this host has stored snapshots there, but now there is no store"}
	}
	// The state's default folder was once the default of the store.
	if filepath.Dir(path) == s.root.Path() {
		old, err := s.root.Exists("snapshots")
		if err != nil {
			return err
		}
		if old {
			return &store.Missing{Path: path, Reason: fmt.Sprintf(
				"an earlier version of snap kept its store in %s; set `store:` in the config to that path, or move the folders members and snapshots from there to %s", s.root.Path(), path)}
		}
	}
	if !create {
		return why
	}
	return nil
}

// recognise makes sure that a store is the one that the host has seen at that path.
func (s *State) recognise(st *store.Store, path, seen string, create bool) error {
	switch {
	case seen == "" && st.ID() == "" && !create: // commands that only look write nothing into it
		return nil
	case seen == "":
		if err := st.Identify(); err != nil {
			return err
		}
		return s.remember(path, st.ID())
	case st.ID() == "":
		return &store.Missing{Path: path, Reason: fmt.Sprintf("this host has seen the store %s there, but the one there now has no store.json", seen)}
	case st.ID() != seen:
		return &store.Missing{Path: path, Reason: fmt.Sprintf("this host has seen the store %s there, but now the store %s is there", seen, st.ID())}
	}
	return nil
}
