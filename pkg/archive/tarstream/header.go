package tarstream

import (
	"fmt"
	"strconv"
	"strings"
)

const Block = 512

// Offsets and lengths of the fields in a ustar header block (pax(1)).
const (
	offName, lenName         = 0, 100
	offMode, lenMode         = 100, 8
	offUID, lenUID           = 108, 8
	offGID, lenGID           = 116, 8
	offSize, lenSize         = 124, 12
	offMtime, lenMtime       = 136, 12
	offChecksum, lenChecksum = 148, 8
	offType                  = 156
	offLink, lenLink         = 157, 100
	offMagic                 = 257
	offMajor, lenMajor       = 329, 8
	offMinor, lenMinor       = 337, 8
	offPrefix, lenPrefix     = 345, 155
)

const magic = "ustar\x0000"

// maxOctal7 and maxOctal11 are the largest numbers of an 8- and a 12-byte field.
const (
	maxOctal7  = 1<<21 - 1
	maxOctal11 = 1<<33 - 1
)

// Keys of pax records.
const (
	paxPath     = "path"
	paxLinkpath = "linkpath"
	paxSize     = "size"
	paxUID      = "uid"
	paxGID      = "gid"
	paxMtime    = "mtime"
	PaxXattr    = "SCHILY.xattr."
	// GNU tar's sparse format 1.0 (its manual, "Storing Sparse Files").
	paxSparseMajor = "GNU.sparse.major"
	paxSparseMinor = "GNU.sparse.minor"
	paxSparseName  = "GNU.sparse.name"
	paxSparseSize  = "GNU.sparse.realsize"
)

// AppendHeader appends the header blocks of e to buf: the pax records that e needs,
// the ustar header, and the map of a sparse file. The same entry always gives the
// same bytes. The sharing of members relies on that. After an error buf is unchanged.
func AppendHeader(buf []byte, e *Entry) ([]byte, error) {
	name := e.Name
	if e.Type == Directory {
		name += "/"
	}
	sparseMap := encodeMap(e)
	size := int64(0)
	if e.Type == Regular {
		size = int64(len(sparseMap)) + e.Stored()
	}
	records := paxRecords(e, name, size)
	if len(records) > maxPax {
		return nil, fmt.Errorf("the metadata of %q takes %d bytes, and at most %d can be kept", e.Name, len(records), maxPax)
	}
	if len(records) > 0 {
		buf = appendBlock(buf, "pax_header", int64(len(records)), &Entry{Type: 'x', Mode: 0o644})
		buf = append(buf, records...)
		buf = AppendPadding(buf, int64(len(records)))
	}
	return append(appendBlock(buf, name, size, e), sparseMap...), nil
}

// paxRecords returns records for what does not fit into the ustar header.
func paxRecords(e *Entry, name string, size int64) []byte {
	var out []byte
	add := func(key, value string) { out = appendRecord(out, key, value) }
	if len(name) > lenName && !e.Sparse() {
		add(paxPath, name)
	}
	if len(e.Link) > lenLink {
		add(paxLinkpath, e.Link)
	}
	addAbove := func(limit int64, key string, n int64) {
		if n > limit {
			add(key, strconv.FormatInt(n, 10))
		}
	}
	addAbove(maxOctal11, paxSize, size)
	addAbove(maxOctal7, paxUID, int64(e.UID))
	addAbove(maxOctal7, paxGID, int64(e.GID))
	if e.Mtime.Nsec != 0 || e.Mtime.Sec < 0 || e.Mtime.Sec > maxOctal11 {
		add(paxMtime, e.Mtime.decimal())
	}
	if e.Sparse() {
		add(paxSparseMajor, "1")
		add(paxSparseMinor, "0")
		add(paxSparseName, name)
		add(paxSparseSize, strconv.FormatInt(e.Size, 10))
	}
	for _, x := range e.Xattrs {
		add(PaxXattr+xattrKey.Replace(x.Name), string(x.Value))
	}
	return out
}

