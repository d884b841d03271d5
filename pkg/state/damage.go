package state

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/store"
)

const (
	damageFile    = "damaged.json"
	damageFormat  = "snap-damaged"
	damageVersion = 1
)

// mostDamaged is how many members are noted of all stores. More are a disk that is gone.
const mostDamaged = 50_000

// Damages is the content of damaged.json: the members that were found damaged or missing,
// and that nobody has stored anew since.
type Damages struct {
	disk.Seal
	Stores []Damage `json:"stores"`
}

// Damage is that of one store.
type Damage struct {
	Store   string            `json:"store"` // the id of its store.json
	Members []store.MemberKey `json:"members"`
}

// Damaged returns the members of a store that are noted as damaged or missing. They are a
// hint: whoever relies on one reads it first. Where the file itself is damaged there is none.
func (s *State) Damaged(st string) ([]store.MemberKey, error) {
	list, err := s.damages()
	if errors.Is(err, disk.ErrDamaged) || errors.Is(err, disk.ErrTooNew) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if i := list.find(st); i >= 0 {
		return list.Stores[i].Members, nil
	}
	return nil, nil
}

func (l *Damages) find(st string) int {
	return slices.IndexFunc(l.Stores, func(d Damage) bool { return d.Store == st })
}

// NoteDamaged notes members of a store as damaged or missing, and keeps of those that were
// noted before only the ones of which keep says so. After an error the file is as it was,
// or has the note.
func (s *State) NoteDamaged(st string, keep func(store.MemberKey) bool, found []store.MemberKey) error {
	return s.locked(func() error {
		list, err := s.damages()
		if errors.Is(err, disk.ErrDamaged) {
			list, err = &Damages{}, nil
		}
		if err != nil {
			return err
		}
		own := Damage{Store: st, Members: slices.Clone(found)}
		var before []store.MemberKey
		if i := list.find(st); i >= 0 {
			before = list.Stores[i].Members
			list.Stores = slices.Delete(list.Stores, i, i+1)
		}
		has := map[store.MemberKey]bool{}
		for _, k := range found {
			has[k] = true
		}
		for _, k := range before {
			if keep(k) && !has[k] {
				own.Members = append(own.Members, k)
			}
		}
		if len(before) == 0 && len(own.Members) == 0 {
			return nil
		}
		if len(own.Members) > 0 {
			own.Members = own.Members[:min(len(own.Members), max(0, mostDamaged-list.count()))]
			list.Stores = append(list.Stores, own)
		}
		if err := s.write(damageFile, list, damageFormat, damageVersion); err != nil {
			return fmt.Errorf("note what is damaged in the store: %w", err)
		}
		return nil
	})
}

func (l *Damages) count() (n int) {
	for _, d := range l.Stores {
		n += len(d.Members)
	}
	return n
}

func (s *State) damages() (*Damages, error) {
	list := &Damages{}
	if err := s.read(damageFile, list, damageFormat, damageVersion, func() error { return nil }); err != nil {
		return nil, err
	}
	return list, nil
}
