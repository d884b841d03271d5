package state

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/store"
)

const (
	scrubFile    = "scrub.json"
	scrubFormat  = "snap-scrub"
	scrubVersion = 1
)

// Scrubs is the content of scrub.json: how far the captures of each workload have read
// the members of a store again.
type Scrubs struct {
	disk.Seal
	Scrubs []Scrubbed `json:"scrubs"`
}

// Scrubbed is one workload in one store.
type Scrubbed struct {
	Store    string     `json:"store"` // the id of its store.json
	Workload string     `json:"workload"`
	Next     store.Turn `json:"next"` // where the next capture goes on
}

func (l *Scrubs) find(st, workload string) int {
	return slices.IndexFunc(l.Scrubs, func(s Scrubbed) bool { return s.Store == st && s.Workload == workload })
}

// Turn returns where the next scrub of a workload begins; at the beginning for one that
// is not known, or where the file is damaged: nothing but time is lost with it.
func (s *State) Turn(st, workload string) (store.Turn, error) {
	list, err := s.scrubs()
	if errors.Is(err, disk.ErrDamaged) || errors.Is(err, disk.ErrTooNew) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if i := list.find(st, workload); i >= 0 {
		return list.Scrubs[i].Next, nil
	}
	return 0, nil
}

// SetTurn notes where the next scrub begins. After an error the file is as it was, or
// has the note.
func (s *State) SetTurn(st, workload string, next store.Turn) error {
	return s.locked(func() error {
		list, err := s.scrubs()
		if errors.Is(err, disk.ErrDamaged) {
			list, err = &Scrubs{}, nil
		}
		if err != nil {
			return err
		}
		own := Scrubbed{st, workload, next}
		if i := list.find(st, workload); i >= 0 {
			list.Scrubs[i] = own
		} else {
			list.Scrubs = append(list.Scrubs, own)
		}
		if err := s.write(scrubFile, list, scrubFormat, scrubVersion); err != nil {
			return fmt.Errorf("note how far the store was read: %w", err)
		}
		return nil
	})
}

func (s *State) scrubs() (*Scrubs, error) {
	list := &Scrubs{}
	if err := s.read(scrubFile, list, scrubFormat, scrubVersion, func() error { return nil }); err != nil {
		return nil, err
	}
	return list, nil
}
