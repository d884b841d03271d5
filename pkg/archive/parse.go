package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// ErrRefused is wrapped by every error that says that an archive is not one
// that may be extracted: forged, damaged, or of a kind that a volume cannot
// hold. It is never an error of the disk.
var ErrRefused = errors.New("archive refused")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}

// parser reads the tar stream that Write makes, and nothing else: what Write
// would not have written is refused rather than interpreted.
type parser struct {
	in     stream
	before func() // called before in is asked for more, for which it may wait
	now    *buffer
	rest   []byte // what of now has not been read
	left   int64  // content of the current entry not yet read
	pad    int64  // padding behind it
	split  [block]byte
}

func newParser(ctx context.Context, r io.Reader, before func()) *parser {
	if in, ok := r.(*Reader); ok {
		return &parser{in: in, before: before}
	}
	return &parser{in: &copied{r: r, slabs: newSlabs(ctx)}, before: before}
}

// next returns the next entry, and io.EOF behind a whole archive that nothing
// follows.
func (p *parser) next() (*Entry, error) {
	if err := p.skip(); err != nil {
		return nil, err
	}
	b, err := p.block()
	if err != nil {
		return nil, err
	}
	if isZero(b) {
		return nil, p.trailer()
	}
	typ, size, err := checkBlock(b)
	if err != nil {
		return nil, err
	}
	var pax map[string]string
	if typ == 'x' {
		if pax, err = p.pax(size); err != nil {
			return nil, err
		}
		if b, err = p.block(); err != nil {
			return nil, err
		}
		if typ, size, err = checkBlock(b); err != nil {
			return nil, err
		}
	}
	return p.entry(b, Type(typ), size, pax)
}

// trailer has read the first of the two zero blocks that end an archive.
func (p *parser) trailer() error {
	b, err := p.block()
	if err != nil {
		return err
	}
	if !isZero(b) {
		return refuse("a lone zero block")
	}
	if err := p.more(); err != nil {
		return err
	}
	return refuse("data behind the end")
}

func isZero(b []byte) bool { return len(b) == 0 || b[0] == 0 && bytes.Equal(b[:len(b)-1], b[1:]) }

// more makes rest hold something; its error is io.EOF where the stream ends.
func (p *parser) more() error {
	for len(p.rest) == 0 {
		// What is not given back while waiting could be what is waited for.
		p.close()
		p.before()
		var err error
		if p.now, err = p.in.stretch(); err != nil {
			return err
		}
		p.rest = p.now.b
	}
	return nil
}

func (p *parser) close() {
	p.now.release()
	p.now, p.rest = nil, nil
}

// inside is more where the stream may not end.
func (p *parser) inside() error {
	err := p.more()
	if errors.Is(err, io.EOF) {
		return refuse("it ends in the middle")
	}
	return err
}

// block returns the next block, valid until the next is read.
func (p *parser) block() ([]byte, error) {
	if len(p.rest) >= block {
		b := p.rest[:block]
		p.rest = p.rest[block:]
		return b, nil
	}
	return p.split[:], p.full(p.split[:])
}

func (p *parser) full(b []byte) error {
	for len(b) > 0 {
		if err := p.inside(); err != nil {
			return err
		}
		n := copy(b, p.rest)
		b, p.rest = b[n:], p.rest[n:]
	}
	return nil
}

// skip passes over what is left of the current entry.
func (p *parser) skip() error {
	if p.left != 0 {
		return fmt.Errorf("archive: %d bytes of content were not read", p.left)
	}
	var b [block]byte
	pad := b[:p.pad]
	p.pad = 0
	if err := p.full(pad); err != nil {
		return err
	}
	if !isZero(pad) {
		return refuse("padding that is not zero")
	}
	return nil
}

// take returns the next bytes of the current entry's content, at least one and
// at most n, where n is not more than what is left. They lie in the buffer:
// whoever keeps them holds it.
func (p *parser) take(n int64) ([]byte, *buffer, error) {
	if err := p.inside(); err != nil {
		return nil, nil, err
	}
	n = min(n, p.left, int64(len(p.rest)))
	b := p.rest[:n]
	p.rest, p.left = p.rest[n:], p.left-n
	return b, p.now, nil
}

func checkBlock(b []byte) (typ byte, size int64, err error) {
	if string(b[offMagic:offMagic+len(magic)]) != magic {
		return 0, 0, refuse("not a POSIX header")
	}
	want, err := parseOctal(b[offChecksum : offChecksum+lenChecksum])
	if err != nil || want != checksum(b) {
		return 0, 0, refuse("the checksum of a header is wrong")
	}
	size, err = parseOctal(b[offSize : offSize+lenSize])
	return b[offType], size, err
}

// parseOctal takes digits and then NULs or blanks; no sign, no base-256.
func parseOctal(field []byte) (int64, error) {
	s := strings.TrimRight(string(field), "\x00 ")
	n, err := strconv.ParseUint(s, 8, 63)
	if err != nil {
		return 0, refuse("%q is not an octal number", s)
	}
	return int64(n), nil
}

