package store

import (
	"context"
	"errors"
	"sync"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/crew"
	"github.com/tiny-forge/snap/pkg/disk"
)

// Replaced is the size that [Store.Look] gives for what is not a file.
const Replaced = -1

// Look returns how many bytes are stored as each member, in the order of the list: 0 for
// one that is not there, and [Replaced] where something else has its name.
func (s *Store) Look(ctx context.Context, list []archive.Member) ([]int64, error) {
	sizes, err := s.members.Stat(ctx, list)
	if !errors.Is(err, disk.ErrDamaged) {
		return sizes, err
	}
	sizes = make([]int64, len(list)) // rare, so one by one
	for i, m := range list {
		switch sizes[i], err = s.size(ctx, m); {
		case errors.Is(err, disk.ErrDamaged):
			sizes[i] = Replaced
		case err != nil:
			return nil, err
		}
	}
	return sizes, nil
}

// Lacking is what the store lacks of members that are needed.
type Lacking struct {
	Missing int    // are not there
	Damaged int    // have another length, and cannot be read
	First   string // the id of the first of both
}

// Any reports whether anything is lacking.
func (l Lacking) Any() bool { return l.Missing+l.Damaged > 0 }

// Lacking looks whether members are there, by name and length. One of another length is
// read, since another version of the compressor may have stored it again.
func (s *Store) Lacking(ctx context.Context, members []archive.Member) (lack Lacking, err error) {
	sizes, err := s.Look(ctx, members)
	if err != nil {
		return lack, err
	}
	bad := make([]bool, len(members))
	var odd []int
	for i, size := range sizes {
		switch {
		case size == 0:
			lack.Missing++
			bad[i] = true
		case size != members[i].Stored:
			odd = append(odd, i)
		}
	}
	var mu sync.Mutex
	err = crew.Each(ctx, odd, func(ctx context.Context, i int) error {
		if archive.Check(ctx, s, members[i]) != nil && ctx.Err() == nil {
			mu.Lock()
			defer mu.Unlock()
			lack.Damaged++
			bad[i] = true
		}
		return context.Cause(ctx)
	})
	for i := range bad {
		if bad[i] {
			lack.First = members[i].ID
			break
		}
	}
	return lack, err
}
