package archive

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/disk"
)

// Lost is one kind of thing that a snapshot does not hold, or that a restore does not
// bring back.
type Lost struct {
	Kind  string   `json:"kind"`
	Count int64    `json:"count"`
	Names []string `json:"names"` // the first few, below the volume
}

// The kinds of Lost.
const (
	LostSocket     = "socket"     // useless without its process
	LostSpecial    = "special"    // a fifo or a device that the config skips
	LostExcluded   = "excluded"   // what the config excludes; a directory counts once
	LostSetuid     = "setuid"     // a setuid or setgid bit of a file, which is in the snapshot
	LostCapability = "capability" // security.capability, which is in the snapshot
	LostTrusted    = "trusted"    // trusted.*, which is in the snapshot
	LostFlags      = "inode_flags"
	LostProject    = "project_id"
	LostLabel      = "label"     // of a security module, where it is not that of the volume's root
	LostAttribute  = "attribute" // any other extended attribute
)

// mostNames is how many names a message or a Lost lists.
const mostNames = 5

// Losses collects what is lost. Several goroutines may add to it.
type Losses struct {
	mu    sync.Mutex
	kinds map[string]*counted
}

type counted struct {
	Lost
	last string
}

// Add counts one name. A name that is added several times in a row counts once.
func (l *Losses) Add(kind, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kinds == nil {
		l.kinds = map[string]*counted{}
	}
	k := l.kinds[kind]
	if k == nil {
		k = &counted{Lost: Lost{Kind: kind, Names: []string{}}}
		l.kinds[kind] = k
	}
	if k.Count > 0 && k.last == name {
		return
	}
	k.last = name
	if k.Count++; len(k.Names) < mostNames {
		k.Names = append(k.Names, name)
	}
}

// List returns what was added, sorted by kind.
func (l *Losses) List() []Lost {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []Lost
	for _, k := range l.kinds {
		list = append(list, k.Lost)
	}
	slices.SortFunc(list, func(a, b Lost) int { return cmp.Compare(a.Kind, b.Kind) })
	return list
}

// lostAttributes are the inode flags that statx(2) shows and no snapshot holds. It does
// not show FS_NOCOW_FL of a file.
const lostAttributes = unix.STATX_ATTR_COMPRESSED | unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND | unix.STATX_ATTR_NODUMP |
	unix.STATX_ATTR_ENCRYPTED | unix.STATX_ATTR_VERITY | unix.STATX_ATTR_DAX

// stat counts what the stat of n shows.
func (c *census) stat(n *node) {
	if n.name == tarstream.Root { // whatever is made in it inherits these
		c.attributes = n.attributes &^ (unix.STATX_ATTR_ENCRYPTED | unix.STATX_ATTR_VERITY)
	}
	if n.attributes&lostAttributes&^c.attributes != 0 {
		n.flagged = true
		c.lost.Add(LostFlags, n.name)
	}
	if !c.keepPrivileges && n.kind() == unix.S_IFREG && n.st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		c.lost.Add(LostSetuid, n.name)
	}
}

// attribute counts an extended attribute of n. get reads its value.
func (c *census) attribute(n *node, attr string, get func() ([]byte, error)) error {
	kind := ""
	switch {
	case attr == capability:
		kind = LostCapability
	case strings.HasPrefix(attr, "trusted."):
		kind = LostTrusted
	case attr == selinuxLabel:
		value, err := get()
		if err != nil || string(value) == c.root.Label {
			return err
		}
		kind = LostLabel
	case strings.HasPrefix(attr, "security."):
		kind = LostLabel
	case !tarstream.KeptXattr(attr) && !strings.HasPrefix(attr, "btrfs."): // those are inode flags
		kind = LostAttribute
	}
	if kind != "" && !(c.keepPrivileges && tarstream.PrivilegedXattr(attr)) {
		c.lost.Add(kind, n.name)
	}
	return nil
}

// listAttributes counts the extended attributes of n, which need not be open.
func (c *census) listAttributes(n *node, buf *[]byte) error {
	if n.listed = true; n.standIn {
		return nil
	}
	path := fmt.Sprintf("/proc/self/fd/%d", n.fd) // flistxattr(2) takes no O_PATH descriptor
	names, err := growing(buf, func(b []byte) (int, error) { return unix.Listxattr(path, b) })
	if errors.Is(err, unix.EOPNOTSUPP) || err == nil && len(names) == 0 {
		return nil
	}
	if err != nil {
		return fail("list the extended attributes of", n.name, err)
	}
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		err := c.attribute(n, attr, func() ([]byte, error) {
			return growing(buf, func(b []byte) (int, error) { return unix.Getxattr(path, attr, b) })
		})
		if err != nil && !errors.Is(err, unix.ENODATA) { // removed since it was listed
			return fail("read the extended attributes of", n.name, err)
		}
	}
	return nil
}

// listing counts what the directory n, open as fd, has and a new one in its place would
// not inherit from the root.
func (c *census) listing(n *node, fd int) error {
	if n.excluded || n.name == tarstream.Root {
		return nil
	}
	p, err := disk.Inherited(fd, n.name)
	if err != nil {
		return err
	}
	flags, project := p.NotHandedDown(c.root)
	if flags && !n.flagged {
		c.lost.Add(LostFlags, n.name)
	}
	if project {
		c.lost.Add(LostProject, n.name)
	}
	return nil
}
