package foreign

import (
	"strconv"
	"strings"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// maxExtents limits the map of a sparse file, which is in memory as a whole.
const maxExtents = 1 << 20

// sparse are the records of a sparse file in GNU's formats 0.0, 0.1 and 1.0 (its manual,
// "Storing Sparse Files").
type sparse struct {
	said         bool
	major, minor string
	name         string
	size         int64
	sized        bool
	blocks       string // the number of extents, of 0.0 and 0.1
	numbers      []int64
}

func (s *sparse) set(p pair) (err error) {
	s.said = true
	number := func() int64 {
		var n int64
		if err == nil {
			n, err = decimal(p.value, 1<<63-1)
		}
		return n
	}
	switch strings.TrimPrefix(p.key, sparsePrefix) {
	case "major":
		s.major = p.value
	case "minor":
		s.minor = p.value
	case "name":
		s.name = p.value
	case "size", "realsize":
		s.size, s.sized = number(), true
	case "numblocks":
		s.blocks = p.value
	case "offset", "numbytes":
		if odd := len(s.numbers)%2 == 1; odd != strings.HasSuffix(p.key, "numbytes") {
			return member.Refuse("the map of its data is malformed")
		}
		s.numbers = append(s.numbers, number())
	case "map":
		s.numbers = nil
		for text := range strings.SplitSeq(p.value, ",") {
			p.value = text
			if s.numbers = append(s.numbers, number()); len(s.numbers) > 2*maxExtents {
				break
			}
		}
	default:
		return member.Refuse("unknown pax record %q", p.key)
	}
	if len(s.numbers) > 2*maxExtents {
		return tooMany()
	}
	return err
}

func tooMany() error { return member.Refuse("more than %d extents", maxExtents) }

// holes gives a sparse file the map of its data, and reads it where it is not in the
// records. What is left of the content is then the data alone.
func (r *Reader) holes(e *tarstream.Entry, h header, s *sparse) (err error) {
	var numbers []int64
	switch version := s.major + "." + s.minor; {
	case h.typ() == 'S' && s.said:
		return member.Refuse("%q has two maps of its data", e.Name)
	case h.typ() == 'S':
		if !h.oldGNU() {
			return member.Refuse("%q: the map of its data is not GNU tar's", e.Name)
		}
		if s.size, err = length(h[483:495]); err == nil {
			numbers, err = r.oldMap(h)
		}
	case !s.said:
		return nil
	case !s.sized:
		return member.Refuse("%q: the sparse records are incomplete", e.Name)
	case version == "1.0":
		numbers, err = r.textMap()
	case version == "." || version == "0.0" || version == "0.1":
		if numbers = s.numbers; s.blocks != strconv.Itoa(len(numbers)/2) {
			return member.Refuse("%q: the map of its data has %d extents, and should have %q", e.Name, len(numbers)/2, s.blocks)
		}
	default:
		return member.Refuse("%q: unknown sparse format %s", e.Name, version)
	}
	if err != nil {
		return member.Refuse("%q: the map of its data: %w", e.Name, err)
	}
	e.Size = s.size
	return r.mapped(e, numbers)
}

// mapped gives e the extents, which must be in order and be the content.
func (r *Reader) mapped(e *tarstream.Entry, numbers []int64) error {
	if len(numbers)%2 != 0 {
		return member.Refuse("%q: the map of its data is malformed", e.Name)
	}
	e.Extents = make([]tarstream.Extent, 0, len(numbers)/2)
	var end int64
	for i := 0; i < len(numbers); i += 2 {
		x := tarstream.Extent{Offset: numbers[i], Length: numbers[i+1]}
		if x.Offset < end || x.Length < 0 || x.Length > e.Size-x.Offset {
			return member.Refuse("%q: the map of its data is not in order", e.Name)
		}
		end = x.Offset + x.Length
		e.Extents = append(e.Extents, x)
	}
	if e.Stored() != r.left {
		return member.Refuse("%q: the map of its data names %d bytes, %d follow", e.Name, e.Stored(), r.left)
	}
	return nil
}

// oldMap reads the map of GNU tar's own format: four extents in the header, more in
// blocks after it.
func (r *Reader) oldMap(h header) (numbers []int64, err error) {
	at, count, more := h[386:], 4, h[482] != 0
	var b [block]byte
	for {
		for range count {
			if at[0] == 0 && at[12] != 0 { // a tar ends the map at the first field, or at the second
				return nil, member.Refuse("it is malformed")
			}
			if at[0] == 0 { // the last one was before it
				return numbers, nil
			}
			for _, field := range [][]byte{at[:12], at[12:24]} {
				n, err := length(field)
				if err != nil {
					return nil, err
				}
				numbers = append(numbers, n)
			}
			at = at[24:]
		}
		if !more {
			return numbers, nil
		}
		if len(numbers) > 2*maxExtents {
			return nil, tooMany()
		}
		if err := r.full(b[:]); err != nil {
			return nil, err
		}
		at, count, more = b[:], 21, b[504] != 0
	}
}

// textMap reads the map of format 1.0, with which the content begins: numbers in lines,
// filled up to a block.
func (r *Reader) textMap() (numbers []int64, err error) {
	var b [block]byte
	have := b[:0]
	number := func() (int64, error) {
		var digits []byte
		for {
			if len(have) == 0 {
				if r.left < block {
					return 0, member.Refuse("it is truncated")
				}
				if err := r.full(b[:]); err != nil {
					return 0, err
				}
				r.left -= block
				have = b[:]
			}
			c := have[0]
			if have = have[1:]; c == '\n' {
				return decimal(string(digits), 1<<63-1)
			}
			if digits = append(digits, c); len(digits) > 20 {
				return 0, member.Refuse("it is malformed")
			}
		}
	}
	n, err := number()
	if err != nil {
		return nil, err
	}
	if n > maxExtents {
		return nil, tooMany()
	}
	for range 2 * n {
		x, err := number()
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, x)
	}
	return numbers, nil
}
