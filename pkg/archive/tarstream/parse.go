package tarstream

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/tiny-forge/snap/pkg/archive/member"
)

// Parser reads a tar stream that a capture wrote, and no other. It refuses what a
// capture would not have written, and does not try to interpret it.
type Parser struct {
	in     *member.Reader
	before func() // called before in is read, because reading may wait
	part   bool   // see NewPart
	ended  bool   // the archive has
	began  int    // see Began
	first  bool
	short  bool // the members have ended inside an entry
	now    *member.Buffer
	rest   []byte // the part of now that has not been read
	left   int64  // bytes of the current entry's content that were not read
	pad    int64  // bytes of padding after the content
	split  [Block]byte
}

// NewParser returns a parser of r. It calls before whenever reading r may wait. A
// caller that holds buffers must let them be written then, since r may wait for their
// release.
func NewParser(r *member.Reader, before func()) *Parser { return &Parser{in: r, before: before} }

// NewPart is NewParser for some members of a stream that follow one another. The first
// begins with an entry, and Next returns io.EOF too where the last of them ends before the
// headers of an entry do.
func NewPart(r *member.Reader, before func()) *Parser {
	return &Parser{in: r, before: before, part: true}
}

// Ended reports whether the archive has ended, and not only a part of it.
func (p *Parser) Ended() bool { return p.ended }

// Began returns in which of the reader's members the headers of the current entry begin,
// and whether the entry is the first thing in that member.
func (p *Parser) Began() (at int, first bool) { return p.began, p.first }

// Pass passes over the content of the current entry. Members that are nothing but that
// content are not read.
func (p *Parser) Pass() error {
	if content := p.Members(); content != nil {
		p.PassOver(content)
		return nil
	}
	for p.left > 0 {
		if p.part && errors.Is(p.more(), io.EOF) { // the rest is in members that nobody asked for
			p.left, p.pad = 0, 0
			return nil
		}
		if _, _, err := p.Take(p.left); err != nil {
			return err
		}
	}
	return nil
}

// Members returns the members that are exactly the content and the padding of the
// current entry, and nil if there are none. It must be called before the first Take
// of the entry.
func (p *Parser) Members() []member.Member {
	if len(p.rest) > 0 {
		return nil
	}
	return p.in.Upcoming(p.left + p.pad)
}

// PassOver continues after the members that Members returned. It returns where they
// come from.
func (p *Parser) PassOver(members []member.Member) member.Opener {
	p.in.Skip(len(members))
	p.left, p.pad = 0, 0
	return p.in.Opener()
}

// Next returns the next entry. It returns io.EOF after a whole archive that nothing
// follows. The content of the entry before must have been taken.
func (p *Parser) Next() (*Entry, error) {
	e, err := p.next()
	if err != nil && p.part && p.short {
		return nil, io.EOF
	}
	return e, err
}

