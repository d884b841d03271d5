package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/disk"
)

// resolve is how every name is looked up.
const resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// node is a name of the live tree. Its O_PATH descriptor pins the inode that is
// examined, without the effects that opening a device or a fifo has.
type node struct {
	fd    int
	name  string // the path below the volume
	st    unix.Stat_t
	holds int    // how many still need fd, besides the one that opened it
	known string // the result of handle

	attributes uint64 // of statx(2)
	excluded   bool   // by the config, or below what is
	cache      bool   // a cache directory
	flagged    bool   // its inode flags are counted as lost
	listed     bool   // its extended attributes are counted
	standIn    bool   // for the root that a volume of one file does not have
}

// look fills in the stat of n.
func (n *node) look() (err error) {
	if n.attributes, err = disk.Stat(n.fd, &n.st); err != nil {
		return fail("stat", n.name, err)
	}
	return nil
}

// hold keeps the inode open until one more call of release.
func (n *node) hold() *node {
	n.holds++
	return n
}

func (n *node) release() {
	if n.holds--; n.holds < 0 {
		unix.Close(n.fd)
	}
}

// handle returns the kernel's handle of the inode. No other inode has had it or will
// have it ([disk.FileHandle]). It is "" if the filesystem has no handles.
func (n *node) handle() (string, error) {
	if n.known != "" {
		return n.known, nil
	}
	var err error
	if n.known, err = disk.FileHandle(n.fd); err != nil {
		return "", fail("get the handle of", n.name, err)
	}
	return n.known, nil
}

func (n *node) kind() uint32 { return n.st.Mode & unix.S_IFMT }

// walker visits the names of a live directory in sorted order, each directory before
// its content.
type walker struct {
	ctx     context.Context
	procFDs int // /proc/self/fd
	visit   func(*node) error
	// vanished is called with each name that was listed, and was gone when it was to
	// be opened.
	vanished func(name string)
	// listing, if set, is called with each directory that is listed, open for reading.
	listing func(dir *node, fd int) error
	leases  time.Duration // how much longer the walk may wait for leases

	exclude func(name string) bool // see WriteOptions
	caches  bool
	// inCache, if set, is called with each cache directory before its content.
	inCache func(name string)
	// left is called with each excluded name. Nothing below it is visited, unless left
	// is nil: then visit gets the name, and what is below it.
	left func(name string)
}

