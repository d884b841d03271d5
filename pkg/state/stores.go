package state

import (
	"fmt"
	"path/filepath"

	"github.com/tiny-forge/snap/pkg/disk"
)

const (
	storesFile    = "stores.json"
	storesFormat  = "snap-stores"
	storesVersion = 1
)

// Stores is the content of stores.json: the stores that the host has seen, in
// the order in which it met them, each path once.
type Stores struct {
	disk.Seal
	Stores []Seen `json:"stores"`
}

// Seen is a store that the host has seen.
type Seen struct {
	Path string `json:"path"` // as the config named it
	ID   string `json:"id"`   // of its store.json
}

// seen returns the id of the store that the host has seen at path, "" where it
// has seen none.
func (s *State) seen(path string) (string, error) {
	list, err := s.stores()
	if err != nil {
		return "", err
	}
	return list.at(path), nil
}

func (l *Stores) at(path string) (id string) {
	for _, seen := range l.Stores {
		if seen.Path == path {
			return seen.ID
		}
	}
	return ""
}

func (s *State) stores() (*Stores, error) {
	list := &Stores{}
	if err := s.read(storesFile, list, storesFormat, storesVersion, list.validate); err != nil {
		return nil, err
	}
	return list, nil
}

func (l *Stores) validate() error {
	paths := map[string]bool{}
	for _, seen := range l.Stores {
		if !filepath.IsAbs(seen.Path) || paths[seen.Path] || !disk.ValidID(seen.ID) {
			return fmt.Errorf("%w: store %q at %q", disk.ErrDamaged, seen.ID, seen.Path)
		}
		paths[seen.Path] = true
	}
	return nil
}

// remember adds a store to the list. When it returns nil the list is durable. After
// an error the list is as it was, or has the store.
func (s *State) remember(path, id string) error {
	return s.locked(func() error {
		list, err := s.stores()
		if err != nil {
			return err
		}
		switch seen := list.at(path); seen {
		case "":
		case id:
			return nil
		default:
			return fmt.Errorf("remember the store %s: another process has just met the store %s there", path, seen)
		}
		list.Stores = append(list.Stores, Seen{path, id})
		if err := s.write(storesFile, list, storesFormat, storesVersion); err != nil {
			return fmt.Errorf("remember the store %s: %w", path, err)
		}
		return nil
	})
}
