package foreign

import (
	"bytes"
	"math"
	"strconv"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// header is one header block of any tar.
type header []byte

// The fields that all tars have.
func (h header) name() []byte     { return h[0:100] }
func (h header) mode() []byte     { return h[100:108] }
func (h header) uid() []byte      { return h[108:116] }
func (h header) gid() []byte      { return h[116:124] }
func (h header) size() []byte     { return h[124:136] }
func (h header) mtime() []byte    { return h[136:148] }
func (h header) checksum() []byte { return h[148:156] }
func (h header) typ() byte        { return h[156] }
func (h header) link() []byte     { return h[157:257] }
func (h header) major() []byte    { return h[329:337] }
func (h header) minor() []byte    { return h[337:345] }

// posix tells whether the header is of POSIX, and has a prefix for its name. oldGNU tells
// whether it is of GNU tar's own format, which has other things in that place.
func (h header) posix() bool  { return string(h[257:263]) == "ustar\x00" }
func (h header) oldGNU() bool { return string(h[257:265]) == "ustar  \x00" }

// path is the name with its prefix.
func (h header) path() string {
	if prefix := text(h[345:500]); h.posix() && prefix != "" {
		return prefix + "/" + text(h.name())
	}
	return text(h.name())
}

// text is the part of a field before its first NUL.
func text(field []byte) string {
	s, _, _ := bytes.Cut(field, []byte{0})
	return string(s)
}

// summed reports whether a block has the checksum of a header. Some old tars have added
// signed bytes (GNU tar's manual, "Basic Tar Format").
func summed(block []byte) bool {
	want, err := number(header(block).checksum())
	if err != nil {
		return false
	}
	unsigned, signed := int64(0), int64(0)
	for i, c := range block {
		if i >= 148 && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return want == unsigned || want == signed
}

// number reads a field: octal digits after blanks, up to a NUL or a blank; or a binary
// number, which begins with a byte of 0x80 or more (GNU tar's manual, "Extensions to
// tar"). An empty field is 0.
func number(field []byte) (int64, error) {
	if field[0]&0x80 != 0 {
		return base256(field)
	}
	digits := bytes.TrimLeft(field, " ")
	if end := bytes.IndexAny(digits, " \x00"); end >= 0 {
		digits = digits[:end]
	}
	if len(digits) == 0 {
		return 0, nil
	}
	n, err := strconv.ParseUint(string(digits), 8, 63)
	if err != nil {
		return 0, member.Refuse("%q is not an octal number", digits)
	}
	return int64(n), nil
}

// base256 reads a number in two's complement whose first bit is not a part of it.
func base256(field []byte) (int64, error) {
	n := int64(field[0]&0x7f) << 57 >> 57
	for _, c := range field[1:] {
		if n > math.MaxInt64>>8 || n < math.MinInt64>>8 {
			return 0, member.Refuse("the number %x is out of range", field)
		}
		n = n<<8 | int64(c)
	}
	return n, nil
}

// length is the size of the content that follows a header.
func length(field []byte) (int64, error) {
	n, err := number(field)
	if err == nil && n < 0 {
		err = member.Refuse("a size of %d", n)
	}
	return n, err
}

// isEnd reports whether a block is one of the two that end an archive.
func isEnd(block []byte) bool { return tarstream.IsZero(block) }