func (p *Parser) next() (*Entry, error) {
	if err := p.skip(); err != nil {
		return nil, err
	}
	p.began, p.first = p.in.At(), len(p.rest) == 0
	if !p.first {
		p.began--
	}
	b, err := p.block()
	if err != nil {
		return nil, err
	}
	if IsZero(b) {
		err := p.trailer()
		p.ended = errors.Is(err, io.EOF)
		return nil, err
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

// trailer reads on after the first of the two zero blocks that end an archive.
func (p *Parser) trailer() error {
	b, err := p.block()
	if err != nil {
		return err
	}
	if !IsZero(b) {
		return member.Refuse("a lone zero block")
	}
	if err := p.more(); err != nil {
		return err
	}
	return member.Refuse("there is data after the end")
}

func IsZero(b []byte) bool { return len(b) == 0 || b[0] == 0 && bytes.Equal(b[:len(b)-1], b[1:]) }

// more fills rest if it is empty. It returns io.EOF at the end of the stream.
func (p *Parser) more() error {
	for len(p.rest) == 0 {
		// The stream may wait until this buffer is released.
		p.Close()
		p.before()
		var err error
		if p.now, err = p.in.Stretch(); err != nil {
			return err
		}
		p.rest = p.now.Bytes
	}
	return nil
}

func (p *Parser) Close() {
	p.now.Release()
	p.now, p.rest = nil, nil
}

// inside is more for a place where the stream must not end.
func (p *Parser) inside() error {
	err := p.more()
	if errors.Is(err, io.EOF) {
		p.short = true
		return member.Refuse("it ends too early")
	}
	return err
}

// block returns the next block, which is valid until the next read.
func (p *Parser) block() ([]byte, error) {
	if len(p.rest) >= Block {
		b := p.rest[:Block]
		p.rest = p.rest[Block:]
		return b, nil
	}
	return p.split[:], p.full(p.split[:])
}

func (p *Parser) full(b []byte) error {
	for len(b) > 0 {
		if err := p.inside(); err != nil {
			return err
		}
		n := copy(b, p.rest)
		b, p.rest = b[n:], p.rest[n:]
	}
	return nil
}

// skip passes over the padding of the current entry.
func (p *Parser) skip() error {
	if p.left != 0 {
		return fmt.Errorf("tarstream: %d bytes of content were not read", p.left)
	}
	var b [Block]byte
	pad := b[:p.pad]
	p.pad = 0
	if err := p.full(pad); err != nil {
		return err
	}
	if !IsZero(pad) {
		return member.Refuse("its padding is not zero")
	}
	return nil
}

// Take returns the next bytes of the current entry's content: at least one and at
// most n, which must not be more than is left. The bytes lie in the buffer; a caller
// that keeps them holds the buffer.
func (p *Parser) Take(n int64) ([]byte, *member.Buffer, error) {
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
		return 0, 0, member.Refuse("not a POSIX header")
	}
	want, err := parseOctal(b[offChecksum : offChecksum+lenChecksum])
	if err != nil || want != checksum(b) {
		return 0, 0, member.Refuse("a header has the wrong checksum")
	}
	size, err = parseOctal(b[offSize : offSize+lenSize])
	return b[offType], size, err
}

// parseOctal accepts digits followed by NULs or blanks. It accepts no sign and no
// base-256 number.
func parseOctal(field []byte) (int64, error) {
	s := strings.TrimRight(string(field), "\x00 ")
	n, err := strconv.ParseUint(s, 8, 63)
	if err != nil {
		return 0, member.Refuse("%q is not an octal number", s)
	}
	return int64(n), nil
}

func (p *Parser) pax(size int64) (map[string]string, error) {
	if size == 0 || size > maxPax {
		return nil, member.Refuse("%d bytes of pax records", size)
	}
	data := make([]byte, size)
	if err := p.full(data); err != nil {
		return nil, err
	}
	p.pad = Padding(size)
	if err := p.skip(); err != nil {
		return nil, err
	}
	records := map[string]string{}
	return records, EachRecord(string(data), func(key, value string) error {
		if _, twice := records[key]; twice {
			return member.Refuse("pax record %q appears twice", key)
		}
		records[key] = value
		return nil
	})
}

// EachRecord calls do for each of the pax records in data.
func EachRecord(data string, do func(key, value string) error) error {
	for rest := data; rest != ""; {
		digits, _, ok := strings.Cut(rest, " ")
		n, err := strconv.ParseUint(digits, 10, 31)
		if !ok || err != nil || digits[0] == '0' || int(n) > len(rest) || int(n) < len(digits)+2 {
			return member.Refuse("a pax record has the wrong length")
		}
		record := rest[len(digits)+1 : n]
		rest = rest[n:]
		key, value, ok := strings.Cut(record, "=")
		if !ok || key == "" || !strings.HasSuffix(value, "\n") {
			return member.Refuse("a pax record is malformed")
		}
		if err := do(key, strings.TrimSuffix(value, "\n")); err != nil {
			return err
		}
	}
	return nil
}

// entry makes an entry of the header block and its pax records.
func (p *Parser) entry(b []byte, typ Type, size int64, pax map[string]string) (*Entry, error) {
	e := &Entry{Type: typ, Name: cstring(b[offName : offName+lenName]), Link: cstring(b[offLink : offLink+lenLink])}
	if len(bytes.Trim(b[offPrefix:offPrefix+lenPrefix], "\x00")) > 0 {
		return nil, member.Refuse("a header has a prefix field")
	}
	var err error
	var mode int64
	x := &overrides{e: e, size: size, realSize: -1}
	for _, f := range []struct {
		to       *int64
		off, len int
	}{{&mode, offMode, lenMode}, {&x.uid, offUID, lenUID}, {&x.gid, offGID, lenGID}, {&e.Mtime.Sec, offMtime, lenMtime}} {
		if *f.to, err = parseOctal(b[f.off : f.off+f.len]); err != nil {
			return nil, err
		}
	}
	if mode > 0o7777 {
		return nil, member.Refuse("%q has mode %#o", e.Name, mode)
	}
	for key, value := range pax {
		if err := x.set(key, value); err != nil {
			return nil, err
		}
	}
	e.Mode, e.UID, e.GID = uint32(mode), uint32(x.uid), uint32(x.gid)
	if typ.device() {
		major, err := parseOctal(b[offMajor : offMajor+lenMajor])
		if err != nil {
			return nil, err
		}
		minor, err := parseOctal(b[offMinor : offMinor+lenMinor])
		if err != nil {
			return nil, err
		}
		if err := e.SetNumber(major, minor); err != nil {
			return nil, err
		}
	}
	SortXattrs(e.Xattrs)
	return e, p.check(e, x)
}

// SetNumber sets the number of a device, and does nothing for other entries.
func (e *Entry) SetNumber(major, minor int64) error {
	if !e.Type.device() {
		return nil
	}
	if major < 0 || major >= maxMajor || minor < 0 || minor >= maxMinor {
		return member.Refuse("%s %q has the number %d:%d, which no device has", e.Type, e.Name, major, minor)
	}
	e.Major, e.Minor = uint32(major), uint32(minor)
	return nil
}

func cstring(b []byte) string {
	text, _, _ := bytes.Cut(b, zeros[:1])
	return string(text)
}

// overrides holds the values of one entry that pax records may replace.
type overrides struct {
	e                *Entry
	uid, gid, size   int64
	realSize         int64
	sparse           int // how many of the four sparse records were found
	name, sparseName string
}

func (x *overrides) set(key, value string) error {
	var err error
	switch key {
	case paxPath:
		x.name = value
		if value == "" {
			return member.Refuse("the path record is empty")
		}
	case paxLinkpath:
		x.e.Link = value
	case paxSize:
		// Accepted only if the header has no room for the size. Of two sizes, one
		// program believes the first and another the second.
		if x.size != 0 {
			return member.Refuse("it has two sizes, %d and %q", x.size, value)
		}
		if x.size, err = parseDecimal(value, math.MaxInt64); err == nil && x.size <= maxOctal11 {
			return member.Refuse("the size %d has a pax record, although it fits the header", x.size)
		}
	case paxUID:
		x.uid, err = parseDecimal(value, math.MaxUint32-1)
	case paxGID:
		x.gid, err = parseDecimal(value, math.MaxUint32-1)
	case paxMtime:
		x.e.Mtime, err = ParseTime(value)
	case paxSparseMajor, paxSparseMinor:
		x.sparse++
		if want := map[string]string{paxSparseMajor: "1", paxSparseMinor: "0"}[key]; value != want {
			return member.Refuse("unknown sparse format: %s=%q", key, value)
		}
	case paxSparseName:
		x.sparse++
		x.sparseName = value
	case paxSparseSize:
		x.sparse++
		x.realSize, err = parseDecimal(value, math.MaxInt64)
	default:
		name, ok := strings.CutPrefix(key, PaxXattr)
		if !ok {
			return member.Refuse("unknown pax record %q", key)
		}
		encoded := name
		if name = XattrName.Replace(name); xattrKey.Replace(name) != encoded {
			return member.Refuse("unknown pax record %q", key)
		}
		if len(name) > 255 || !KeptXattr(name) {
			return member.Refuse("extended attribute %q is not one that a volume keeps", name)
		}
		x.e.Xattrs = append(x.e.Xattrs, Xattr{name, []byte(value)})
	}
	return err
}

func parseDecimal(s string, limit uint64) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > limit || (len(s) > 1 && s[0] == '0') {
		return 0, member.Refuse("%q is not a valid number here", s)
	}
	return int64(n), nil
}