func newWalker(ctx context.Context, visit func(*node) error, vanished func(name string)) (*walker, error) {
	fd, err := disk.RetryValue(func() (int, error) {
		return unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/proc/self/fd", Err: err}
	}
	return &walker{ctx: ctx, procFDs: fd, visit: visit, vanished: vanished}, nil
}

func (w *walker) close() { unix.Close(w.procFDs) }

// walk visits root and everything below it.
func (w *walker) walk(root *disk.Dir) error {
	n := &node{name: tarstream.Root, fd: root.FD(), holds: 1} // the descriptor belongs to the caller
	if err := n.look(); err != nil {
		return err
	}
	if name := root.File(); name != "" {
		return w.single(n, name)
	}
	if err := w.visit(n); err != nil {
		return err
	}
	return w.children(n, 0)
}

// single visits the file of a volume that is one file, after a root that stands for no
// directory: the folder around the file is not the volume's. So the root is the same in
// every archive. The descriptor is the file's own, so nothing is looked up by name.
func (w *walker) single(file *node, name string) error {
	if file.st.Nlink == 0 {
		return fail("read", name, fmt.Errorf("something has removed or replaced it meanwhile: %w", unix.ENOENT))
	}
	root := *file
	root.standIn, root.attributes = true, file.attributes&^(unix.STATX_ATTR_ENCRYPTED|unix.STATX_ATTR_VERITY)
	root.st = unix.Stat_t{Mode: unix.S_IFDIR | 0o755, Dev: file.st.Dev, Ino: file.st.Ino}
	if err := w.visit(&root); err != nil {
		return err
	}
	file.name = name
	return w.visit(file)
}

func (w *walker) children(dir *node, depth int) error {
	names, err := list(dir, w.listing)
	if err != nil {
		return err
	}
	if dir.cache, err = w.isCache(dir, names); err != nil {
		return err
	}
	if dir.cache && w.inCache != nil {
		w.inCache(dir.name)
	}
	for again := attempts; len(names) > 0; {
		err := w.child(dir, names[0], depth+1)
		switch {
		case err == nil:
			names = names[1:]
		case !errors.Is(err, errVanished):
			return err
		case again == 0:
			w.gone(dir, names[:1], nil)
			names = names[1:]
		default: // it may have been renamed, to a name that is still to come
			again--
			now, err := list(dir, nil)
			if err != nil {
				return err
			}
			at, _ := slices.BinarySearch(now, names[0])
			now = now[at:]
			w.gone(dir, names, now)
			names = now
		}
	}
	return nil
}

// gone reports the names of a listing that a later listing does not have. Both must be
// sorted.
func (w *walker) gone(dir *node, names, now []string) {
	for _, name := range names {
		at, found := slices.BinarySearch(now, name)
		if now = now[at:]; !found && !w.excludes(dir, name, below(dir, name)) {
			w.vanished(below(dir, name))
		}
	}
}

// errVanished means that a listed name no longer exists.
var errVanished = errors.New("vanished")

// below returns the path of a name in dir.
func below(dir *node, name string) string {
	if dir.name == tarstream.Root {
		return name
	}
	return dir.name + "/" + name
}

func (w *walker) child(dir *node, name string, depth int) error {
	path := below(dir, name)
	if depth > tarstream.MaxDepth {
		return fmt.Errorf("%q is more than %d levels deep", path, tarstream.MaxDepth)
	}
	excluded := w.excludes(dir, name, path)
	fd, err := disk.Openat2(dir.fd, name, unix.O_PATH|unix.O_NOFOLLOW, 0, resolve)
	switch {
	case errors.Is(err, unix.ENOENT) && excluded:
		return nil
	case errors.Is(err, unix.ENOENT):
		return errVanished
	case errors.Is(err, unix.EXDEV):
		return fmt.Errorf("%q: another filesystem is mounted inside the volume: %w", path, err)
	case err != nil:
		return fail("open", path, err)
	}
	n := &node{fd: fd, name: path, excluded: excluded}
	defer n.release()
	if err := n.look(); err != nil {
		return err
	}
	// Excluded or not: a restore would delete it.
	if n.kind() == unix.S_IFDIR && n.st.Dev != dir.st.Dev {
		return &Nested{path}
	}
	if excluded && w.left != nil {
		if !dir.excluded {
			w.left(path)
		}
		return nil
	}
	if err := w.visit(n); err != nil {
		return err
	}
	if n.kind() != unix.S_IFDIR {
		return nil
	}
	return w.children(n, depth)
}

// Nested is the error for a live tree with a btrfs subvolume inside, which could not be
// restored as one.
type Nested struct{ Name string }

func (n *Nested) Error() string { return fmt.Sprintf("%q is a subvolume inside the volume", n.Name) }
func (n *Nested) Unwrap() error { return unix.EXDEV }

// list returns the names in a directory, sorted. A removed directory is empty. If see
// is not nil, it gets the open directory.
func list(dir *node, see func(dir *node, fd int) error) ([]string, error) {
	fd, err := disk.Openat2(dir.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0, resolve)
	if err != nil {
		return nil, fail("open", dir.name, err)
	}
	f := os.NewFile(uintptr(fd), dir.name)
	defer f.Close()
	if see != nil {
		if err := see(dir, fd); err != nil {
			return nil, err
		}
	}
	names, err := f.Readdirnames(-1)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fail("list", dir.name, err)
	}
	slices.Sort(names)
	return names, nil
}

