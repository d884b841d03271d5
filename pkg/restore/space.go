package restore

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Space is the room that a restore needs on a filesystem, and what is free there.
type Space struct {
	Path       string `json:"path"`
	NeedBytes  uint64 `json:"need_bytes"`
	FreeBytes  uint64 `json:"free_bytes"`
	NeedInodes uint64 `json:"need_inodes"`
	FreeInodes uint64 `json:"free_inodes"`
}

// planSpace adds up the room that each filesystem needs: for the staged trees beside
// the live ones, and a little in the store.
func (s *session) planSpace(_ context.Context, p *Plan) error {
	const perEntry = 4096 // a block for what a name and its metadata take
	need := map[disk.FSID]*Space{}
	add := func(d *disk.Dir, bytes, inodes uint64) (*Space, error) {
		id, err := d.Filesystem()
		if err != nil {
			return nil, err
		}
		if need[id] == nil {
			free, err := d.Space()
			if err != nil {
				return nil, err
			}
			need[id] = &Space{Path: d.Path(), FreeBytes: free.Bytes, FreeInodes: free.Inodes}
		}
		need[id].NeedBytes += bytes
		need[id].NeedInodes += inodes
		return need[id], nil
	}
	for i, v := range p.volumes {
		m := p.wanted[i]
		// The length of the stream bounds what can be written, whatever the manifest
		// says of the data; the length of each member is checked.
		if _, err := add(v.Nearest(), uint64(m.Tar())+perEntry*uint64(m.Entries()), uint64(m.Entries())+2); err != nil {
			return err
		}
	}
	// How much of the live data is not in the store yet shows only when it is read.
	// The first pass of the pre-restore capture reads it before anything stops; with
	// guard after nothing reads it until the app is up again. So this asks for room
	// for the records and the manifest only.
	inStore, err := add(s.Store.Root(), 4<<20, 64)
	if err != nil {
		return err
	}
	if _, err := add(s.Journal.Root(), 1<<20, 64); err != nil {
		return err
	}
	if p.Guard == workload.GuardAfter {
		p.warnOfSpace(inStore)
	}
	for _, space := range need {
		p.Space = append(p.Space, *space)
	}
	slices.SortFunc(p.Space, func(a, b Space) int { return strings.Compare(a.Path, b.Path) })
	for _, space := range p.Space {
		if space.NeedBytes > space.FreeBytes {
			return refused("no_space", remedy.Of("free space there, or choose fewer volumes with --volume"),
				"the filesystem of %s has %d bytes free; the restore needs %d (old and new data are both on disk until the end)",
				space.Path, space.FreeBytes, space.NeedBytes)
		}
		if space.NeedInodes > space.FreeInodes {
			return refused("no_space", remedy.Of("remove files there, or choose fewer volumes with --volume"),
				"the filesystem of %s has %d inodes free; the restore needs %d", space.Path, space.FreeInodes, space.NeedInodes)
		}
	}
	return nil
}

// warnOfSpace warns when the store may be too full for the snapshot of the displaced
// trees. It refuses nothing: most of the data may be in the store already, the rest
// compresses, and a tree that finds no room stays where it is.
func (p *Plan) warnOfSpace(inStore *Space) {
	var live int64
	for _, v := range p.Volumes {
		live += v.LiveBytes
	}
	if inStore.NeedBytes+uint64(live) > inStore.FreeBytes {
		p.warn("the store may be too full for the snapshot of the live data (up to %d bytes, and %d are free): until there is room, the old data stays beside the new", live, inStore.FreeBytes)
	}
}

// planExchange tries a real exchange on each filesystem, in a wrapper of its
// own that a transaction records, so that a crash leaves nothing unnamed.
func (s *session) planExchange(_ context.Context, p *Plan) error {
	err, cleanErr := swap.Probe(p.volumes, func(begin *journal.Begin) (*journal.Tx, error) {
		begin.Snap = s.Version
		return s.Journal.Begin(s.held, begin)
	})
	if errors.Is(err, disk.ErrNoExchange) {
		err = refused("no_exchange", remedy.Of("keep the volume on ext4, xfs or btrfs"), "%w", err)
	}
	if cleanErr != nil {
		err = fault(Failed, "cleanup", remedy.Of(remedy.Recover(s.w.Name)), "the test exchange of the pre-flight left files that could not be removed: %w", errors.Join(err, cleanErr))
	}
	return err
}