// ParseTime reads a time as pax writes it. It undoes Timespec.decimal.
func ParseTime(s string) (Timespec, error) {
	whole, frac, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	nsec, ferr := strconv.ParseUint((frac + "000000000")[:9], 10, 32)
	before1970 := strings.HasPrefix(s, "-") && nsec != 0 // the kernel counts nanoseconds forward
	if err != nil || ferr != nil || len(frac) > 9 || s[0] == '+' || before1970 && sec == math.MinInt64 {
		return Timespec{}, member.Refuse("%q is not a time", s)
	}
	if before1970 {
		sec, nsec = sec-1, 1e9-nsec
	}
	return Timespec{sec, int64(nsec)}, nil
}

// check completes the entry and refuses fields that contradict each other.
func (p *Parser) check(e *Entry, x *overrides) error {
	e.Name = cmp.Or(x.name, e.Name)
	switch {
	case x.sparse == 4 && e.Type == Regular && x.name == "":
		e.Name = x.sparseName
	case x.sparse != 0:
		return member.Refuse("%q: the sparse records are incomplete", e.Name)
	}
	if e.Type == Directory {
		name, ok := strings.CutSuffix(e.Name, "/")
		if !ok {
			return member.Refuse("the name of directory %q does not end in a slash", e.Name)
		}
		e.Name = name
	}
	if e.Name != Root || e.Type != Directory {
		if err := CheckName(e.Name); err != nil {
			return member.Refuse("%w", err)
		}
	}
	if e.Type != Regular && x.size != 0 {
		return member.Refuse("%s %q has %d bytes of content", e.Type, e.Name, x.size)
	}
	switch e.Type {
	case Regular:
		return p.content(e, x)
	case Hardlink:
		if err := CheckName(e.Link); err != nil {
			return member.Refuse("hardlink %q: %w", e.Name, err)
		}
	case Symlink:
		if e.Link == "" || len(e.Link) >= 4096 || strings.IndexByte(e.Link, 0) >= 0 || len(e.Xattrs) > 0 {
			return member.Refuse("symlink %q is not valid", e.Name)
		}
	case Fifo, CharacterDevice, BlockDevice:
		if e.Link != "" || len(e.Xattrs) > 0 {
			return member.Refuse("%s %q is not valid", e.Type, e.Name)
		}
	case Directory:
		if e.Link != "" {
			return member.Refuse("directory %q has a link target", e.Name)
		}
	default:
		return member.Refuse("%q is not a directory, file, symlink or hardlink: %s", e.Name, e.Type)
	}
	return nil
}