// open opens the pinned inode of n for reading. It does not update the access time if
// the process may avoid that.
func (w *walker) open(n *node) (*live, error) {
	name := strconv.Itoa(n.fd)
	flags := unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC
	open := func(flags int) (int, error) {
		return disk.RetryValue(func() (int, error) { return unix.Openat(w.procFDs, name, flags, 0) })
	}
	start := time.Now()
	for waited := false; ; waited = true {
		fd, err := open(flags | unix.O_NOATIME)
		if errors.Is(err, unix.EPERM) { // not the owner (open(2), O_NOATIME)
			fd, err = open(flags)
		}
		switch {
		case err == nil:
			if waited {
				w.leases -= time.Since(start)
			}
			return &live{fd, n.name}, nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, fail("open", n.name, err)
		case time.Since(start) > w.leases:
			return nil, fail("open", n.name, fmt.Errorf("a process holds a lease on it (/proc/locks) and does not give it up: try again in a minute, when the kernel has broken the lease: %w", err))
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-w.ctx.Done():
			return nil, context.Cause(w.ctx)
		}
	}
}

// leaseBreak is how long a walk waits in total for leases on its files, if nobody
// waits for the walk. The first attempt to open a file makes the kernel ask for the
// lease. The kernel breaks it after /proc/sys/fs/lease-break-time, 45 s by default
// (fcntl(2), F_SETLEASE).
const leaseBreak = 2 * time.Minute

// live is an open file of the volume. It is a bare descriptor, because os.NewFile
// would make an epoll call for each file, to no use.
type live struct {
	fd   int
	name string
}

// ReadAt implements io.ReaderAt.
func (f *live) ReadAt(p []byte, at int64) (n int, err error) {
	for n < len(p) {
		got, err := disk.RetryValue(func() (int, error) { return unix.Pread(f.fd, p[n:], at+int64(n)) })
		if err != nil {
			return n, err
		}
		if got == 0 {
			return n, io.EOF
		}
		n += got
	}
	return n, nil
}

func (f *live) close() { unix.Close(f.fd) }

// target returns the target of the symbolic link n.
func (n *node) target() (string, error) {
	buf := make([]byte, 4096)
	size, err := disk.RetryValue(func() (int, error) { return unix.Readlinkat(n.fd, "", buf) })
	if err != nil {
		return "", fail("readlink", n.name, err)
	}
	return string(buf[:size]), nil
}

func fail(op, path string, err error) error {
	return &fs.PathError{Op: op, Path: strconv.Quote(path), Err: err}
}

// Unrestorable is the error for a live tree that holds something that a restore would
// refuse. Such a tree must not be captured.
type Unrestorable struct {
	Offenders []string // descriptions of the first few
	More      int      // how many more there are
	Specials  bool     // some are fifos or devices
	Symlinks  bool     // some are symbolic links, which the config rejects
}

func (u *Unrestorable) Error() string {
	text := "the volume holds entries that cannot be restored: " + strings.Join(u.Offenders, ", ")
	if u.More > 0 {
		text += fmt.Sprintf(" and %d more", u.More)
	}
	return text
}

// err returns u if there are offenders, and nil otherwise.
func (u *Unrestorable) err() error {
	if len(u.Offenders) == 0 {
		return nil
	}
	return u
}

func (u *Unrestorable) add(what string) {
	if len(u.Offenders) < mostNames {
		u.Offenders = append(u.Offenders, what)
	} else {
		u.More++
	}
}

