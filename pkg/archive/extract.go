package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
)

// ExtractOptions bound and filter what an archive may do. All of it comes from
// the current config and the disk, none from the archive.
type ExtractOptions struct {
	RejectSymlinks bool // refuse the archive where it holds a symbolic link
	KeepPrivileges bool // keep setuid and setgid of files, capabilities, trusted.*
	// MaxEntries, MaxBytes and MaxDepth are the most that may be made. MaxBytes
	// counts apparent sizes.
	MaxEntries int64
	MaxBytes   int64
	MaxDepth   int
	// Foreign accepts an archive that leaves out directories, the root among
	// them: they are made with Default's owner and mode.
	Foreign bool
	Default Entry
}

// source gives entries and, read between two of them, the content of each.
type source interface {
	next() (*Entry, error)
	io.Reader
}

// Extract makes, in the empty directory into, the tree that the tar stream r
// holds, and returns what it made. Nothing outside into is ever read, changed
// or created, whatever the stream says. After an error into holds a part; an
// error that is the archive's fault wraps [ErrRefused].
//
// Directories and files come first, symbolic links behind them (so no link
// exists while names are looked up), then the metadata of directories. Nothing
// is durable before the caller's syncfs.
func Extract(ctx context.Context, r io.Reader, into *disk.Dir, opt ExtractOptions) (Stats, error) {
	return extract(ctx, &parser{r: r}, into, opt)
}

func extract(ctx context.Context, src source, into *disk.Dir, opt ExtractOptions) (Stats, error) {
	x := &extractor{ctx: ctx, opt: opt, src: src, cursor: newCursor(into), buf: make([]byte, 256<<10), dirs: map[string]int{}, links: map[string]bool{}}
	defer x.cursor.close()
	if opt.Foreign {
		root := opt.Default
		root.Name, root.Type = Root, Directory
		x.addDir(&root)
		x.stats.add(&root)
		x.implied = map[string]bool{Root: true}
	}
	for {
		if err := ctx.Err(); err != nil {
			return x.stats, context.Cause(ctx)
		}
		e, err := src.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return x.stats, err
		}
		if err := x.entry(e); err != nil {
			return x.stats, err
		}
	}
	if len(x.metadata) == 0 {
		return x.stats, refuse("it holds nothing, not even the volume's own directory")
	}
	return x.stats, x.finish()
}

type extractor struct {
	ctx    context.Context
	opt    ExtractOptions
	src    source
	cursor *cursor
	buf    []byte
	stats  Stats

	metadata []*Entry        // directories, whose metadata are set last
	dirs     map[string]int  // their index in metadata, by name
	implied  map[string]bool // those that the archive has not named yet
	symlinks []*Entry
	links    map[string]bool // their names
}

func (x *extractor) entry(e *Entry) error {
	if !x.opt.Foreign && (len(x.metadata) == 0) != (e.Name == Root) {
		return refuse("%q: the volume's own directory stands first, and once", e.Name)
	}
	if e.Type == Directory && x.implied[e.Name] { // now it is named
		delete(x.implied, e.Name)
		x.metadata[x.dirs[e.Name]] = e
		return nil
	}
	if e.Name == Root && len(x.metadata) > 0 {
		return refuse("the volume's own directory twice")
	}
	if err := x.count(e); err != nil {
		return err
	}
	switch e.Type {
	case Directory:
		return x.directory(e)
	case Regular:
		return x.file(e)
	case Hardlink:
		return x.hardlink(e)
	case Symlink:
		if x.opt.RejectSymlinks {
			return refuse("symlink %q, and the config says symlinks: reject", e.Name)
		}
		// They are kept until the end, so one that comes twice is noticed now: a
		// member that is named many times would otherwise fill the memory.
		if x.links[e.Name] {
			return refuse("symlink %q: %w", e.Name, unix.EEXIST)
		}
		x.links[e.Name] = true
		x.symlinks = append(x.symlinks, e)
		return nil
	}
	return refuse("%q is of %s", e.Name, e.Type)
}

// count holds the archive to the limits, before anything is made.
func (x *extractor) count(e *Entry) error {
	x.stats.add(e)
	switch {
	case x.stats.Entries() > x.opt.MaxEntries:
		return refuse("more than the %d entries that were announced", x.opt.MaxEntries)
	case e.Type == Regular && (e.Size > x.opt.MaxBytes || x.stats.Bytes > x.opt.MaxBytes || x.stats.Bytes < 0):
		return refuse("more than the %d bytes that were announced", x.opt.MaxBytes)
	case x.stats.Depth > x.opt.MaxDepth:
		return refuse("%q is deeper than the %d directories that were announced", e.Name, x.opt.MaxDepth)
	}
	return nil
}

func (x *extractor) addDir(e *Entry) {
	x.dirs[e.Name] = len(x.metadata)
	x.metadata = append(x.metadata, e)
}

