package member

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// Member is one piece of a volume's stream, compressed on its own in the store.
type Member struct {
	ID     string `json:"id"`     // SHA-256 of the tar bytes, in hexadecimal
	Tar    int64  `json:"tar"`    // bytes of tar
	Stored int64  `json:"stored"` // bytes of the member as it is stored
	// Codec is how the member is stored. All members of a volume have the same
	// codec, so the manifest names it once.
	Codec Codec `json:"-"`
}

// MaxMember is the most bytes of tar that a member may hold. What a restore would
// refuse must never be captured, so both sides use the same limit.
const MaxMember = 16 << 20

// ValidID reports whether id has the form of a member's ID.
func ValidID(id string) bool {
	if len(id) != 2*sha256.Size {
		return false
	}
	for i := range len(id) {
		if !digit[id[i]] {
			return false
		}
	}
	return true
}

// digit are the digits of an ID. A manifest has millions of them.
var digit = [256]bool{
	'0': true, '1': true, '2': true, '3': true, '4': true, '5': true, '6': true, '7': true, '8': true, '9': true,
	'a': true, 'b': true, 'c': true, 'd': true, 'e': true, 'f': true,
}

// IDOf returns the ID of the member that holds these tar bytes.
func IDOf(tar []byte) string {
	sum := sha256.Sum256(tar)
	return hex.EncodeToString(sum[:])
}

func (m Member) String() string { return fmt.Sprintf("%s (%d bytes)", m.ID, m.Tar) }

// ErrRefused is wrapped by every error that means that an archive must not be
// extracted: it is forged, it is damaged, or a volume cannot hold what is in it. An
// error of the disk never wraps it.
var ErrRefused = errors.New("archive refused")

// Refuse returns an error that wraps ErrRefused.
func Refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}

// Codec is how members are compressed. Concatenated members of one codec are a
// file that gzip or zstd can unpack.
type Codec uint8

const (
	Gzip Codec = iota // a gzip member (RFC 1952)
	Zstd              // a zstd frame (RFC 8878)
)

// codecs holds the names as the config writes them, and the endings of file names.
var codecs = [...]struct{ name, ext string }{Gzip: {"gzip", ".gz"}, Zstd: {"zstd", ".zst"}}

// ParseCodec returns the codec of that name.
func ParseCodec(name string) (Codec, error) {
	for c := range codecs {
		if codecs[c].name == name {
			return Codec(c), nil
		}
	}
	return 0, fmt.Errorf("unknown compression %q: use gzip or zstd", name)
}

func (c Codec) String() string { return codecs[c].name }

// Ext returns the ending of a member's file name: ".gz" or ".zst".
func (c Codec) Ext() string { return codecs[c].ext }

// MarshalText implements encoding.TextMarshaler.
func (c Codec) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Codec) UnmarshalText(name []byte) (err error) {
	*c, err = ParseCodec(string(name))
	return err
}

// Deflate compresses tar into one member, appends it to dst and returns dst. The
// same bytes always give the same member.
func (c Codec) Deflate(dst, tar []byte) []byte {
	if cap(dst) == 0 {
		dst = make([]byte, 0, len(tar)/2+64)
	}
	if c == Zstd {
		return deflateZstd(dst, tar)
	}
	return deflateGzip(dst, tar)
}

// Inflate undoes Deflate. The data must be exactly one member of m's codec, and the
// content must have m's length and checksum. Inflate refuses any other input with
// [ErrRefused]. It never inflates more than m.Tar bytes and one block of 128 KiB.
// The result lies in the memory of buf if the capacity of buf is large enough.
// After an error the content of buf is undefined.
func Inflate(buf, data []byte, m Member) ([]byte, error) {
	if m.Tar < 1 || m.Tar > MaxMember {
		return nil, Refuse("member %s: %d bytes of tar, at most %d", m.ID, m.Tar, MaxMember)
	}
	room := roomFor(m.Tar)
	if int64(cap(buf)) < room {
		buf = make([]byte, room)
	}
	inflate := inflateGzip
	if m.Codec == Zstd {
		inflate = inflateZstd
	}
	tar, err := inflate(buf[:0:room], data, m.Tar)
	if err != nil {
		return nil, Refuse("member %s: %w", m.ID, err)
	}
	if id := IDOf(tar); id != m.ID {
		return nil, Refuse("member %s: its content has checksum %s", m.ID, id)
	}
	return tar, nil
}

// roomFor is the capacity into which a member of that size is inflated. The gzip
// decoder is offered one byte more than declared, so that a longer member shows.
// The zstd decoder may write a block past the declared end before it notices, and
// grows the buffer for it: a large buffer has the room, a small one grows by
// little. With 16 bytes left over it copies in words up to the end.
func roomFor(size int64) int64 { return size + size/64 + 16 }

// The errors of both codecs for a member that is not as its manifest declares.
func pastDeclared(size int64) error {
	return fmt.Errorf("it inflates past its declared %d bytes", size)
}
func notDeclared(n, size int64) error {
	return fmt.Errorf("it inflates to %d bytes, %d declared", n, size)
}
func trailing(n int) error { return fmt.Errorf("%d bytes follow it", n) }