// extents returns where a sparse file has data (lseek(2), SEEK_DATA), and nil for a
// file without holes. If there are more extents than a map may have, the smallest
// holes are treated as data.
func extents(f *live, size int64) ([]tarstream.Extent, error) {
	list := []tarstream.Extent{}
	for at := int64(0); at < size; {
		from, err := disk.RetryValue(func() (int64, error) { return unix.Seek(f.fd, at, unix.SEEK_DATA) })
		if err == nil {
			at, err = disk.RetryValue(func() (int64, error) { return unix.Seek(f.fd, from, unix.SEEK_HOLE) })
		}
		if errors.Is(err, unix.ENXIO) { // only a hole is left, or it was truncated, which unchanged reports
			break
		}
		if err != nil {
			return nil, fail("lseek", f.name, err)
		}
		if at = min(at, size); from >= at {
			break
		}
		list = append(list, tarstream.Extent{Offset: from, Length: at - from})
	}
	if len(list) == 1 && list[0] == (tarstream.Extent{Offset: 0, Length: size}) {
		return nil, nil
	}
	for gap := int64(64 << 10); len(list) >= tarstream.MaxExtents; gap *= 2 {
		list = merge(list, gap)
	}
	// An empty extent at the end tells other tar programs how long the file is.
	if n := len(list); n == 0 || list[n-1].Offset+list[n-1].Length < size {
		list = append(list, tarstream.Extent{Offset: size, Length: 0})
	}
	return list, nil
}

// merge joins extents that are less than gap bytes apart.
func merge(list []tarstream.Extent, gap int64) []tarstream.Extent {
	out := list[:1]
	for _, x := range list[1:] {
		last := &out[len(out)-1]
		if x.Offset-(last.Offset+last.Length) < gap {
			last.Length = x.Offset + x.Length - last.Offset
		} else {
			out = append(out, x)
		}
	}
	return out
}

// content returns a reader of what the stream stores of a file: all of it, or the
// data of a sparse file.
func content(f io.ReaderAt, e *tarstream.Entry) io.Reader {
	if !e.Sparse() {
		return io.NewSectionReader(f, 0, e.Size)
	}
	parts := make([]io.Reader, 0, len(e.Extents))
	for _, x := range e.Extents {
		if x.Length > 0 {
			parts = append(parts, io.NewSectionReader(f, x.Offset, x.Length))
		}
	}
	return io.MultiReader(parts...)
}

// Locked is the error for a live tree with files that cannot be removed. Such a tree
// could be exchanged, but not be deleted afterwards.
type Locked struct {
	Name string // the first locked file, below the volume
	More int    // how many more there are
}

func (l *Locked) Error() string {
	text := fmt.Sprintf("%q has the immutable or the append-only flag, so it cannot be deleted", l.Name)
	if l.More > 0 {
		text += fmt.Sprintf(", and so do %d more", l.More)
	}
	return text
}

// inode identifies a file independently of its names. A file may be removed during the
// walk and a new one be given its number; the handle tells the two apart.
type inode struct {
	dev, ino uint64
	handle   string
}

// census makes entries of what a walk finds, and counts what is lost.
type census struct {
	rejectSymlinks bool
	keepPrivileges bool
	special        Special
	links          map[inode]string // the first names of files with several names
	sockets        int64
	bad            Unrestorable
	lost           Losses
	root           disk.Properties
	attributes     uint64 // of the root, as statx(2) shows them
}

func newCensus(root *disk.Dir, opt WriteOptions) (*census, error) {
	properties, err := root.Properties()
	return &census{
		rejectSymlinks: opt.RejectSymlinks, keepPrivileges: opt.KeepPrivileges, special: opt.Special,
		links: map[inode]string{}, root: properties,
	}, err
}

// entry returns the entry of n as stat describes it. It is nil for what is left out,
// and for what could not be restored and is now in bad.
func (c *census) entry(n *node) (*tarstream.Entry, error) {
	e := &tarstream.Entry{
		Name: n.name, Mode: n.st.Mode & 0o7777, UID: n.st.Uid, GID: n.st.Gid, Mtime: timespec(n.st.Mtim),
	}
	switch n.kind() {
	case unix.S_IFDIR:
		e.Type = tarstream.Directory
	case unix.S_IFREG:
		e.Type, e.Size = tarstream.Regular, n.st.Size
		if n.st.Nlink < 2 {
			break
		}
		handle, err := n.handle()
		if err != nil {
			return nil, err
		}
		id := inode{n.st.Dev, n.st.Ino, handle}
		if first, ok := c.links[id]; ok {
			e.Type, e.Size, e.Link = tarstream.Hardlink, 0, first
			return e, nil // what is lost of it is counted
		}
		c.links[id] = n.name
	case unix.S_IFLNK:
		if c.rejectSymlinks {
			c.bad.Symlinks = true
			c.bad.add(fmt.Sprintf("symlink %q (the config says symlinks: reject)", n.name))
			return nil, nil
		}
		e.Type = tarstream.Symlink
	case unix.S_IFSOCK:
		c.sockets++
		c.lost.Add(LostSocket, n.name)
		return nil, nil
	default:
		return c.specialFile(n, e), nil
	}
	c.stat(n)
	return e, nil
}