func (x *extractor) directory(e *Entry) error {
	if e.Name != Root {
		parent, base, err := x.parent(e.Name)
		if err != nil {
			return err
		}
		if err := disk.Retry(func() error { return unix.Mkdirat(parent, base, 0o700) }); err != nil {
			return x.made("mkdir", e.Name, err)
		}
	}
	x.addDir(e)
	return nil
}

// made turns the failure to make a name into a refusal where it is the
// archive's fault: a name that is taken, or that no filesystem takes.
func (x *extractor) made(op, name string, err error) error {
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENAMETOOLONG) || errors.Is(err, unix.EILSEQ) || errors.Is(err, unix.EINVAL) {
		return refuse("%s %q: %w", op, name, err)
	}
	return fail(op, name, err)
}

// parent returns a descriptor of the directory that name is to be made in.
func (x *extractor) parent(name string) (int, string, error) {
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	if dir == "" {
		dir = Root
	}
	if _, known := x.dirs[dir]; !known {
		if !x.opt.Foreign {
			return -1, "", refuse("%q: its directory does not stand before it", name)
		}
		implied := x.opt.Default
		implied.Name, implied.Type, implied.Xattrs = dir, Directory, nil
		if err := x.count(&implied); err != nil {
			return -1, "", err
		}
		if err := x.directory(&implied); err != nil {
			return -1, "", err
		}
		x.implied[dir] = true
	}
	fd, err := x.cursor.open(dir)
	if err != nil {
		return -1, "", x.lookup(name, err)
	}
	return fd, base, nil
}

// lookup turns the failure to reach a name into a refusal where something else
// than a directory stands on the way.
func (x *extractor) lookup(name string, err error) error {
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EXDEV) {
		return refuse("%q: its directory is none: %w", name, err)
	}
	return fail("open the directory of", name, err)
}

func (x *extractor) file(e *Entry) error {
	parent, base, err := x.parent(e.Name)
	if err != nil {
		return err
	}
	fd, err := disk.Openat2(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600, resolve)
	if err != nil {
		return x.made("create", e.Name, err)
	}
	f := os.NewFile(uintptr(fd), e.Name)
	err = x.content(f, e)
	if err == nil {
		err = x.apply(fd, e)
	}
	if cerr := f.Close(); err == nil && cerr != nil {
		err = fail("close", e.Name, cerr)
	}
	return err
}

func (x *extractor) content(f *os.File, e *Entry) error {
	if !e.sparse() && !e.zeroHoles {
		return x.copy(f, e, e.Size)
	}
	if e.zeroHoles {
		if err := x.copy(f, e, e.Size); err != nil {
			return err
		}
	}
	for _, stretch := range e.Extents {
		if _, err := f.Seek(stretch.Offset, io.SeekStart); err != nil {
			return fail("seek", e.Name, err)
		}
		if err := x.copy(f, e, stretch.Length); err != nil {
			return err
		}
	}
	return wrapIf("truncate", e.Name, f.Truncate(e.Size))
}

func wrapIf(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return fail(op, name, err)
}

func (x *extractor) copy(f *os.File, e *Entry, n int64) error {
	for n > 0 {
		got, err := x.src.Read(x.buf[:min(n, int64(len(x.buf)))])
		if got > 0 {
			n -= int64(got)
			if err := write(f, x.buf[:got], e.zeroHoles); err != nil {
				return fail("write", e.Name, err)
			}
		}
		if n > 0 && errors.Is(err, io.EOF) {
			return refuse("%q: its content ends early", e.Name)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err := x.ctx.Err(); err != nil {
			return context.Cause(x.ctx)
		}
	}
	return nil
}

// write appends b to f, leaving a hole where b is nothing but zeros and holes
// are asked for.
func write(f *os.File, b []byte, holes bool) error {
	if holes && len(bytes.Trim(b, "\x00")) == 0 {
		_, err := f.Seek(int64(len(b)), io.SeekCurrent)
		return err
	}
	_, err := f.Write(b)
	return err
}

// hardlink gives a further name to a file of this archive. Nothing but what
// this extraction made is below the root, and no symbolic link yet, so the
// lookup cannot leave it.
func (x *extractor) hardlink(e *Entry) error {
	dir, base := path.Split(e.Link)
	dir = strings.TrimSuffix(dir, "/")
	if dir == "" {
		dir = Root
	}
	if _, known := x.dirs[dir]; !known {
		return refuse("hardlink %q to %q, which does not stand before it", e.Name, e.Link)
	}
	// The cursor holds one directory at a time; keep the file itself.
	from, err := x.cursor.open(dir)
	if err != nil {
		return x.lookup(e.Link, err)
	}
	target, err := disk.Openat2(from, base, unix.O_PATH|unix.O_NOFOLLOW, 0, resolve)
	if err != nil {
		return x.lookup(e.Link, err)
	}
	defer unix.Close(target)
	var st unix.Stat_t
	if err := disk.Retry(func() error { return unix.Fstat(target, &st) }); err != nil {
		return fail("stat", e.Link, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return refuse("hardlink %q to %q, which is not a regular file", e.Name, e.Link)
	}
	parent, newBase, err := x.parent(e.Name)
	if err != nil {
		return err
	}
	if err := linkFD(target, parent, newBase); err != nil {
		if errors.Is(err, unix.EMLINK) {
			return refuse("hardlink %q to %q: more links than the filesystem keeps: %w", e.Name, e.Link, err)
		}
		return x.made("link", e.Name, err)
	}
	return nil
}

// linkFD names an open inode. AT_EMPTY_PATH wants CAP_DAC_READ_SEARCH, and says
// ENOENT without it; the way through /proc does not (linkat(2)).
func linkFD(fd, dir int, name string) error {
	err := disk.Retry(func() error { return unix.Linkat(fd, "", dir, name, unix.AT_EMPTY_PATH) })
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	return disk.Retry(func() error {
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), dir, name, unix.AT_SYMLINK_FOLLOW)
	})
}

