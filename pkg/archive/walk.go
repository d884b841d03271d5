package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/disk"
)

// resolve is how every name of a live volume is looked up.
const resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// node is a name of the live tree, pinned: fd is an O_PATH descriptor, so the
// inode that was looked at is the one that is read, whatever the name is made
// to be meanwhile, and nothing was opened whose opening has an effect (a
// device, a fifo).
type node struct {
	fd    int
	name  string // path below the volume
	st    unix.Stat_t
	holds int    // who still needs fd, besides whoever opened it
	known string // what handle returned
}

// hold keeps the inode open until release has been called once more.
func (n *node) hold() *node {
	n.holds++
	return n
}

func (n *node) release() {
	if n.holds--; n.holds < 0 {
		unix.Close(n.fd)
	}
}

// handle returns the kernel's handle of the inode, which no other has had or
// will have ([disk.FileHandle]). It is "" where the filesystem has none.
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

// walker visits a live directory in the order of sorted names, a directory
// before its content.
type walker struct {
	ctx     context.Context
	procFDs int // /proc/self/fd
	visit   func(*node) error
	// vanished, when set, is told of names that were gone between their listing
	// and their opening.
	vanished func(name string)
	leases   time.Duration // how long those that are met from here on are waited for
}

func newWalker(ctx context.Context, visit func(*node) error) (*walker, error) {
	fd, err := disk.RetryValue(func() (int, error) {
		return unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/proc/self/fd", Err: err}
	}
	return &walker{ctx: ctx, procFDs: fd, visit: visit}, nil
}

func (w *walker) close() { unix.Close(w.procFDs) }

// walk visits root and everything below it.
func (w *walker) walk(root *disk.Dir) error {
	n := &node{name: tarstream.Root, fd: root.FD(), holds: 1} // it stays the caller's
	if err := disk.Retry(func() error { return unix.Fstat(n.fd, &n.st) }); err != nil {
		return fail("stat", tarstream.Root, err)
	}
	if err := w.visit(n); err != nil {
		return err
	}
	return w.children(n, 0)
}

func (w *walker) children(dir *node, depth int) error {
	names, err := list(dir)
	if err != nil {
		return err
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
		default: // it may have been renamed: a name that is still to come is met then
			again--
			now, err := listFrom(dir, names[0])
			if err != nil {
				return err
			}
			w.gone(dir, names, now)
			names = now
		}
	}
	return nil
}

// gone reports the names of a listing that a later one does not have; both are
// sorted.
func (w *walker) gone(dir *node, names, now []string) {
	if w.vanished == nil {
		return
	}
	for _, name := range names {
		at, found := slices.BinarySearch(now, name)
		if now = now[at:]; !found {
			w.vanished(below(dir, name))
		}
	}
}

// errVanished is of a name that stands there no more.
var errVanished = errors.New("vanished")

// listFrom is list from a name on.
func listFrom(dir *node, name string) ([]string, error) {
	names, err := list(dir)
	if err != nil {
		return nil, err
	}
	at, _ := slices.BinarySearch(names, name)
	return names[at:], nil
}

// below is the path of a name in dir.
func below(dir *node, name string) string {
	if dir.name == tarstream.Root {
		return name
	}
	return dir.name + "/" + name
}

func (w *walker) child(dir *node, name string, depth int) error {
	path := below(dir, name)
	if depth > tarstream.MaxDepth {
		return fmt.Errorf("%q: more than %d names deep", path, tarstream.MaxDepth)
	}
	fd, err := disk.Openat2(dir.fd, name, unix.O_PATH|unix.O_NOFOLLOW, 0, resolve)
	switch {
	case errors.Is(err, unix.ENOENT):
		return errVanished
	case errors.Is(err, unix.EXDEV):
		return fmt.Errorf("%q: another filesystem is mounted here, inside the volume: %w", path, err)
	case err != nil:
		return fail("open", path, err)
	}
	n := &node{fd: fd, name: path}
	defer n.release()
	if err := disk.Retry(func() error { return unix.Fstat(fd, &n.st) }); err != nil {
		return fail("stat", path, err)
	}
	if n.kind() == unix.S_IFDIR && n.st.Dev != dir.st.Dev {
		return fmt.Errorf("%q: a subvolume of its own inside the volume: %w", path, unix.EXDEV)
	}
	if err := w.visit(n); err != nil {
		return err
	}
	if n.kind() != unix.S_IFDIR {
		return nil
	}
	return w.children(n, depth)
}

// list returns the names in a directory, sorted. A directory that has been
// removed is empty.
func list(dir *node) ([]string, error) {
	fd, err := disk.Openat2(dir.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0, resolve)
	if err != nil {
		return nil, fail("open", dir.name, err)
	}
	f := os.NewFile(uintptr(fd), dir.name)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fail("list", dir.name, err)
	}
	slices.Sort(names)
	return names, nil
}

