package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
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
	Default tarstream.Entry
	// Supply, when set, is asked about each large file of a [Reader] whose
	// content is whole members, in order, the last of them padded with zeros to a
	// multiple of 512 bytes. Where it returns a Fill these members are neither
	// read nor checked: whoever fills the file answers for what is in it.
	Supply func(e *tarstream.Entry, content []member.Member) Fill
	// Wrote, when set, is told how many bytes more were written to files, by
	// several goroutines at a time.
	Wrote func(bytes int64)
}

// Fill gives a new, empty file its whole content, its size and its holes
// included; metadata are set afterwards. Several run at a time. Where it reports
// false the file is emptied again and its members are inflated after all.
type Fill func(into *os.File) (done bool, err error)

// source gives entries, and between two of them the content of the first.
type source interface {
	Next() (*tarstream.Entry, error)
	// Take returns the next bytes of the content, at least one and at most n,
	// where no more than n are left. They are valid until the next call of any
	// method for whoever does not hold the buffer that they lie in.
	Take(n int64) ([]byte, *member.Buffer, error)
	Close()
}

// Extract makes, in the empty directory into, the tree that the tar stream r
// holds, and returns what it made. Nothing outside into is ever read, changed
// or created, whatever the stream says. After an error into holds a part; an
// error that is the archive's fault wraps [ErrRefused]. When it returns nothing
// is being written any more.
//
// Headers are read in order, directories and hardlinks made in order; files are
// written by several goroutines meanwhile, straight from the members where r is
// a [Reader]. Symbolic links come behind all of these (so no link exists while
// names are looked up), then the metadata of directories. Nothing is durable
// before the caller's syncfs.
func Extract(ctx context.Context, r io.Reader, into *disk.Dir, opt ExtractOptions) (tarstream.Stats, error) {
	if _, members := r.(*member.Reader); !members {
		opt.Supply = nil
	}
	return extract(ctx, into, opt, func(before func()) source { return tarstream.NewParser(ctx, r, before) })
}

// extract reads from the source that from makes. The source has to call before
// whenever it may come to wait.
func extract(ctx context.Context, into *disk.Dir, opt ExtractOptions, from func(before func()) source) (tarstream.Stats, error) {
	x := &extractor{ctx: ctx, opt: opt, cursor: newCursor(into), writers: newWriters(ctx, opt), mostOpen: int64(mostOpen(mostDirs)), links: map[string]bool{}}
	defer x.cursor.close()
	x.src = from(x.flush)
	if err := x.run(); err != nil {
		x.writers.fail(x.place, err)
	}
	x.flush()
	x.src.Close()
	return x.stats, x.writers.close()
}

type extractor struct {
	ctx      context.Context
	opt      ExtractOptions
	src      source
	cursor   *cursor
	writers  *writers
	batch    *batch // small files that no writer has got yet
	place    int64  // of the current entry in the archive
	mostOpen int64
	stats    tarstream.Stats

	dirs     kept           // their metadata are set last
	implied  map[string]int // those that the archive has not named yet: index in dirs
	symlinks kept
	links    map[string]bool // their names
}

func (x *extractor) run() error {
	if x.opt.Foreign {
		root := x.opt.Default
		root.Name, root.Type = tarstream.Root, tarstream.Directory
		x.stats.Add(&root)
		x.implied = map[string]int{tarstream.Root: x.dirs.add(&root)}
	}
	for {
		if err := x.stopped(); err != nil {
			return err
		}
		e, err := x.src.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		x.place++
		if err != nil {
			return err
		}
		if err := x.entry(e); err != nil {
			return err
		}
	}
	if x.dirs.n == 0 {
		return member.Refuse("it holds nothing, not even the volume's own directory")
	}
	if err := x.settle(); err != nil {
		return err
	}
	return x.finish()
}

// errStopped is a follow-up: a writer has failed, at an earlier entry.
var errStopped = errors.New("stopped by another error")

