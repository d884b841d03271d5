package archive

import (
	"hash/fnv"

	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// How a stream is cut into pieces.
//
// Content of a large file is cut every pieceSize bytes of it, on its own.
// Everything else is grouped. Where a group ends is decided by the entry
// behind which it ends, from its path and size alone: a hash of the path is
// compared with a threshold that grows with the entry. So a name that is added
// or removed moves no cut but, at most, those of its own group and the next:
// all later groups hold the same bytes as before and are stored already.
//
// The mean distance is minGroup+meanGroup. The decision does not look at the
// content, so a walk by stat alone knows the groups.
const (
	largeSize = 256 << 10
	minGroup  = 64 << 10
	meanGroup = 128 << 10
	maxGroup  = 512 << 10
	// entryWeight is what an entry counts besides its content: its headers.
	entryWeight = 1024
)

// large reports whether a file of this size has pieces of its own.
func large(size int64) bool { return size > largeSize }

// cutter decides where groups end; weight is that of the current group.
type cutter struct{ weight int64 }

// after reports whether the group ends behind e; size is what the group holds.
func (c *cutter) after(e *tarstream.Entry, size int) bool {
	w := entryWeight + e.Size
	c.weight += w
	if c.weight >= maxGroup || size >= 2*maxGroup || c.weight >= minGroup && candidate(e.Name, w) {
		return true
	}
	return false
}

// candidate is true with a probability of weight/meanGroup, by the path alone.
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