// appendRecord appends "<length> <key>=<value>\n". The length includes its own
// digits.
func appendRecord(out []byte, key, value string) []byte {
	rest := len(" =\n") + len(key) + len(value)
	n := rest + len(strconv.Itoa(rest))
	if len(strconv.Itoa(n)) > len(strconv.Itoa(rest)) {
		n++
	}
	return fmt.Appendf(out, "%d %s=%s\n", n, key, value)
}

// decimal returns the time as pax writes it. In pax, "-1.5" is 1.5 seconds before
// 1970; the kernel says second -2 and half a second forward.
func (t Timespec) decimal() string {
	// Unsigned, because the earliest second has no positive counterpart.
	sec, nsec, sign := uint64(t.Sec), t.Nsec, ""
	if t.Sec < 0 {
		sign = "-"
		sec = -sec
		if nsec != 0 {
			sec, nsec = sec-1, 1e9-nsec
		}
	}
	s := sign + strconv.FormatUint(sec, 10)
	if nsec != 0 {
		s += "." + strings.TrimRight(fmt.Sprintf("%09d", nsec), "0")
	}
	return s
}

// encodeMap returns the map that precedes the data of a sparse file: the number of
// extents, then the offset and the length of each, one number a line, padded to a
// block.
func encodeMap(e *Entry) []byte {
	if !e.Sparse() {
		return nil
	}
	out := fmt.Appendf(nil, "%d\n", len(e.Extents))
	for _, x := range e.Extents {
		out = fmt.Appendf(out, "%d\n%d\n", x.Offset, x.Length)
	}
	return AppendPadding(out, int64(len(out)))
}

func Padding(n int64) int64 { return -n & (Block - 1) }

var zeros [2 * Block]byte

func AppendPadding(buf []byte, n int64) []byte { return append(buf, zeros[:Padding(n)]...) }

// AppendEnd appends the two zero blocks that end an archive.
func AppendEnd(buf []byte) []byte { return append(buf, zeros[:2*Block]...) }

// appendBlock appends a ustar header. A pax record has what does not fit into it.
func appendBlock(buf []byte, name string, size int64, e *Entry) []byte {
	start := len(buf)
	buf = append(buf, zeros[:Block]...)
	b := buf[start:]
	copy(b[offName:offName+lenName], name)
	octal(b[offMode:offMode+lenMode], int64(e.Mode))
	octal(b[offUID:offUID+lenUID], fit(int64(e.UID), maxOctal7))
	octal(b[offGID:offGID+lenGID], fit(int64(e.GID), maxOctal7))
	octal(b[offSize:offSize+lenSize], fit(size, maxOctal11))
	octal(b[offMtime:offMtime+lenMtime], fit(e.Mtime.Sec, maxOctal11))
	b[offType] = byte(e.Type)
	copy(b[offLink:offLink+lenLink], e.Link)
	copy(b[offMagic:], magic)
	if e.Type.device() {
		octal(b[offMajor:offMajor+lenMajor], int64(e.Major))
		octal(b[offMinor:offMinor+lenMinor], int64(e.Minor))
	}
	octal(b[offChecksum:offChecksum+lenChecksum-1], checksum(b))
	b[offChecksum+lenChecksum-1] = ' '
	return buf
}

// fit returns n, or 0 if the field cannot hold it.
func fit(n, limit int64) int64 {
	if n < 0 || n > limit {
		return 0
	}
	return n
}

// octal writes n with leading zeros and a NUL after it.
func octal(field []byte, n int64) {
	for i := len(field) - 2; i >= 0; i-- {
		field[i] = '0' + byte(n&7)
		n >>= 3
	}
}

// checksum returns the sum of the header's bytes, with its own field read as blanks.
func checksum(b []byte) int64 {
	sum := int64(lenChecksum * ' ')
	for _, c := range b[:offChecksum] {
		sum += int64(c)
	}
	for _, c := range b[offChecksum+lenChecksum : Block] {
		sum += int64(c)
	}
	return sum
}