func (x *extractor) stopped() error {
	select {
	case <-x.ctx.Done():
		return context.Cause(x.ctx)
	case <-x.writers.failed:
		return errStopped
	default:
		return nil
	}
}

// settle waits until all files so far are made.
func (x *extractor) settle() error {
	x.flush()
	x.writers.idle()
	return x.stopped()
}

func (x *extractor) entry(e *tarstream.Entry) error {
	if !x.opt.Foreign && (x.dirs.n == 0) != (e.Name == tarstream.Root) {
		return member.Refuse("%q: the volume's own directory stands first, and once", e.Name)
	}
	if i, ok := x.implied[e.Name]; ok && e.Type == tarstream.Directory { // now it is named
		delete(x.implied, e.Name)
		x.dirs.set(i, e)
		return nil
	}
	if e.Name == tarstream.Root && x.dirs.n > 0 {
		return member.Refuse("the volume's own directory twice")
	}
	if err := x.count(e); err != nil {
		return err
	}
	switch e.Type {
	case tarstream.Directory:
		return x.directory(e)
	case tarstream.Regular:
		return x.file(e)
	case tarstream.Hardlink:
		return x.hardlink(e)
	case tarstream.Symlink:
		if x.opt.RejectSymlinks {
			return member.Refuse("symlink %q, and the config says symlinks: reject", e.Name)
		}
		// They are kept until the end, so one that comes twice is noticed now: a
		// member that is named many times would otherwise fill the memory.
		if x.links[e.Name] {
			return member.Refuse("symlink %q: %w", e.Name, unix.EEXIST)
		}
		x.links[x.symlinks.name(x.symlinks.add(e))] = true
		return nil
	}
	return member.Refuse("%q is of %s", e.Name, e.Type)
}

// count holds the archive to the limits, before anything is made.
func (x *extractor) count(e *tarstream.Entry) error {
	x.stats.Add(e)
	switch {
	case x.stats.Entries() > x.opt.MaxEntries:
		return member.Refuse("more than the %d entries that were announced", x.opt.MaxEntries)
	case e.Type == tarstream.Regular && (e.Size > x.opt.MaxBytes || x.stats.Bytes > x.opt.MaxBytes || x.stats.Bytes < 0):
		return member.Refuse("more than the %d bytes that were announced", x.opt.MaxBytes)
	case x.stats.Depth > x.opt.MaxDepth:
		return member.Refuse("%q is deeper than the %d directories that were announced", e.Name, x.opt.MaxDepth)
	}
	return nil
}

func (x *extractor) directory(e *tarstream.Entry) error {
	if e.Name != tarstream.Root {
		parent, base, err := x.parent(e.Name)
		if err != nil {
			return err
		}
		if err := disk.Retry(func() error { return unix.Mkdirat(parent.fd, base, 0o700) }); err != nil {
			return made("mkdir", e.Name, err)
		}
	}
	x.dirs.add(e)
	return nil
}

func split(name string) (dir, base string) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return tarstream.Root, name
	}
	return name[:i], name[i+1:]
}

// parent returns the directory that name is to be made in. Nothing is below the
// root but what this extraction has made, and no symbolic link yet: a lookup
// that fails says that the archive names no such directory before name.
func (x *extractor) parent(name string) (*openDir, string, error) {
	dir, base := split(name)
	at, err := x.cursor.to(dir)
	if x.opt.Foreign && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)) {
		if err := x.imply(dir); err != nil {
			return nil, "", err
		}
		at, err = x.cursor.to(dir)
	}
	if err != nil {
		return nil, "", lookup(name, err)
	}
	return at, base, nil
}

// imply makes a directory that the archive leaves out.
func (x *extractor) imply(dir string) error {
	e := x.opt.Default
	e.Name, e.Type, e.Xattrs = dir, tarstream.Directory, nil
	if err := x.count(&e); err != nil {
		return err
	}
	if err := x.directory(&e); err != nil {
		return err
	}
	x.implied[dir] = x.dirs.n - 1
	return nil
}

