package swap

import (
	"errors"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
)

// Scratch is an empty directory beside a volume, on its filesystem and with the
// properties of its live directory, for a tree that is never exchanged.
type Scratch struct {
	Dir *disk.Dir
	x   *Tx
}

// MakeScratch makes a Scratch in a wrapper that a transaction records. begin opens that
// transaction. It is of the kind of a probe, so a recovery deletes what a crash has left.
// The volume must not be one that the engine has yet to make: the folder around it is the
// engine's.
func (v *Volume) MakeScratch(begin func(*journal.Begin) (*journal.Tx, error)) (*Scratch, error) {
	record := journal.Volume{Name: v.Name, Root: v.Root, Rel: v.nearestRel(), Entry: "scratch"}
	tx, err := begin(&journal.Begin{Kind: journal.Probe, Volumes: []journal.Volume{record}})
	if err != nil {
		return nil, err
	}
	x, err := Open(tx, true, nil)
	if err != nil {
		return nil, errors.Join(err, tx.Close())
	}
	s := &Scratch{x: x}
	if s.Dir, err = x.Volumes[0].scratch(v.Live); err != nil {
		return nil, errors.Join(err, s.Clear())
	}
	return s, nil
}

func (v *Volume) scratch(live *disk.Dir) (*disk.Dir, error) {
	wrapper, err := v.makeWrapper()
	if err != nil {
		return nil, err
	}
	defer wrapper.Close()
	if live == nil {
		return wrapper.MakePrivate(v.Entry)
	}
	p, err := live.Properties()
	if err != nil {
		return nil, err
	}
	if live.File() != "" {
		return wrapper.MakeForFile(v.Entry, p)
	}
	return wrapper.MakeAlike(v.Entry, p)
}

// Clear deletes the directory with all that is in it, and ends the transaction. After an
// error a recovery does the rest.
func (s *Scratch) Clear() error {
	s.Dir.Close()
	err := s.x.Discard()
	s.x.CloseVolumes()
	return err
}
