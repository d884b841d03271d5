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
// the content, so a walk that only calls stat knows the groups.
const (
	largeSize = 256 << 10 // a larger file is cut on its own
	minGroup  = 64 << 10
	meanGroup = 128 << 10
	maxGroup  = 512 << 10
	// entryWeight is what the headers of an entry count.
	entryWeight = 1024
)

// cutter decides where groups end. The weight is that of the current group.
type cutter struct{ weight int64 }

// after reports whether the group ends after e. The group has size bytes.
func (c *cutter) after(e *tarstream.Entry, size int) bool {
	w := entryWeight + e.Size
	c.weight += w
	return c.weight >= maxGroup || size >= 2*maxGroup || c.weight >= minGroup && candidate(e.Name, w)
}

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
