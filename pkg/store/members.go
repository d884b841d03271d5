package store

import (
	"context"
	"encoding/hex"
	"fmt"
	"iter"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
)

// Members is where the members of a store lie. A member is named by its id and its
// codec; the other fields of an [archive.Member] name nothing.
//
// A method may be called from several goroutines, but for Put and Remove, which
// nothing else runs beside (see journal.LockStore). A context that ends may end
// a call early, with its cause as the error.
type Members interface {
	// Stat returns how many bytes are stored as each member, in the order of the
	// list, and 0 for a member that is not there. What it finds may come from a Put
	// that was cut, and is durable when the next Put returns. The error wraps
	// [disk.ErrDamaged] where no Put makes what stands at a member's name.
	Stat(ctx context.Context, list []archive.Member) ([]int64, error)

	// Get returns the bytes of a member as they are stored, unchecked: in the
	// memory of buf where its capacity is enough, else in new memory. The error
	// wraps fs.ErrNotExist where the member is not there, and [disk.ErrDamaged]
	// where something else is there: not a file, or longer than a member can be.
	Get(ctx context.Context, m archive.Member, buf []byte) ([]byte, error)

	// Put stores members, in the place of those that are there under the same
	// names. When it returns nil all of them are durable, and so is every member
	// that Stat has found. After an error each of the list is stored whole or not
	// at all, what was stored under its name before is gone or whole, and its
	// staged file may be gone: a caller stages them anew.
	Put(ctx context.Context, list iter.Seq[Staged]) error

	// List goes through all members, in no order, with the fields ID, Codec and
	// Stored. It passes over what is not a member. An error ends it; what it gave
	// before that is there.
	List(ctx context.Context) iter.Seq2[archive.Member, error]

	// Remove removes members; one that is not there is not an error. When it
	// returns nil that is durable. After an error some may be gone, and it may be
	// called again.
	Remove(ctx context.Context, list []archive.Member) error
}

// MemberKey names a member in less memory than its id does.
type MemberKey struct {
	sum  [32]byte
	zstd bool
}

// KeyOf returns the key of a member, whose id is a valid one.
func KeyOf(m archive.Member) (k MemberKey) {
	_, _ = hex.Decode(k.sum[:], []byte(m.ID))
	k.zstd = m.Codec == archive.Zstd
	return k
}

// Keys returns the keys of members.
func Keys(list []archive.Member) []MemberKey {
	keys := make([]MemberKey, len(list))
	for i, m := range list {
		keys[i] = KeyOf(m)
	}
	return keys
}

// Member returns the id and the codec of the member that has the key.
func (k MemberKey) Member() archive.Member {
	m := archive.Member{ID: hex.EncodeToString(k.sum[:])}
	if k.zstd {
		m.Codec = archive.Zstd
	}
	return m
}

// MarshalText implements [encoding.TextMarshaler]: the name of the member's file.
func (k MemberKey) MarshalText() ([]byte, error) { return []byte(memberFile(k.Member())), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (k *MemberKey) UnmarshalText(text []byte) error {
	m, ok := memberOf(string(text))
	if !ok {
		return fmt.Errorf("%q is not the name of a member", text)
	}
	*k = KeyOf(m)
	return nil
}

// Staged is a member that waits in a file of its own until [Members.Put] takes
// it. The content of the file is durable; its name need not be.
type Staged struct {
	archive.Member // Stored is the length of the file

	Dir  *disk.Dir
	Name string
}

// maxStored bounds what is stored as a member, in bytes. What does not compress
// is stored as it is, in blocks: both codecs expand by less than 1 %.
const maxStored = archive.MaxMember + archive.MaxMember/64
