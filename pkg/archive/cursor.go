package archive

import (
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/disk"
)

// openDir is an O_PATH descriptor of a directory. The cursor shares it with the
// files that are to be created in the directory.
type openDir struct {
	fd   int
	refs atomic.Int32
	open *atomic.Int64 // counts open directories; nil for the root, which belongs to the caller
}

func (d *openDir) hold() *openDir {
	d.refs.Add(1)
	return d
}

func (d *openDir) release() {
	if d.refs.Add(-1) == 0 && d.open != nil {
		unix.Close(d.fd)
		d.open.Add(-1)
	}
}

// cursor holds the descriptors of one directory and of all directories above it, up
// to the root. Names come sorted, so the next directory usually has most of its
// parents in common with the last one, however deep the tree is.
type cursor struct {
	name   string       // the name of the directory; "" for the root
	levels []level      // the root is the first
	open   atomic.Int64 // how many directories are open, even if only a file holds them
}

// level is one component of the cursor's name.
type level struct {
	dir *openDir
	end int // the component ends before name[end]
}

func newCursor(root *disk.Dir) *cursor {
	dir := &openDir{fd: root.FD()}
	dir.refs.Store(1)
	return &cursor{levels: []level{{dir, 0}}}
}

// to returns the directory name. It goes there from the root, one component at a
// time, and neither follows a symbolic link nor crosses into a mount. The result is
// valid until the next call; a caller that needs it longer holds it.
func (c *cursor) to(name string) (*openDir, error) {
	if name == tarstream.Root {
		name = ""
	}
	if name == c.name {
		return c.top(), nil
	}
	c.cut(c.shared(name))
	for at := len(c.name); at < len(name); at = len(c.name) {
		if at > 0 {
			at++ // the slash
		}
		part := name[at:]
		if i := strings.IndexByte(part, '/'); i >= 0 {
			part = part[:i]
		}
		fd, err := disk.Openat2(c.top().fd, part, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0, resolve)
		if err != nil {
			return nil, err
		}
		dir := &openDir{fd: fd, open: &c.open}
		dir.refs.Store(1)
		c.open.Add(1)
		c.name = name[:at+len(part)]
		c.levels = append(c.levels, level{dir, len(c.name)})
	}
	return c.top(), nil
}

// shared returns how many leading levels name has in common with the cursor's name.
func (c *cursor) shared(name string) int {
	same := 0
	for same < len(name) && same < len(c.name) && name[same] == c.name[same] {
		same++
	}
	n := len(c.levels)
	for n > 1 && (c.levels[n-1].end > same || c.levels[n-1].end < len(name) && name[c.levels[n-1].end] != '/') {
		n--
	}
	return n
}

func (c *cursor) top() *openDir { return c.levels[len(c.levels)-1].dir }

func (c *cursor) cut(n int) {
	for _, l := range c.levels[n:] {
		l.dir.release()
	}
	c.levels = c.levels[:n]
	c.name = c.name[:c.levels[n-1].end]
}

func (c *cursor) close() { c.cut(1) }
