package state

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
)

// most bounds a list of the state, in bytes.
const most = 16 << 20

// read reads a sealed list, checks it, and leaves it empty where there is none.
func (s *State) read(name string, list disk.Sealed, format string, version int, validate func() error) error {
	data, err := s.root.ReadFile(name, most)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = disk.UnmarshalSealed(data, list, format, version)
	}
	if err == nil {
		err = validate()
	}
	if err != nil {
		return fmt.Errorf("%s/%s: %w", s.root.Path(), name, err)
	}
	return nil
}

// write puts a sealed list in the place of the one that is there. When it returns nil the
// list is durable; after an error it is as it was, or the new one.
func (s *State) write(name string, list disk.Sealed, format string, version int) error {
	data, err := disk.MarshalSealed(list, format, version)
	if err != nil {
		return err
	}
	return s.root.Publish(name, data)
}

// locked runs do while no other process changes a list: two may do so at the same time.
func (s *State) locked(do func() error) error {
	if err := s.root.Flock(unix.LOCK_EX); err != nil {
		return err
	}
	defer func() { _ = s.root.Flock(unix.LOCK_UN) }()
	return do()
}

// tidy removes what a process left that was killed while it wrote one of the lists. Whoever
// writes one has the lock. What cannot be removed does no harm: the next who writes replaces it.
func (s *State) tidy() {
	for _, name := range []string{storesFile, scrubFile, damageFile} {
		if there, _ := s.root.Exists(name + ".tmp"); there && s.root.Flock(unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = s.root.Remove(name + ".tmp")
			_ = s.root.Flock(unix.LOCK_UN)
		}
	}
}
