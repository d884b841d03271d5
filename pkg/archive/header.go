package archive

import (
	"fmt"
	"strconv"
	"strings"
)

const block = 512

// Offsets of the fields in a ustar header block (pax(1)).
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
	paxXattr    = "SCHILY.xattr."
	// GNU tar's sparse format 1.0 (its manual, "Storing Sparse Files").
	paxSparseMajor = "GNU.sparse.major"
	paxSparseMinor = "GNU.sparse.minor"
	paxSparseName  = "GNU.sparse.name"
	paxSparseSize  = "GNU.sparse.realsize"
)

// appendHeader appends the header blocks of e to buf: the pax records that it
// needs, the ustar header, and the map of a sparse file. The same entry always
// gives the same bytes, on which the sharing of members rests.
func appendHeader(buf []byte, e *Entry) ([]byte, error) {
	name := e.Name
	if e.Type == Directory {
		name += "/"
	}
	sparseMap := encodeMap(e)
	size := int64(0)
	if e.Type == Regular {
		size = int64(len(sparseMap)) + e.stored()
	}
	records := paxRecords(e, name, size)
	if len(records) > maxPax {
		return nil, fmt.Errorf("the metadata of %q take %d bytes, at most %d can be kept", e.Name, len(records), maxPax)
	}
	if len(records) > 0 {
		buf = appendBlock(buf, ustar{name: "pax_header", typ: 'x', mode: 0o644, size: int64(len(records))})
		buf = append(buf, records...)
		buf = appendPadding(buf, int64(len(records)))
	}
	buf = appendBlock(buf, ustar{
		name: name, typ: byte(e.Type), mode: e.Mode, uid: int64(e.UID), gid: int64(e.GID),
		size: size, mtime: e.Mtime.Sec, link: e.Link,
	})
	return append(buf, sparseMap...), nil
}

// paxRecords returns what the ustar header cannot hold.
func paxRecords(e *Entry, name string, size int64) []byte {
	var out []byte
	add := func(key, value string) { out = appendRecord(out, key, value) }
	if len(name) > lenName && !e.sparse() {
		add(paxPath, name)
	}
	if len(e.Link) > lenLink {
		add(paxLinkpath, e.Link)
	}
	if size > maxOctal11 {
		add(paxSize, strconv.FormatInt(size, 10))
	}
	if e.UID > maxOctal7 {
		add(paxUID, strconv.FormatUint(uint64(e.UID), 10))
	}
	if e.GID > maxOctal7 {
		add(paxGID, strconv.FormatUint(uint64(e.GID), 10))
	}
	if e.Mtime.Nsec != 0 || e.Mtime.Sec < 0 || e.Mtime.Sec > maxOctal11 {
		add(paxMtime, e.Mtime.decimal())
	}
	if e.sparse() {
		add(paxSparseMajor, "1")
		add(paxSparseMinor, "0")
		add(paxSparseName, name)
		add(paxSparseSize, strconv.FormatInt(e.Size, 10))
	}
	for _, x := range e.Xattrs {
		add(paxXattr+xattrKey.Replace(x.Name), string(x.Value))
	}
	return out
}

// appendRecord appends "<length> <key>=<value>\n", where the length counts
// itself.
func appendRecord(out []byte, key, value string) []byte {
	rest := len(" =\n") + len(key) + len(value)
	n := rest + len(strconv.Itoa(rest))
	if len(strconv.Itoa(n)) > len(strconv.Itoa(rest)) {
		n++
	}
	return fmt.Appendf(out, "%d %s=%s\n", n, key, value)
}

// decimal gives the time as pax writes it: "-1.5" is half a second before one
// second before 1970, while the kernel counts nanoseconds forward.
func (t Timespec) decimal() string {
	// Unsigned, since the earliest second has no positive counterpart.
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

// encodeMap returns the map that precedes the data of a sparse file: the number
// of extents, then offset and length of each, a line each, padded to a block.
func encodeMap(e *Entry) []byte {
	if !e.sparse() {
		return nil
	}
	out := fmt.Appendf(nil, "%d\n", len(e.Extents))
	for _, x := range e.Extents {
		out = fmt.Appendf(out, "%d\n%d\n", x.Offset, x.Length)
	}
	return appendPadding(out, int64(len(out)))
}

func padding(n int64) int64 { return -n & (block - 1) }

var zeros [2 * block]byte

func appendPadding(buf []byte, n int64) []byte { return append(buf, zeros[:padding(n)]...) }

type ustar struct {
	name, link            string
	typ                   byte
	mode                  uint32
	uid, gid, size, mtime int64
}

func appendBlock(buf []byte, u ustar) []byte {
	start := len(buf)
	buf = append(buf, zeros[:block]...)
	b := buf[start:]
	copy(b[offName:offName+lenName], u.name) // cut where a pax record has the whole
	octal(b[offMode:offMode+lenMode], int64(u.mode))
	octal(b[offUID:offUID+lenUID], fit(u.uid, maxOctal7))
	octal(b[offGID:offGID+lenGID], fit(u.gid, maxOctal7))
	octal(b[offSize:offSize+lenSize], fit(u.size, maxOctal11))
	octal(b[offMtime:offMtime+lenMtime], fit(u.mtime, maxOctal11))
	b[offType] = u.typ
	copy(b[offLink:offLink+lenLink], u.link)
	copy(b[offMagic:], magic)
	octal(b[offChecksum:offChecksum+lenChecksum-1], checksum(b))
	b[offChecksum+lenChecksum-1] = ' '
	return buf
}

// fit returns n, or 0 where a pax record must hold it.
func fit(n, limit int64) int64 {
	if n < 0 || n > limit {
		return 0
	}
	return n
}

// octal writes n with leading zeros, and a NUL behind it.
func octal(field []byte, n int64) {
	for i := len(field) - 2; i >= 0; i-- {
		field[i] = '0' + byte(n&7)
		n >>= 3
	}
}

// checksum is the sum of the header's bytes with its own field as blanks.
func checksum(b []byte) int64 {
	sum := int64(lenChecksum * ' ')
	for _, c := range b[:offChecksum] {
		sum += int64(c)
	}
	for _, c := range b[offChecksum+lenChecksum : block] {
		sum += int64(c)
	}
	return sum
}