// Special says what becomes of fifos and devices.
type Special int

// What becomes of fifos and devices, as the config says.
const (
	RefuseSpecial Special = iota // they fail the capture or the restore
	SkipSpecial                  // they are left out, and counted
	KeepSpecial
)

// specialFile is entry for a fifo or a device.
func (c *census) specialFile(n *node, e *tarstream.Entry) *tarstream.Entry {
	var known bool
	e.Type, known = specialTypes[n.kind()]
	switch {
	case !known:
		c.bad.add(fmt.Sprintf("entry of unknown type %q", n.name))
		return nil
	case c.special == RefuseSpecial:
		c.bad.Specials = true
		c.bad.add(fmt.Sprintf("%s %q", e.Type, n.name))
		return nil
	case c.special == SkipSpecial:
		c.lost.Add(LostSpecial, n.name)
		return nil
	}
	if e.Type != tarstream.Fifo {
		e.Major, e.Minor = unix.Major(n.st.Rdev), unix.Minor(n.st.Rdev)
	}
	return e
}

var specialTypes = map[uint32]tarstream.Type{
	unix.S_IFIFO: tarstream.Fifo, unix.S_IFBLK: tarstream.BlockDevice, unix.S_IFCHR: tarstream.CharacterDevice,
}

func timespec(t unix.Timespec) tarstream.Timespec {
	return tarstream.Timespec{Sec: t.Sec, Nsec: t.Nsec}
}

// Found is what Survey finds.
type Found struct {
	tarstream.Stats
	Lost []Lost
	// ExcludedFiles and ExcludedBytes count the regular files that the config excludes.
	// They are in no snapshot.
	ExcludedFiles, ExcludedBytes int64
}

// Survey walks the directory root, reads no content, and returns what Write would
// find. Holes count as data. Survey returns [*Unrestorable] if Write would, and
// [*Locked] if a file has the immutable or the append-only flag.
//
// It goes through what is excluded too, and looks at the extended attributes of every
// file. Write looks at those of the files that it reads, of executables, and of
// directories.
func Survey(ctx context.Context, root *disk.Dir, opt WriteOptions) (*Found, error) {
	census, err := newCensus(root, opt)
	if err != nil {
		return nil, err
	}
	found, locked := &Found{}, &Locked{}
	var xbuf []byte
	w, err := newWalker(ctx, func(n *node) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		flagged := n.attributes&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0
		switch {
		case flagged && locked.Name == "":
			locked.Name = n.name
		case flagged:
			locked.More++
		}
		if n.excluded {
			if n.kind() == unix.S_IFREG {
				found.ExcludedFiles++
				found.ExcludedBytes += n.st.Size
			}
			return nil
		}
		e, err := census.entry(n)
		if e == nil || err != nil {
			return err
		}
		found.Add(e)
		if e.Type != tarstream.Regular && e.Type != tarstream.Directory {
			return nil
		}
		return census.listAttributes(n, &xbuf)
	}, func(string) {})
	if err != nil {
		return nil, err
	}
	defer w.close()
	w.listing, w.exclude, w.caches, w.leases = census.listing, opt.Exclude, opt.ExcludeCaches, leaseBreak
	if err := w.walk(root); err != nil {
		return nil, err
	}
	if err := census.bad.err(); err != nil {
		return nil, err
	}
	if locked.Name != "" {
		return nil, locked
	}
	found.Lost = census.lost.List()
	return found, nil
}
