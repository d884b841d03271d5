package store

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
)

const (
	identityFile    = "store.json"
	identityFormat  = "snap-store"
	identityVersion = 1
	maxIdentity     = 64 << 10
)

// Identity is the content of store.json, which tells one store from another. It
// never changes. The state of the host remembers the identity, so that an empty
// mount point, or another disk that is mounted there, is not taken for the store.
type Identity struct {
	disk.Seal
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
}

// ID returns the store's identity; "" for a store of an earlier version of snap that
// [Store.Identify] has not met yet.
func (s *Store) ID() string { return s.id }

// Identify gives the store an identity where it has none. When it returns nil
// the identity is durable, and so is the folder of the store; after an error
// the store has no identity or a whole one.
func (s *Store) Identify() error {
	if s.id != "" {
		return nil
	}
	now := time.Now().UTC()
	id := &Identity{ID: disk.NewID(now), Created: now}
	data, err := disk.MarshalSealed(id, identityFormat, identityVersion)
	if err != nil {
		return err
	}
	// Of two processes the second waits, and takes over what the first has written.
	if err := s.root.Flock(unix.LOCK_EX); err != nil {
		return err
	}
	defer func() { _ = s.root.Flock(unix.LOCK_UN) }()
	if s.id, err = readIdentity(s.root); err != nil || s.id != "" {
		return err
	}
	err = s.root.Publish(identityFile, data)
	if err == nil {
		// The folders above it may be as new. The state is about to remember the
		// store, and would miss it if a power cut took them.
		err = s.root.SyncFS()
	}
	if err != nil {
		return fmt.Errorf("give the store an identity: %w", err)
	}
	s.id = id.ID
	return nil
}

// readIdentity returns the id in store.json, "" where there is no such file.
func readIdentity(root *disk.Dir) (string, error) {
	data, err := root.ReadFile(identityFile, maxIdentity)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	id := &Identity{}
	if err == nil {
		err = disk.UnmarshalSealed(data, id, identityFormat, identityVersion)
	}
	if err == nil && !disk.ValidID(id.ID) {
		err = fmt.Errorf("%w: %q is not the id of a store", disk.ErrDamaged, id.ID)
	}
	if err != nil {
		return "", fmt.Errorf("%s/%s: %w", root.Path(), identityFile, err)
	}
	return id.ID, nil
}

// Missing is the error of a store that this host has seen at a path where there
// is now no store, or another one.
type Missing struct {
	Path   string
	Reason string
}

func (m *Missing) Error() string { return fmt.Sprintf("the store %s is missing: %s", m.Path, m.Reason) }

// Hint says what an operator can do about it.
func (m *Missing) Hint() string {
	return "is its filesystem mounted? (if the store is lost, name a new folder with `store:` in the config)"
}
