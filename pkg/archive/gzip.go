package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// Member is one piece of a volume's stream: a gzip member in the store.
type Member struct {
	ID     string `json:"id"`     // SHA-256 of the tar bytes, in hexadecimal
	Tar    int64  `json:"tar"`    // bytes of tar
	Stored int64  `json:"stored"` // bytes of the gzip member
}

// ValidMemberID reports whether id has the form of a member's name.
func ValidMemberID(id string) bool {
	if len(id) != 2*sha256.Size {
		return false
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// MemberID returns the name of the member that holds these tar bytes.
func MemberID(tar []byte) string {
	sum := sha256.Sum256(tar)
	return hex.EncodeToString(sum[:])
}

// gzipLevel packs like gzip -6 at several times its speed with this library,
// which by itself stores what does not compress.
const gzipLevel = 3

var (
	deflaters = sync.Pool{New: func() any {
		w, err := gzip.NewWriterLevel(io.Discard, gzipLevel)
		if err != nil {
			panic(err) // the level is a constant
		}
		return w
	}}
	inflaters = sync.Pool{New: func() any { return new(gzip.Reader) }}
)

// Deflate returns tar as one gzip member. The same bytes give the same member.
func Deflate(tar []byte) []byte {
	var out bytes.Buffer
	out.Grow(len(tar)/2 + 64)
	w := deflaters.Get().(*gzip.Writer)
	defer deflaters.Put(w)
	w.Reset(&out)
	// Writing to a bytes.Buffer cannot fail.
	_, _ = w.Write(tar)
	_ = w.Close()
	return out.Bytes()
}

// Inflate undoes Deflate: data must be exactly one gzip member whose content
// has m's length and checksum. Every other input is refused with [ErrRefused],
// and never more than m.Tar bytes and one are inflated.
func Inflate(data []byte, m Member) ([]byte, error) {
	if m.Tar < 1 || m.Tar > MaxMember {
		return nil, refuse("member %s: %d bytes of tar, at most %d", m.ID, m.Tar, MaxMember)
	}
	in := bytes.NewReader(data)
	r := inflaters.Get().(*gzip.Reader)
	defer inflaters.Put(r)
	if err := r.Reset(in); err != nil {
		return nil, refuse("member %s: not gzip: %w", m.ID, err)
	}
	r.Multistream(false)
	tar := make([]byte, m.Tar+1)
	n, err := fill(r, tar)
	switch {
	case err == nil:
		return nil, refuse("member %s: it inflates past its declared %d bytes", m.ID, m.Tar)
	case err != io.EOF: // io.ErrUnexpectedEOF too: gzip's word for a cut member
		return nil, refuse("member %s: %w", m.ID, err)
	case int64(n) != m.Tar:
		return nil, refuse("member %s: it inflates to %d bytes, %d declared", m.ID, n, m.Tar)
	case in.Len() > 0:
		return nil, refuse("member %s: %d bytes follow it", m.ID, in.Len())
	}
	tar = tar[:n]
	if id := MemberID(tar); id != m.ID {
		return nil, refuse("member %s: its content has checksum %s", m.ID, id)
	}
	return tar, nil
}

// fill reads until buf is full or r fails. Unlike io.ReadFull it returns r's own
// error, so that the end of a member and a member that is cut stay two things.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var got int
		got, err = r.Read(buf[n:])
		n += got
	}
	if n == len(buf) {
		return n, nil
	}
	return n, err
}

func (m Member) String() string { return fmt.Sprintf("%s (%d bytes)", m.ID, m.Tar) }
