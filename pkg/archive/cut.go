package archive

import (
	"hash/fnv"

	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// How a stream is cut into pieces.
//
// The content of a large file is cut every member.PieceSize bytes.
// Everything else is grouped. The last entry of a group decides that the group ends
// there, and the decision depends only on the entry's path and size: a hash of the
// path is compared with a threshold that grows with the size. So an added or removed
// name moves at most the cuts of its own group and of the next one. All later groups
// hold the same bytes as before, and are already in the store.
//
// The mean size of a group is minGroup+meanGroup. The decision does not depend on
// the content, so a walk that only calls stat knows the groups. A file that gains little
// by its neighbours is a group of its own: the window of deflate is 32 KiB.
//
// Where an earlier reading is known ([Known]), its groups stay as they are, and what has
// changed is cut out of them. When a file changes for the first time, its neighbours
// are stored anew with it; from then on the file costs no more than itself. Files that
// change often end up alone, and those that never change stay in groups, which compress
// better. Neighbours that change in the same night are grouped by the rule above.
const (
	largeSize  = 256 << 10 // a larger file is cut on its own
	mediumSize = 16 << 10  // a larger file is a group on its own
	minGroup   = 64 << 10
	meanGroup  = 128 << 10
	maxGroup   = 512 << 10
	// entryWeight is what the headers of an entry count.
	entryWeight = 1024
	// minPiece is the least weight of what is cut out of a group, and of what is left
	// before it: each member takes 150 bytes of each manifest.
	minPiece = 4 << 10
)

// cutter decides where groups end.
type cutter struct {
	weight  int64 // of the current group
	changed bool  // the current group has an entry that the earlier reading has not
	at      place // of the current entry
}

// place is where the earlier reading has an entry.
type place struct {
	same  bool // it has the same headers
	first bool // a member ended before it
	last  bool // a member ended after it
}

// before reports whether the group ends before e, which has this place in the earlier
// reading.
func (c *cutter) before(e *tarstream.Entry, at place) bool {
	c.at = at
	enough := c.weight >= minPiece
	switch {
	case at.same && at.first:
		return true // a whole member of the earlier reading may follow
	case at.same:
		return c.changed && enough
	case c.changed:
		return medium(e) && enough
	default:
		return at.first || enough
	}
}

// after reports whether the group ends after e. The group has size bytes.
func (c *cutter) after(e *tarstream.Entry, size int) bool {
	w := entryWeight + e.Size
	c.weight += w
	c.changed = c.changed || !c.at.same
	if c.at.same {
		return c.at.last && !c.changed || size >= 2*maxGroup
	}
	return size >= 2*maxGroup || medium(e) || c.weight >= maxGroup || c.weight >= minGroup && candidate(e.Name, w)
}

func (c *cutter) reset() { c.weight, c.changed = 0, false }

// medium reports whether a file is a group of its own.
func medium(e *tarstream.Entry) bool { return e.Size > mediumSize }

// candidate is true with a probability of weight/meanGroup.
func candidate(name string, weight int64) bool {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return mix(h.Sum64())>>32 < uint64(weight)<<32/meanGroup
}

// mix spreads FNV's weak high bits (the finalizer of MurmurHash3).
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