func (p *parser) pax(size int64) (map[string]string, error) {
	if size == 0 || size > maxPax {
		return nil, refuse("pax records of %d bytes", size)
	}
	data := make([]byte, size)
	if err := p.full(data); err != nil {
		return nil, err
	}
	p.pad = padding(size)
	if err := p.skip(); err != nil {
		return nil, err
	}
	records := map[string]string{}
	for rest := string(data); rest != ""; {
		digits, _, ok := strings.Cut(rest, " ")
		n, err := strconv.ParseUint(digits, 10, 31)
		if !ok || err != nil || digits[0] == '0' || int(n) > len(rest) || int(n) < len(digits)+2 {
			return nil, refuse("a pax record's length is wrong")
		}
		record := rest[len(digits)+1 : n]
		rest = rest[n:]
		key, value, ok := strings.Cut(record, "=")
		if !ok || key == "" || !strings.HasSuffix(value, "\n") {
			return nil, refuse("a pax record is malformed")
		}
		if _, twice := records[key]; twice {
			return nil, refuse("pax record %q twice", key)
		}
		records[key] = strings.TrimSuffix(value, "\n")
	}
	return records, nil
}

// entry puts the header block and its pax records together.
func (p *parser) entry(b []byte, typ Type, size int64, pax map[string]string) (*Entry, error) {
	e := &Entry{Type: typ, Name: cstring(b[offName : offName+lenName]), Link: cstring(b[offLink : offLink+lenLink])}
	if len(bytes.Trim(b[offPrefix:offPrefix+lenPrefix], "\x00")) > 0 {
		return nil, refuse("a header with a prefix")
	}
	var err error
	var mode, uid, gid int64
	for _, f := range []struct {
		to       *int64
		off, len int
	}{{&mode, offMode, lenMode}, {&uid, offUID, lenUID}, {&gid, offGID, lenGID}, {&e.Mtime.Sec, offMtime, lenMtime}} {
		if *f.to, err = parseOctal(b[f.off : f.off+f.len]); err != nil {
			return nil, err
		}
	}
	if mode > 0o7777 {
		return nil, refuse("%q has mode %#o", e.Name, mode)
	}
	x := &overrides{e: e, uid: uid, gid: gid, size: size, realSize: -1}
	for key, value := range pax {
		if err := x.set(key, value); err != nil {
			return nil, err
		}
	}
	e.Mode, e.UID, e.GID = uint32(mode), uint32(x.uid), uint32(x.gid)
	sortXattrs(e.Xattrs)
	return e, p.check(e, x)
}

func cstring(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// overrides are the values of one entry that pax records may replace.
type overrides struct {
	e                *Entry
	uid, gid, size   int64
	realSize         int64
	sparse           int // how many of the four sparse records were there
	name, sparseName string
}

func (x *overrides) set(key, value string) error {
	var err error
	switch key {
	case paxPath:
		x.name = value
		if value == "" {
			return refuse("an empty path record")
		}
	case paxLinkpath:
		x.e.Link = value
	case paxSize:
		// Only where the header has no room for it: of two sizes one program
		// believes the first and another the second.
		if x.size != 0 {
			return refuse("two sizes, %d and %q", x.size, value)
		}
		if x.size, err = parseDecimal(value, math.MaxInt64); err == nil && x.size <= maxOctal11 {
			return refuse("a record for the size %d, which fits the header", x.size)
		}
	case paxUID:
		x.uid, err = parseDecimal(value, math.MaxUint32-1)
	case paxGID:
		x.gid, err = parseDecimal(value, math.MaxUint32-1)
	case paxMtime:
		x.e.Mtime, err = parseTime(value)
	case paxSparseMajor, paxSparseMinor:
		x.sparse++
		if want := map[string]string{paxSparseMajor: "1", paxSparseMinor: "0"}[key]; value != want {
			return refuse("sparse format %s=%q", key, value)
		}
	case paxSparseName:
		x.sparse++
		x.sparseName = value
	case paxSparseSize:
		x.sparse++
		x.realSize, err = parseDecimal(value, math.MaxInt64)
	default:
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok {
			return refuse("pax record %q", key)
		}
		encoded := name
		if name = xattrName.Replace(name); xattrKey.Replace(name) != encoded {
			return refuse("pax record %q", key)
		}
		if len(name) > 255 || !keptXattr(name) {
			return refuse("extended attribute %q", name)
		}
		x.e.Xattrs = append(x.e.Xattrs, Xattr{name, []byte(value)})
	}
	return err
}

func parseDecimal(s string, limit uint64) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > limit || (len(s) > 1 && s[0] == '0') {
		return 0, refuse("%q is not a number that can stand here", s)
	}
	return int64(n), nil
}