// lookup turns the failure to reach a name into a refusal where no directory
// stands on the way.
func lookup(name string, err error) error {
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EXDEV) {
		return member.Refuse("%q: its directory does not stand before it: %w", name, err)
	}
	return fail("open the directory of", name, err)
}

// hardlink gives a further name to a file of this archive. Nothing but what
// this extraction made is below the root, and no symbolic link yet, so the
// lookup cannot leave it.
func (x *extractor) hardlink(e *tarstream.Entry) error {
	target, err := x.pin(e.Link)
	if errors.Is(err, unix.ENOENT) { // perhaps it has not been made yet; that it is still being written does no harm
		if err := x.settle(); err != nil {
			return err
		}
		target, err = x.pin(e.Link)
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return member.Refuse("hardlink %q to %q, which does not stand before it: %w", e.Name, e.Link, err)
	}
	if err != nil {
		return lookup(e.Link, err)
	}
	defer unix.Close(target)
	var st unix.Stat_t
	if err := disk.Retry(func() error { return unix.Fstat(target, &st) }); err != nil {
		return fail("stat", e.Link, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return member.Refuse("hardlink %q to %q, which is not a regular file", e.Name, e.Link)
	}
	parent, base, err := x.parent(e.Name)
	if err != nil {
		return err
	}
	if err := linkFD(target, parent.fd, base); err != nil {
		if errors.Is(err, unix.EMLINK) {
			return member.Refuse("hardlink %q to %q: more links than the filesystem keeps: %w", e.Name, e.Link, err)
		}
		return made("link", e.Name, err)
	}
	return nil
}

// pin returns an O_PATH descriptor of what stands at name.
func (x *extractor) pin(name string) (int, error) {
	dir, base := split(name)
	from, err := x.cursor.to(dir)
	if err != nil {
		return -1, err
	}
	return disk.Openat2(from.fd, base, unix.O_PATH|unix.O_NOFOLLOW, 0, resolve)
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
	for i := range x.symlinks.n {
		if x.ctx.Err() != nil {
			return context.Cause(x.ctx)
		}
		if err := x.symlink(x.symlinks.get(i, tarstream.Symlink)); err != nil {
			return err
		}
	}
	for i := x.dirs.n - 1; i >= 0; i-- {
		if x.ctx.Err() != nil {
			return context.Cause(x.ctx)
		}
		if err := x.metadata(x.dirs.get(i, tarstream.Directory)); err != nil {
			return err
		}
	}
	return nil
}

func (x *extractor) metadata(e *tarstream.Entry) error {
	dir, base := split(e.Name)
	at, err := x.cursor.to(dir)
	if err != nil {
		return lookup(e.Name, err)
	}
	// fchmod and fsetxattr want more than O_PATH.
	fd, err := disk.Openat2(at.fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0, resolve)
	if err != nil {
		return lookup(e.Name, err)
	}
	defer unix.Close(fd)
	return apply(fd, e, x.opt.KeepPrivileges)
}

func (x *extractor) symlink(e *tarstream.Entry) error {
	parent, base, err := x.parent(e.Name)
	if err != nil {
		return err
	}
	if err := disk.Retry(func() error { return unix.Symlinkat(e.Link, parent.fd, base) }); err != nil {
		return made("symlink", e.Name, err)
	}
	if err := disk.Retry(func() error {
		return unix.Fchownat(parent.fd, base, int(e.UID), int(e.GID), unix.AT_SYMLINK_NOFOLLOW)
	}); err != nil {
		return fail("chown", e.Name, err)
	}
	return wrapIf("set the time of", e.Name, disk.Retry(func() error {
		return unix.UtimesNanoAt(parent.fd, base, times(e.Mtime), unix.AT_SYMLINK_NOFOLLOW)
	}))
}
