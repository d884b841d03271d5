package archive

import (
	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// The types for a name in the stream. They belong to package tarstream.
type (
	Entry    = tarstream.Entry
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

// What a store and a restore need of package member.
var (
	ErrRefused    = member.ErrRefused
	ParseCodec    = member.ParseCodec
	ValidMemberID = member.ValidID
	MemberID      = member.IDOf
	Inflate       = member.Inflate
	Check         = member.Check
	NewReader     = member.NewReader
	Join          = member.Join
)
