package preflight

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// space adds up the room that each filesystem needs: for the staged trees beside
// the live ones, and a little in the store.
func (h *Host) space(_ context.Context, p *Plan) error {
	const perEntry = 4096 // a block for what a name and its metadata take
	need := disk.Rooms{}
	for _, v := range p.Volumes {
		m := v.Stored
		// The length of the stream bounds what can be written, whatever the manifest
		// says of the data; the length of each member is checked.
		bytes := uint64(m.Tar()) + perEntry*uint64(m.Entries())
		if _, err := need.Add(v.Opened.Nearest(), bytes, uint64(m.Entries())+2); err != nil {
			return err
		}
		if project, free, err := v.Opened.Quota(); err != nil {
			return err
		} else if project != 0 && bytes > free {
			return fault.Refuse("no_space", remedy.Of("raise the quota of the project, or free space in it"),
				"the quota of project %d of %s has %d bytes free; the restore needs %d (old and new data both count until the end)", project, v.Path, free, bytes)
		}
	}
	// How much of the live data is not in the store yet shows only when it is read.
	// The first pass of the pre-restore capture reads it before anything stops; with
	// guard after nothing reads it until the app is up again. So this asks for room
	// for the records and the manifest only.
	inStore, err := need.Add(h.Store.Root(), 4<<20, 64)
	if err != nil {
		return err
	}
	if _, err := need.Add(h.Journal.Root(), 1<<20, 64); err != nil {
		return err
	}
	if p.Guard == workload.GuardAfter {
		p.warnOfSpace(inStore)
	}
	p.Space = need.List()
	return enough(p.Space)
}

func enough(list []disk.Room) error {
	for _, space := range list {
		if space.NeedBytes > space.FreeBytes {
			return fault.Refuse("no_space", remedy.Of(fmt.Sprintf("free %d bytes there, or choose fewer volumes with --volume", space.NeedBytes-space.FreeBytes)),
				"the filesystem of %s has %d bytes free; the restore needs %d, so %d are missing (old and new data are both on disk until the end)",
				space.Path, space.FreeBytes, space.NeedBytes, space.NeedBytes-space.FreeBytes)
		}
		if space.NeedInodes > space.FreeInodes {
			return fault.Refuse("no_space", remedy.Of("remove files there, or choose fewer volumes with --volume"),
				"the filesystem of %s has %d inodes free; the restore needs %d, so %d are missing", space.Path, space.FreeInodes, space.NeedInodes, space.NeedInodes-space.FreeInodes)
		}
	}
	return nil
}

// warnOfSpace warns when the store may be too full for the snapshot of the displaced
// trees. It refuses nothing: most of the data may be in the store already, the rest
// compresses, and a tree that finds no room stays where it is.
func (p *Plan) warnOfSpace(inStore *disk.Room) {
	live := p.LiveBytes()
	if inStore.NeedBytes+uint64(live) > inStore.FreeBytes {
		p.warn("the store may be too full for the snapshot of the live data (up to %d bytes, and %d are free): until there is room, the old data stays beside the new", live, inStore.FreeBytes)
	}
}

// fit returns the directories that can be exchanged.
func (p *Plan) fit() []*swap.Volume {
	var list []*swap.Volume
	for _, v := range p.Volumes {
		if !v.unfit {
			list = append(list, v.Opened)
		}
	}
	return list
}

// exchange tries a real exchange on each filesystem, in a wrapper of its own that a
// transaction records, so that a crash leaves nothing unnamed.
func (h *Host) exchange(_ context.Context, p *Plan) error {
	err, cleanErr := swap.Probe(p.fit(), func(begin *journal.Begin) (*journal.Tx, error) {
		begin.Snap, begin.Config = h.Version, h.Workload.Config
		return h.Journal.Begin(h.Held, begin)
	})
	switch {
	case cleanErr != nil:
		return fault.New(fault.Failed, "cleanup", remedy.Of(remedy.Recover(h.Workload.Name)), "the test exchange of the pre-flight left files that could not be removed: %w", errors.Join(err, cleanErr))
	case errors.Is(err, disk.ErrNoExchange):
		return fault.Refuse("no_exchange", remedy.Of("keep the volume on ext4, xfs or btrfs"), "%w", err)
	case p.captures && (fault.NoSpace(err) || errors.Is(err, unix.EROFS)):
		// It passes, and a snapshot is wanted most on such a day.
		p.warn("whether a restore could exchange the directories cannot be tried: %v", err)
		return nil
	}
	return err
}
