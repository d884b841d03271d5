package foreign

import (
	"bytes"
	"errors"
	"io"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

const (
	block = tarstream.Block
	// record is how much a tar writes at a time: 20 blocks, unless it is told otherwise.
	record = 20 * block
	// chunk is how much of a large file is in memory as one piece.
	chunk = 256 << 10
	// maxRecords and maxLong limit what the headers of one entry may hold: its pax
	// records, a name. maxGlobal limits the records for all entries, which are looked at
	// again with each.
	maxRecords = 4 << 20
	maxGlobal  = 64 << 10
	maxLong    = 1 << 20
)

// Reader reads the entries of a tar stream, and between two entries the content of the
// first.
type Reader struct {
	in      io.Reader
	at      int64 // bytes read
	began   int64 // where the headers of the current entry begin
	left    int64 // bytes of its content that were not read
	pad     int64 // bytes of padding after the content
	entries int64
	name    string // of the entry
	global  []pair // the records of the last header for all entries
	last    [record]byte
	free    []byte // memory for what Take returns
	dropped map[string]int64
	names   names
}

// NewReader returns a reader of the stream in.
func NewReader(in io.Reader) *Reader { return &Reader{in: in, dropped: map[string]int64{}} }

// Dropped counts by kind what entries have and a volume does not keep.
func (r *Reader) Dropped() map[string]int64 { return r.dropped }

// At is where in the stream the headers of the current entry begin, or of what was to be
// the next.
func (r *Reader) At() int64 { return r.began }

// drop counts something that an entry has. The archive may call it as it likes.
func (r *Reader) drop(kind string) {
	const most, longest = 100, 300
	if r.dropped[kind] == 0 && len(r.dropped) >= most || len(kind) > longest {
		kind = "other records"
	}
	r.dropped[kind]++
}

// full fills b with what comes next.
func (r *Reader) full(b []byte) error {
	n, err := io.ReadFull(r.in, b)
	r.remember(b[:n])
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return damaged("it is truncated: it ends at byte %d, without the two blocks that end an archive", r.at)
	}
	return err
}

// remember notes what the stream had in the last record.
func (r *Reader) remember(b []byte) {
	r.at += int64(len(b))
	if len(b) > record {
		b = b[len(b)-record:]
	}
	for start := (r.at - int64(len(b))) % record; len(b) > 0; start = 0 {
		b = b[copy(r.last[start:], b):]
	}
}

// Take returns the next bytes of the content: at least one and at most n, which must not
// be more than is left. The memory is not used again.
func (r *Reader) Take(n int64) ([]byte, *member.Buffer, error) {
	if n = min(n, r.left, chunk); n > int64(len(r.free)) {
		r.free = make([]byte, chunk)
	}
	part := r.free[:n]
	if err := r.full(part); err != nil {
		return nil, nil, r.inside(err)
	}
	r.free, r.left = r.free[n:], r.left-n
	return part, nil, nil
}

// inside names the entry in whose content something went wrong.
func (r *Reader) inside(err error) error {
	if errors.Is(err, member.ErrRefused) {
		return member.Refuse("%q: %w", r.name, err)
	}
	return err
}

// skip passes over the content that was not taken, and its padding.
func (r *Reader) skip() error {
	var b [16 << 10]byte
	for left := r.left + r.pad; left > 0; {
		n := min(left, int64(len(b)))
		if err := r.full(b[:n]); err != nil {
			return r.inside(err)
		}
		left -= n
	}
	r.left, r.pad = 0, 0
	return nil
}

// contains says that n bytes of content come next.
func (r *Reader) contains(n int64) { r.left, r.pad = n, tarstream.Padding(n) }

// Next returns the next entry, and io.EOF after a whole archive.
func (r *Reader) Next() (*tarstream.Entry, error) {
	if err := r.skip(); err != nil {
		return nil, err
	}
	r.began = r.at
	var local []pair
	var long longNames
	for {
		var b [block]byte
		if err := r.full(b[:]); err != nil {
			return nil, err
		}
		if isEnd(b[:]) {
			return nil, r.end()
		}
		h := header(b[:])
		if !summed(h) {
			return nil, damaged("there is no header at byte %d, after %q: its checksum is wrong", r.at-block, r.name)
		}
		size, err := length(h.size())
		if err != nil {
			return nil, err
		}
		began := r.began
		switch h.typ() {
		case 'x', 'X': // X is Solaris's
			local, err = r.records(size, maxRecords)
		case 'g':
			if r.global, err = r.records(size, maxGlobal); err == nil {
				err = globally(r.global)
			}
			began = r.at
		case 'L':
			long.name, err = r.long(size)
		case 'K':
			long.link, err = r.long(size)
		case 'V': // the label of a tape
			r.contains(size)
			err = r.skip()
			began, local, long = r.at, nil, longNames{} // what came before it is its own
		default:
			r.entries++
			e, err := r.entry(h, size, long, local)
			if err == nil {
				r.name = e.Name
			}
			return e, err
		}
		if err != nil {
			return nil, err
		}
		r.began = began
	}
}

// longNames are what GNU tar writes before a header that has no room for them.
type longNames struct{ name, link string }

func (r *Reader) long(size int64) (string, error) {
	b, err := r.whole(size, maxLong)
	return text(b), err
}

// whole reads content that belongs to headers.
func (r *Reader) whole(size, most int64) ([]byte, error) {
	if size > most {
		return nil, member.Refuse("a header of %d bytes, at most %d are allowed", size, most)
	}
	b := make([]byte, size)
	if err := r.full(b); err != nil {
		return nil, err
	}
	r.pad = tarstream.Padding(size)
	return b, r.skip()
}

// end reads what follows the first zero block. The second follows it. The rest of that
// record may be anything: old tars do not clear what they have not filled. After that
// there are only zeros.
func (r *Reader) end() error {
	var b [block]byte
	if err := r.full(b[:]); err != nil {
		return err
	}
	if !isEnd(b[:]) {
		return damaged("there is a lone zero block at byte %d, after %q, and more after it", r.at-2*block, r.name)
	}
	if r.entries == 0 {
		return member.Refuse("it has no entries: there is nothing in it but the end of an archive")
	}
	clean := true
	for r.at%record != 0 {
		was := bytes.Clone(r.last[r.at%record : r.at%record+block])
		n, err := io.ReadFull(r.in, b[:])
		clean = clean && tarstream.IsZero(b[:n])
		if eof := err == io.EOF || err == io.ErrUnexpectedEOF; eof && clean {
			return io.EOF
		} else if eof {
			return member.Refuse("there is data after the end, at byte %d", r.at)
		} else if err != nil {
			return err
		}
		// What the record before had in this place was not cleared. Any other header is
		// that of a second archive.
		if !tarstream.IsZero(b[:]) && summed(b[:]) && !bytes.Equal(b[:], was) {
			return member.Refuse("another archive follows the end, at byte %d", r.at)
		}
		r.remember(b[:])
	}
	if err := onlyZeros(r.in); err != nil {
		return err
	}
	return io.EOF
}
