package store

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
)

const scratchFolder = "scratch"

// Scratch opens the folder scratch/<tx>, in which a transaction keeps what it
// has not published yet, and makes it where it is missing. It lies in the store
// because members get their names by a rename. Nothing of it is durable.
func (s *Store) Scratch(tx string) (*disk.Dir, error) {
	all, err := s.root.EnsureUnsynced(scratchFolder, 0o700)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	d, err := all.EnsureUnsynced(tx, 0o700)
	if err != nil {
		return nil, err
	}
	// Sweep leaves alone what is locked.
	if err := d.Flock(unix.LOCK_SH); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Clear removes what a transaction has not published. Nothing there is not an
// error. After an error a part may be left; Clear may be called again.
func (s *Store) Clear(tx string) error {
	all, err := s.root.OpenIfThere(scratchFolder)
	if err != nil || all == nil {
		return err
	}
	defer all.Close()
	return all.RemoveTree(tx)
}

// Sweep removes what transactions left that have ended: a power cut can bring
// back what was cleared away. unfinished returns those that have not; Sweep calls
// it after it has listed the folders, because a transaction is recorded first.
func (s *Store) Sweep(unfinished func() ([]string, error)) error {
	all, err := s.root.OpenIfThere(scratchFolder)
	if err != nil || all == nil {
		return err
	}
	defer all.Close()
	names, err := all.Names()
	if err != nil {
		return err
	}
	known, err := unfinished()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if disk.ValidID(name) && !slices.Contains(known, name) && all.Abandoned(name) {
			errs = append(errs, all.RemoveTree(name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clear the store: %w", err)
	}
	return nil
}