// finish makes the symbolic links and then sets the metadata of directories,
// the deepest first: a directory's times would change with every name made in
// it, and its default ACL would be inherited.
func (x *extractor) finish() error {
	for _, e := range x.symlinks {
		if err := x.symlink(e); err != nil {
			return err
		}
	}
	for i := len(x.metadata) - 1; i >= 0; i-- {
		e := x.metadata[i]
		at, err := x.cursor.open(e.Name)
		if err != nil {
			return x.lookup(e.Name, err)
		}
		// The cursor's descriptors are O_PATH; fchmod and fsetxattr want more.
		fd, err := disk.Openat2(at, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0, resolve)
		if err != nil {
			return fail("open", e.Name, err)
		}
		err = x.apply(fd, e)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *extractor) symlink(e *Entry) error {
	parent, base, err := x.parent(e.Name)
	if err != nil {
		return err
	}
	if err := disk.Retry(func() error { return unix.Symlinkat(e.Link, parent, base) }); err != nil {
		return x.made("symlink", e.Name, err)
	}
	if err := disk.Retry(func() error {
		return unix.Fchownat(parent, base, int(e.UID), int(e.GID), unix.AT_SYMLINK_NOFOLLOW)
	}); err != nil {
		return fail("chown", e.Name, err)
	}
	return wrapIf("set the time of", e.Name, disk.Retry(func() error {
		return unix.UtimesNanoAt(parent, base, times(e), unix.AT_SYMLINK_NOFOLLOW)
	}))
}

// times leaves the access time alone.
func times(e *Entry) []unix.Timespec {
	return []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: e.Mtime.Sec, Nsec: e.Mtime.Nsec}}
}

// apply sets the metadata of an open file or directory, in the only order that
// keeps all of them: chown clears setuid and capabilities (chown(2)), an ACL
// rules the group bits that chmod sets (acl(5)), and everything moves ctime.
func (x *extractor) apply(fd int, e *Entry) error {
	if err := disk.Retry(func() error { return unix.Fchown(fd, int(e.UID), int(e.GID)) }); err != nil {
		return fail("chown", e.Name, err)
	}
	mode := e.Mode
	if e.Type != Directory && !x.opt.KeepPrivileges {
		mode &^= unix.S_ISUID | unix.S_ISGID
	}
	if err := disk.Retry(func() error { return unix.Fchmod(fd, mode) }); err != nil {
		return fail("chmod", e.Name, err)
	}
	for _, attr := range e.Xattrs {
		if privilegedXattr(attr.Name) && !x.opt.KeepPrivileges {
			continue
		}
		if err := disk.Retry(func() error { return unix.Fsetxattr(fd, attr.Name, attr.Value, 0) }); err != nil {
			return x.xattrError(e, attr, err)
		}
	}
	ts := times(e)
	return wrapIf("set the time of", e.Name, futimens(fd, ts))
}

func (x *extractor) xattrError(e *Entry, attr Xattr, err error) error {
	// EINVAL: an ACL that is none; EACCES: a default ACL of a file; E2BIG and
	// ERANGE: a value or a name that no filesystem takes (setxattr(2), xattr(7)).
	forged := errors.Is(err, unix.EINVAL) || errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ERANGE) ||
		errors.Is(err, unix.EACCES) && attr.Name == aclDefault && e.Type != Directory
	if forged {
		return refuse("%q: extended attribute %q: %w", e.Name, attr.Name, err)
	}
	return fail(fmt.Sprintf("set extended attribute %q of", attr.Name), e.Name, err)
}

// futimens is utimensat(2) on a descriptor: a null path, which the x/sys
// wrapper cannot pass; AT_EMPTY_PATH does the same since Linux 5.8.
func futimens(fd int, ts []unix.Timespec) error {
	return disk.Retry(func() error { return unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH) })
}
