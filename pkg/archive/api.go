package archive

import (
	"context"
	"io"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// The types for a name in the stream. They belong to package tarstream.
type (
	Entry    = tarstream.Entry
	Extent   = tarstream.Extent
	Type     = tarstream.Type
	Timespec = tarstream.Timespec
	Stats    = tarstream.Stats
)

// The types of an entry, and how many components a name may have.
const (
	Regular         = tarstream.Regular
	Hardlink        = tarstream.Hardlink
	Symlink         = tarstream.Symlink
	CharacterDevice = tarstream.CharacterDevice
	BlockDevice     = tarstream.BlockDevice
	Directory       = tarstream.Directory
	Fifo            = tarstream.Fifo
	MaxDepth        = tarstream.MaxDepth
)

// The types for the pieces of a stream. They belong to package member.
type (
	Member = member.Member
	Codec  = member.Codec
	Opener = member.Opener
	Sink   = member.Sink
	Reader = member.Reader
)

// The codecs, and how many bytes of tar a member may hold.
const (
	Gzip      = member.Gzip
	Zstd      = member.Zstd
	MaxMember = member.MaxMember
)

// ErrRefused is [member.ErrRefused].
var ErrRefused = member.ErrRefused

// ParseCodec is [member.ParseCodec].
func ParseCodec(name string) (Codec, error) { return member.ParseCodec(name) }

// ValidMemberID is [member.ValidID].
func ValidMemberID(id string) bool { return member.ValidID(id) }

// MemberID is [member.IDOf].
func MemberID(tar []byte) string { return member.IDOf(tar) }

// Inflate is [member.Inflate].
func Inflate(buf, data []byte, m Member) ([]byte, error) { return member.Inflate(buf, data, m) }

// Check is [member.Check].
func Check(ctx context.Context, from Opener, m Member) error { return member.Check(ctx, from, m) }

// NewReader is [member.NewReader].
func NewReader(ctx context.Context, from Opener, members []Member) *Reader {
	return member.NewReader(ctx, from, members)
}

// Join is [member.Join].
func Join(ctx context.Context, w io.Writer, from Opener, members []Member, codec Codec) error {
	return member.Join(ctx, w, from, members, codec)
}
