package store

import (
	"fmt"
	"math"
	"strconv"
)

// Turn is a place among the ids of all members, which are spread evenly. Scrubs go
// through them in turn, round and round.
type Turn uint64

// MarshalText implements [encoding.TextMarshaler]: as ids are written.
func (t Turn) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(t)), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (t *Turn) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 16, 64)
	*t = Turn(n)
	return err
}

// Scrub is the part of the members that a batch reads before it uses them again: those
// whose ids follow From. A member that goes bad on disk is so noticed within a bounded
// number of captures, while the live data may still have what it held. The zero Scrub
// is none of them.
type Scrub struct {
	From  Turn    // where the one before ended
	Share float64 // of all ids: 0 to 1
	// Enough ends it early. It is told how many bytes of members as they are stored were
	// read, and asked only between members. nil: it does not end early.
	Enough func(read int64) bool
}

// placeOf is the place of a member.
func placeOf(id string) Turn {
	n, _ := strconv.ParseUint(id[:16], 16, 64) // an id is 64 hexadecimal digits
	return Turn(n)
}

// distance is how far after the place a member comes. The ids form a ring: after the last
// comes the first.
func (t Turn) distance(id string) uint64 { return uint64(placeOf(id) - t) }

// width is how many of all ids are due.
func (s Scrub) width() uint64 {
	if s.Share >= 1 {
		return math.MaxUint64
	}
	return uint64(s.Share * math.MaxUint64)
}

// Due reports whether a member is among them.
func (s Scrub) Due(id string) bool { return s.Share > 0 && s.From.distance(id) <= s.width() }

// next is where the scrub after this one begins, if this one came to its end.
func (s Scrub) next() Turn { return s.From + Turn(s.width()) + 1 }
