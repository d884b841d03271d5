package archive

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
)

// cursor holds the descriptors of one directory and of those above it, up to
// the root. Names come sorted, so the next directory mostly shares its
// beginning with the last, however deep the tree is.
type cursor struct {
	root  int
	names []string
	fds   []int
}

func newCursor(root *disk.Dir) *cursor { return &cursor{root: root.FD()} }

// open returns an O_PATH descriptor of the directory name, reached from the
// root one component at a time without following a symbolic link or crossing
// into a mount. It is the cursor's: valid until the next call.
func (c *cursor) open(name string) (int, error) {
	var parts []string
	if name != Root {
		parts = strings.Split(name, "/")
	}
	same := 0
	for same < len(parts) && same < len(c.names) && parts[same] == c.names[same] {
		same++
	}
	c.cut(same)
	for _, part := range parts[same:] {
		fd, err := disk.Openat2(c.top(), part, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0, resolve)
		if err != nil {
			return -1, err
		}
		c.names, c.fds = append(c.names, part), append(c.fds, fd)
	}
	return c.top(), nil
}

func (c *cursor) top() int {
	if len(c.fds) == 0 {
		return c.root
	}
	return c.fds[len(c.fds)-1]
}

func (c *cursor) cut(n int) {
	for _, fd := range c.fds[n:] {
		unix.Close(fd)
	}
	c.names, c.fds = c.names[:n], c.fds[:n]
}

func (c *cursor) close() { c.cut(0) }