// open opens the very inode of n for reading, without updating its access
// time where that is allowed.
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
			return nil, fail("open", n.name, fmt.Errorf("a process holds a lease on it (/proc/locks) and does not let go: try again when the kernel has taken it away, in a minute: %w", err))
		}
		if err := sleep(w.ctx, 10*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// leaseBreak is for how long leases on files that are to be read are waited for
// where nobody waits for the walk. The first attempt to open has the kernel ask
// for the lease, and take it away after /proc/sys/fs/lease-break-time, 45 s by
// default (fcntl(2), F_SETLEASE).
const leaseBreak = 2 * time.Minute

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// live is an open file of the volume: a bare descriptor, since os.NewFile asks
// epoll about each, which has nothing to say of files.
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

// target returns what the symbolic link n points to.
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

// Unrestorable says that a live tree holds what a restore would refuse, so that
// it must not be captured as if all were well.
type Unrestorable struct {
	Offenders []string // the first of them, in words
	More      int      // how many besides
}

func (u *Unrestorable) Error() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "the volume holds what cannot be restored: ")
	for i, o := range u.Offenders {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(o)
	}
	if u.More > 0 {
		fmt.Fprintf(&b, " and %d more", u.More)
	}
	return b.String()
}

func (u *Unrestorable) kind(n *node) { u.add(fmt.Sprintf("%s %q", kindName(n.kind()), n.name)) }

func (u *Unrestorable) symlink(name string) {
	u.add(fmt.Sprintf("symlink %q (the config says symlinks: reject)", name))
}

// err returns u when there are offenders, and nil otherwise.
func (u *Unrestorable) err() error {
	if len(u.Offenders) == 0 {
		return nil
	}
	return u
}

func (u *Unrestorable) add(what string) {
	if len(u.Offenders) < 5 {
		u.Offenders = append(u.Offenders, what)
	} else {
		u.More++
	}
}

func seek(f *live, at int64, whence int) (int64, error) {
	return disk.RetryValue(func() (int64, error) { return unix.Seek(f.fd, at, whence) })
}

// extents returns where a sparse file holds data (lseek(2), SEEK_DATA), and nil
// for a file without holes. Where there are more stretches than can be kept,
// the smallest holes between them are filled in.
func extents(f *live, size int64) ([]tarstream.Extent, error) {
	list := []tarstream.Extent{}
	for at := int64(0); at < size; {
		from, err := seek(f, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // only a hole is left
			break
		}
		if err != nil {
			return nil, fail("lseek", f.name, err)
		}
		to, err := seek(f, from, unix.SEEK_HOLE)
		if errors.Is(err, unix.ENXIO) { // cut since: seen when it has been read
			break
		}
		if err != nil {
			return nil, fail("lseek", f.name, err)
		}
		to = min(to, size)
		if from >= to {
			break
		}
		list = append(list, tarstream.Extent{Offset: from, Length: to - from})
		at = to
	}
	if len(list) == 1 && list[0] == (tarstream.Extent{Offset: 0, Length: size}) {
		return nil, nil
	}
	for gap := int64(64 << 10); len(list) >= tarstream.MaxExtents; gap *= 2 {
		list = merge(list, gap)
	}
	// An empty stretch at the end tells other readers how long the file is.
	if n := len(list); n == 0 || list[n-1].Offset+list[n-1].Length < size {
		list = append(list, tarstream.Extent{Offset: size, Length: 0})
	}
	return list, nil
}

// merge joins stretches that lie less than gap bytes apart.
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

// content reads what of a file an entry stores: all of it, or the data of a
// sparse one.
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

// Locked says that a live tree has files that cannot be removed, and could
// therefore be exchanged but not be deleted.
type Locked struct {
	Name string // the first of them, below the volume
	More int    // how many besides
}

func (l *Locked) Error() string {
	text := fmt.Sprintf("%q has the immutable or the append-only flag, with which it cannot be deleted", l.Name)
	if l.More > 0 {
		text += fmt.Sprintf(", and %d more have", l.More)
	}
	return text
}

// look counts n where it is locked.
func (l *Locked) look(n *node) error {
	locked, err := disk.Locked(n.fd)
	if err != nil {
		return fail("statx", n.name, err)
	}
	switch {
	case !locked:
	case l.Name == "":
		l.Name = n.name
	default:
		l.More++
	}
	return nil
}

// Survey walks the directory root by stat alone and returns what Write would
// find, or [*Unrestorable] where Write would, and [*Locked] where a file has such
// a flag. Holes count as data.
func Survey(ctx context.Context, root *disk.Dir, opt WriteOptions) (tarstream.Stats, error) {
	var stats tarstream.Stats
	bad := &Unrestorable{}
	links, locked := map[inode]bool{}, &Locked{}
	w, err := newWalker(ctx, func(n *node) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := locked.look(n); err != nil {
			return err
		}
		e := &tarstream.Entry{Name: n.name, Size: n.st.Size}
		switch n.kind() {
		case unix.S_IFDIR:
			e.Type = tarstream.Directory
		case unix.S_IFREG:
			e.Type = tarstream.Regular
			if id := (inode{dev: n.st.Dev, ino: n.st.Ino}); n.st.Nlink > 1 {
				if links[id] {
					e.Type = tarstream.Hardlink
				}
				links[id] = true
			}
		case unix.S_IFLNK:
			e.Type = tarstream.Symlink
			if opt.RejectSymlinks {
				bad.symlink(n.name)
			}
		case unix.S_IFSOCK:
			return nil
		default:
			bad.kind(n)
			return nil
		}
		stats.Add(e)
		return nil
	})
	if err != nil {
		return stats, err
	}
	defer w.close()
	if err := w.walk(root); err != nil {
		return stats, err
	}
	if err := bad.err(); err != nil {
		return stats, err
	}
	if locked.Name != "" {
		return stats, locked
	}
	return stats, nil
}