// parseTime is the inverse of Timespec.decimal.
func parseTime(s string) (Timespec, error) {
	digits, negative := strings.CutPrefix(s, "-")
	whole, frac, _ := strings.Cut(digits, ".")
	sec, err := strconv.ParseUint(whole, 10, 64)
	if err != nil || len(frac) > 9 {
		return Timespec{}, refuse("%q is not a time", s)
	}
	nsec, err := strconv.ParseUint((frac + "000000000")[:9], 10, 32)
	if err != nil {
		return Timespec{}, refuse("%q is not a time", s)
	}
	if !negative {
		if sec > math.MaxInt64 {
			return Timespec{}, refuse("%q is not a time", s)
		}
		return Timespec{int64(sec), int64(nsec)}, nil
	}
	if nsec != 0 { // the kernel counts nanoseconds forward
		sec, nsec = sec+1, 1e9-nsec
	}
	if sec > 1<<63 {
		return Timespec{}, refuse("%q is not a time", s)
	}
	return Timespec{int64(-sec), int64(nsec)}, nil
}

// check completes the entry and refuses what does not fit together.
func (p *parser) check(e *Entry, x *overrides) error {
	if x.name != "" {
		e.Name = x.name
	}
	switch {
	case x.sparse == 4 && e.Type == Regular && x.name == "":
		e.Name = x.sparseName
	case x.sparse != 0:
		return refuse("%q: incomplete sparse records", e.Name)
	}
	if e.Type == Directory {
		name, ok := strings.CutSuffix(e.Name, "/")
		if !ok {
			return refuse("directory %q without its slash", e.Name)
		}
		e.Name = name
	}
	if e.Name != Root || e.Type != Directory {
		if err := checkName(e.Name); err != nil {
			return refuse("%w", err)
		}
	}
	if e.Type != Regular && x.size != 0 {
		return refuse("%s %q has %d bytes of content", e.Type, e.Name, x.size)
	}
	switch e.Type {
	case Regular:
		return p.content(e, x)
	case Hardlink:
		if err := checkName(e.Link); err != nil {
			return refuse("hardlink %q: %w", e.Name, err)
		}
	case Symlink:
		if e.Link == "" || len(e.Link) >= 4096 || strings.IndexByte(e.Link, 0) >= 0 || len(e.Xattrs) > 0 {
			return refuse("symlink %q cannot be made", e.Name)
		}
	case Directory:
	default:
		return refuse("%q is neither directory, file, symlink nor hardlink: %s", e.Name, e.Type)
	}
	if e.Link != "" && e.Type == Directory {
		return refuse("directory %q has a link", e.Name)
	}
	return nil
}

// content prepares a regular file's content for Read, and reads the map of a
// sparse one.
func (p *parser) content(e *Entry, x *overrides) error {
	if e.Link != "" {
		return refuse("file %q has a link", e.Name)
	}
	p.left, p.pad = x.size, padding(x.size)
	e.Size = x.size
	if x.sparse == 0 {
		return nil
	}
	e.Size = x.realSize
	extents, err := p.sparseMap(e.Name)
	if err != nil {
		return err
	}
	var end int64
	for _, h := range extents {
		if h.Offset < end || h.Length < 0 || h.Length > e.Size-h.Offset {
			return refuse("%q: the map of its holes is not in order", e.Name)
		}
		end = h.Offset + h.Length
	}
	e.Extents = extents
	if e.stored() != p.left {
		return refuse("%q: the map of its holes names %d bytes, %d follow", e.Name, e.stored(), p.left)
	}
	return nil
}

func (p *parser) sparseMap(name string) ([]Extent, error) {
	var b [block]byte
	have := b[:0]
	number := func() (int64, error) {
		var digits []byte
		for {
			if len(have) == 0 {
				if p.left < block {
					return 0, refuse("%q: the map of its holes is cut", name)
				}
				if err := p.full(b[:]); err != nil {
					return 0, err
				}
				p.left -= block
				have = b[:]
			}
			c := have[0]
			have = have[1:]
			if c == '\n' {
				return parseDecimal(string(digits), math.MaxInt64)
			}
			if digits = append(digits, c); len(digits) > 19 {
				return 0, refuse("%q: the map of its holes is no map", name)
			}
		}
	}
	n, err := number()
	if err != nil {
		return nil, err
	}
	if n > maxExtents {
		return nil, refuse("%q has %d stretches of data, at most %d", name, n, maxExtents)
	}
	extents := make([]Extent, 0, min(n, 1024))
	for range n {
		offset, err := number()
		if err != nil {
			return nil, err
		}
		length, err := number()
		if err != nil {
			return nil, err
		}
		extents = append(extents, Extent{offset, length})
	}
	if len(bytes.Trim(have, "\x00")) > 0 {
		return nil, refuse("%q: the map of its holes has something behind it", name)
	}
	return extents, nil
}
