package archive

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Type is an entry's type, as the tar header's typeflag.
type Type byte

const (
	Regular   Type = '0'
	Hardlink  Type = '1'
	Symlink   Type = '2'
	Directory Type = '5'
)

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
	}
	return fmt.Sprintf("type %q", rune(t))
}

// Root is the name of the volume's own directory.
const Root = "."

// Entry is one name of a volume.
type Entry struct {
	Name    string // slash-separated and relative; Root for the volume itself
	Type    Type
	Mode    uint32 // permission bits, setuid, setgid and sticky: 07777
	UID     uint32
	GID     uint32
	Mtime   Timespec
	Size    int64    // apparent size of a regular file, in bytes
	Link    string   // target of a symlink, or name of the file a hardlink is to
	Xattrs  []Xattr  // sorted by name
	Extents []Extent // of a sparse file: its data, in order; nil for a dense one

	// zeroHoles asks for holes where a foreign archive's sparse file has zeros.
	zeroHoles bool
}

// Timespec is a time as the kernel keeps it.
type Timespec struct {
	Sec  int64
	Nsec int64 // 0 … 999,999,999, counted forward also before 1970
}

// Xattr is an extended attribute.
type Xattr struct {
	Name  string
	Value []byte
}

// Extent is a stretch of a sparse file that holds data.
type Extent struct{ Offset, Length int64 }

// Limits of what is written and of what is accepted. What restore would refuse
// must never be captured, so both sides use the same.
const (
	MaxMember  = 16 << 20 // bytes of tar in one member
	MaxDepth   = 1000     // components of a name
	maxPax     = 2 << 20  // bytes of one entry's pax records
	maxExtents = 1 << 16  // extents of one sparse file
)

// sparse reports whether the entry's content is a map and the data it names.
func (e *Entry) sparse() bool { return e.Extents != nil }

// stored returns how many bytes of data the entry's content holds, without the
// map of a sparse file.
func (e *Entry) stored() int64 {
	if !e.sparse() {
		return e.Size
	}
	var n int64
	for _, x := range e.Extents {
		n += x.Length
	}
	return n
}

var errName = errors.New("not a name that a volume may hold")

// checkName refuses every name that is not a plain relative path: absolute,
// with "..", with empty or "." components, with NUL, or too deep.
func checkName(name string) error {
	if name == "" || strings.HasPrefix(name, "/") || strings.IndexByte(name, 0) >= 0 {
		return fmt.Errorf("%w: %q", errName, name)
	}
	depth := 0
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." || len(part) > 255 {
			return fmt.Errorf("%w: %q", errName, name)
		}
		depth++
	}
	if depth > MaxDepth {
		return fmt.Errorf("%w: %d components deep, at most %d", errName, depth, MaxDepth)
	}
	return nil
}

func depthOf(name string) int {
	if name == Root {
		return 0
	}
	return strings.Count(name, "/") + 1
}

func sortXattrs(list []Xattr) {
	slices.SortFunc(list, func(a, b Xattr) int { return cmp.Compare(a.Name, b.Name) })
}

// Stats counts what a volume holds.
type Stats struct {
	Files     int64 `json:"files"` // regular files, hardlinks counted once
	Dirs      int64 `json:"dirs"`  // the root included
	Symlinks  int64 `json:"symlinks"`
	Hardlinks int64 `json:"hardlinks"`  // further names of files
	Bytes     int64 `json:"bytes"`      // apparent size of the regular files
	DataBytes int64 `json:"data_bytes"` // the same without holes
	Depth     int   `json:"depth"`      // components of the deepest name
}

// Entries returns the number of names.
func (s Stats) Entries() int64 { return s.Files + s.Dirs + s.Symlinks + s.Hardlinks }

func (s *Stats) add(e *Entry) { s.count(e.Name, e.Type, e.Size, e.stored()) }

// count adds one name, with the size of its content and how much of that is
// data.
func (s *Stats) count(name string, t Type, size, data int64) {
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
	}
	s.Depth = max(s.Depth, depthOf(name))
}