// content prepares for Take on the content of a regular file, and reads the map of a
// sparse file.
func (p *Parser) content(e *Entry, x *overrides) error {
	if e.Link != "" {
		return member.Refuse("file %q has a link target", e.Name)
	}
	p.left, p.pad = x.size, Padding(x.size)
	e.Size = x.size
	if x.sparse == 0 {
		return nil
	}
	e.Size = x.realSize
	if err := p.sparseMap(e); err != nil {
		return err
	}
	if e.Stored() != p.left {
		return member.Refuse("%q: the map of its data names %d bytes, %d follow", e.Name, e.Stored(), p.left)
	}
	return nil
}

func (p *Parser) sparseMap(e *Entry) error {
	var b [Block]byte
	have := b[:0]
	number := func() (int64, error) {
		var digits []byte
		for {
			if len(have) == 0 {
				if p.left < Block {
					return 0, member.Refuse("%q: the map of its data is truncated", e.Name)
				}
				if err := p.full(b[:]); err != nil {
					return 0, err
				}
				p.left -= Block
				have = b[:]
			}
			c := have[0]
			have = have[1:]
			if c == '\n' {
				return parseDecimal(string(digits), math.MaxInt64)
			}
			if digits = append(digits, c); len(digits) > 19 {
				return 0, member.Refuse("%q: the map of its data is malformed", e.Name)
			}
		}
	}
	n, err := number()
	if err != nil {
		return err
	}
	if n > MaxExtents {
		return member.Refuse("%q has %d extents, at most %d are allowed", e.Name, n, MaxExtents)
	}
	e.Extents = make([]Extent, 0, min(n, 1024))
	var end int64
	for range n {
		var x Extent
		for _, to := range []*int64{&x.Offset, &x.Length} {
			if *to, err = number(); err != nil {
				return err
			}
		}
		if x.Offset < end || x.Length > e.Size-x.Offset {
			return member.Refuse("%q: the map of its data is not in order", e.Name)
		}
		end = x.Offset + x.Length
		e.Extents = append(e.Extents, x)
	}
	if len(bytes.Trim(have, "\x00")) > 0 {
		return member.Refuse("%q: there is data after the map of its data", e.Name)
	}
	return nil
}
