package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
)

// Delete deletes snapshots of a workload. Each leaves the folder of snapshots in one
// rename, so that a crash leaves it whole or not at all; the rest of it waits in scratch,
// which a recovery clears. When it returns nil all are gone, durably; after an error
// some are. Their members stay until [Store.Prune].
//
// The caller has the stores' lock alone.
func (s *Store) Delete(workload string, sids []string) error {
	dir, err := s.snapshots.OpenIfThere(workload)
	if err != nil || dir == nil {
		return err
	}
	defer dir.Close()
	id := disk.NewID(time.Now())
	scratch, err := s.Scratch(id)
	if err != nil {
		return err
	}
	defer scratch.Close()
	for _, sid := range sids {
		if err := dir.Rename(sid, scratch, sid); err != nil {
			return fmt.Errorf("delete snapshot %s of %s: %w", sid, workload, err)
		}
	}
	if err := errors.Join(scratch.Sync(), dir.Sync()); err != nil {
		return err
	}
	return s.Clear(id)
}

// Marks are the members that snapshots name.
type Marks struct {
	named map[MemberKey]struct{}
}

// Mark collects the members that all snapshots of the store name but those of drop, by
// workload and sid. It fails if a single manifest cannot be read, for what that
// snapshot names nobody knows. See [Store.LoadHonest].
func (s *Store) Mark(ctx context.Context, drop func(workload, sid string) bool) (*Marks, error) {
	marks := &Marks{map[MemberKey]struct{}{}}
	names, err := s.Workloads()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		sids, err := s.SIDs(name)
		if err != nil {
			return nil, err
		}
		for _, sid := range sids {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if drop(name, sid) {
				continue
			}
			m, err := s.LoadHonest(name, sid)
			if errors.Is(err, fs.ErrNotExist) { // a capture that was cut
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("what snapshot %s of %s names cannot be read, so no data is deleted: %w", sid, name, err)
			}
			marks.add(m)
		}
	}
	return marks, nil
}

func (k *Marks) add(m *Manifest) {
	for i := range m.Volumes {
		for _, member := range m.Volumes[i].Members {
			k.named[KeyOf(member)] = struct{}{}
		}
	}
}

// Pruned is what a prune removed, or would remove.
type Pruned struct {
	Members int
	Bytes   int64
}

// pruneAt is how many members are removed between two syncs.
const pruneAt = 1000

// Prune removes the members that are not marked; with dry it only counts them. After an
// error some are gone, and it may run again. The caller has the stores' lock alone, and
// has had it since before the marks were made.
func (s *Store) Prune(ctx context.Context, marks *Marks, dry bool) (pruned Pruned, err error) {
	var list []archive.Member
	remove := func() error {
		if dry || len(list) == 0 {
			list = nil
			return nil
		}
		err := s.members.Remove(ctx, list)
		list = list[:0]
		return err
	}
	for m, err := range s.members.List(ctx) {
		if err != nil {
			return pruned, err
		}
		if _, named := marks.named[KeyOf(m)]; named {
			continue
		}
		pruned.Members++
		pruned.Bytes += m.Stored
		if list = append(list, m); len(list) == pruneAt {
			if err := remove(); err != nil {
				return pruned, err
			}
		}
	}
	return pruned, remove()
}
