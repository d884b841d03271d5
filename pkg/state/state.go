package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
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

// Open opens the state at path, an absolute one, and makes it when nothing is
// there: mode 0700, for it says which data a recovery moves. The error is
// [*disk.Unusable] where path can never be a state.
func Open(path string) (*State, error) {
	_, err := os.Stat(path)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the state: %w", err)
	}
	root, err := disk.OpenPrivate("state", path)
	if err != nil {
		return nil, err
	}
	j, err := journal.Open(root)
	if err == nil && fresh { // records are of no use in a folder that a power cut takes
		err = root.SyncFS()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the state: %w", err), root.Close())
	}
	return &State{Journal: j, root: root}, nil
}

// Close closes the directories; held locks stay held.
func (s *State) Close() error { return errors.Join(s.Journal.Close(), s.root.Close()) }

// Store opens the store at path and remembers it. With create it makes one
// where the host has never seen any; without create its error then wraps
// fs.ErrNotExist. A store that the host has seen, and that is not there or has
// another identity, is a [*store.Missing]: what stands at path is then left as
// it is. Transactions that an earlier version of snap has left in the store
// join the journal.
func (s *State) Store(path string, create bool) (*store.Store, error) {
	seen, err := s.seen(path)
	if err != nil {
		return nil, err
	}
	st, err := store.OpenExisting(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s.absent(path, seen, create, err)
	}
	if err != nil {
		return nil, err
	}
	return s.adopt(st, seen, create)
}

// absent deals with a path at which there is no store.
func (s *State) absent(path, seen string, create bool, why error) (*store.Store, error) {
	if seen != "" {
		return nil, &store.Missing{Path: path, Reason: "this host has stored snapshots there, and there is no store now"}
	}
	// The state's default folder was once the default of the store.
	old := false
	var err error
	if filepath.Dir(path) == s.root.Path() {
		old, err = s.root.Exists("snapshots")
	}
	if err != nil {
		return nil, err
	}
	if old {
		return nil, &store.Missing{Path: path, Reason: fmt.Sprintf(
			"an earlier version of snap has kept its store in %s; name that with `store:` in the config, or move its folders members and snapshots to %s", s.root.Path(), path)}
	}
	if !create {
		return nil, why
	}
	st, err := store.Open(path)
	if err != nil {
		return nil, err
	}
	return s.adopt(st, seen, create)
}

// adopt makes sure that a store is the one that the host has seen at its path.
func (s *State) adopt(st *store.Store, seen string, create bool) (*store.Store, error) {
	path := st.Root().Path()
	err := s.recognise(st, path, seen, create)
	if err == nil {
		err = s.Journal.Adopt(st.Root())
	}
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return st, nil
}

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
		return &store.Missing{Path: path, Reason: fmt.Sprintf("this host has seen the store %s there, and what is there now has no store.json", seen)}
	case st.ID() != seen:
		return &store.Missing{Path: path, Reason: fmt.Sprintf("this host has seen the store %s there, and what is there now is the store %s", seen, st.ID())}
	}
	return nil
}
