package tarstream

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Type is the type of an entry. Its value is the typeflag of the tar header.
type Type byte

const (
	Regular         Type = '0'
	Hardlink        Type = '1'
	Symlink         Type = '2'
	CharacterDevice Type = '3'
	BlockDevice     Type = '4'
	Directory       Type = '5'
	Fifo            Type = '6'
)

// Special reports whether t is a fifo or a device.
func (t Type) Special() bool { return t == Fifo || t.device() }

func (t Type) device() bool { return t == CharacterDevice || t == BlockDevice }

func (t Type) String() string {
	switch t {
	case Regular:
		return "file"
	case Hardlink:
		return "hardlink"
	case Symlink:
		return "symlink"
	case Directory:
		return "directory"
	case Fifo:
		return "fifo"
	case CharacterDevice:
		return "character device"
	case BlockDevice:
		return "block device"
	}
	return fmt.Sprintf("type %q", rune(t))
}

// Root is the name of the volume's own directory.
const Root = "."

// Entry is one name of a volume, with its metadata.
type Entry struct {
	Name    string // slash-separated and relative; Root for the volume itself
	Type    Type
	Mode    uint32 // permission bits, setuid, setgid and sticky: 07777
	UID     uint32
	GID     uint32
	Mtime   Timespec
	Size    int64    // apparent size of a regular file, in bytes
	Link    string   // the target of a symlink, or the name that a hardlink links to
	Xattrs  []Xattr  // sorted by name
	Extents []Extent // where a sparse file has data, in order; nil for a dense file
	Major   uint32   // of a device
	Minor   uint32
}

// Timespec is a time as the kernel stores it.
type Timespec struct {
	Sec  int64
	Nsec int64 // 0 … 999,999,999, counted forward even before 1970
}

// Before reports whether t is earlier than u.
func (t Timespec) Before(u Timespec) bool {
	return t.Sec < u.Sec || t.Sec == u.Sec && t.Nsec < u.Nsec
}

// Xattr is an extended attribute.
type Xattr struct {
	Name  string
	Value []byte
}

// Extent is a part of a sparse file that holds data.
type Extent struct{ Offset, Length int64 }

// Limits for the writer and the parser. What a restore would refuse must never be
// captured, so both sides use the same limits.
const (
	MaxDepth   = 1000    // components of a name
	maxPax     = 2 << 20 // bytes of one entry's pax records
	maxMajor   = 1 << 12 // the numbers of devices are below these (include/linux/kdev_t.h)
	maxMinor   = 1 << 20
	MaxExtents = 1 << 16 // extents of one sparse file
)

// Sparse reports whether the content of the entry is a map of its data and the data.
func (e *Entry) Sparse() bool { return e.Extents != nil }

// Stored returns how many bytes of data the entry has in the stream. The map of a
// sparse file does not count.
func (e *Entry) Stored() int64 {
	if !e.Sparse() {
		return e.Size
	}
	var n int64
	for _, x := range e.Extents {
		n += x.Length
	}
	return n
}

var errName = errors.New("not a name that a volume may hold")

// CheckName refuses every name that is not a plain relative path: an absolute name, a
// name with an empty, "." or ".." component, a name with NUL, a name that is too
// deep.
func CheckName(name string) error {
	if name == "" || strings.HasPrefix(name, "/") || strings.IndexByte(name, 0) >= 0 {
		return fmt.Errorf("%w: %q", errName, name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." || len(part) > 255 {
			return fmt.Errorf("%w: %q", errName, name)
		}
	}
	if depth := depthOf(name); depth > MaxDepth {
		return fmt.Errorf("%w: %d components deep, at most %d", errName, depth, MaxDepth)
	}
	return nil
}

// Order compares two names in the order of the walk: by components, and a directory
// before its content.
func Order(a, b string) int {
	if a == Root {
		a = ""
	}
	if b == Root {
		b = ""
	}
	for i := range min(len(a), len(b)) {
		if x, y := a[i], b[i]; x != y {
			if x == '/' || y != '/' && x < y {
				return -1
			}
			return 1
		}
	}
	return len(a) - len(b)
}

func depthOf(name string) int {
	if name == Root {
		return 0
	}
	return strings.Count(name, "/") + 1
}

// MergeXattrs returns the attributes of both lists, in order. Of one that is in both, the
// later counts. An earlier ACL does not stay: it would change the later mode.
func MergeXattrs(earlier, later []Xattr) []Xattr {
	all := slices.Clone(later)
	for _, x := range earlier {
		isACL := x.Name == ACLAccess || x.Name == ACLDefault
		if !isACL && !slices.ContainsFunc(later, func(y Xattr) bool { return x.Name == y.Name }) {
			all = append(all, x)
		}
	}
	SortXattrs(all)
	return all
}

func SortXattrs(list []Xattr) {
	slices.SortFunc(list, func(a, b Xattr) int { return cmp.Compare(a.Name, b.Name) })
}

// Stats counts what a volume holds.
type Stats struct {
	Files     int64 `json:"files"` // regular files; a file with several names counts once
	Dirs      int64 `json:"dirs"`  // the root included
	Symlinks  int64 `json:"symlinks"`
	Hardlinks int64 `json:"hardlinks"`          // additional names of files
	Specials  int64 `json:"specials,omitempty"` // fifos and devices
	Bytes     int64 `json:"bytes"`              // apparent size of the regular files
	DataBytes int64 `json:"data_bytes"`         // the same without holes
	Depth     int   `json:"depth"`              // components of the deepest name
}

// Entries returns the number of names.
func (s Stats) Entries() int64 { return s.Files + s.Dirs + s.Symlinks + s.Hardlinks + s.Specials }

func (s *Stats) Add(e *Entry) { s.Count(e.Name, e.Type, e.Size, e.Stored()) }

// Count adds one name, with the size of its content and how much of that is
// data.
func (s *Stats) Count(name string, t Type, size, data int64) {
	switch t {
	case Regular:
		s.Files++
		s.Bytes += size
		s.DataBytes += data
	case Hardlink:
		s.Hardlinks++
	case Symlink:
		s.Symlinks++
	case Directory:
		s.Dirs++
	case Fifo, CharacterDevice, BlockDevice:
		s.Specials++
	}
	s.Depth = max(s.Depth, depthOf(name))
}
