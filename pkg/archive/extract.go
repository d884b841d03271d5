package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive/foreign"
	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/disk"
)

// ExtractOptions limit what an archive may create. All of them come from the current
// config and the disk, and none from the archive.
type ExtractOptions struct {
	RejectSymlinks bool // refuse an archive that holds a symbolic link
	KeepPrivileges bool // keep setuid and setgid bits of files, capabilities, trusted.*
	// Special says what becomes of fifos and devices of the archive.
	Special Special
	// Label, if not "", is the security.selinux of everything that is created. The
	// archive has no labels: Docker gives a volume one label as a whole (:z, :Z).
	Label string
	// Lost, if set, collects what the archive has and is not created.
	Lost *Losses
	// MaxEntries, MaxBytes and MaxDepth limit what may be created. MaxBytes counts
	// apparent sizes, and of a foreign archive what it takes on disk.
	MaxEntries int64
	MaxBytes   int64
	MaxDepth   int
	// Default has the owner, mode and time of a directory that a foreign archive
	// leaves out.
	Default tarstream.Entry
	// Supply, if set, is called by Extract for each large file whose content is whole
	// members, in order, the last of them padded with zeros to a multiple of 512
	// bytes. If it returns a Fill, the members are neither read nor checked: the Fill
	// is responsible for the content.
	Supply func(e *tarstream.Entry, content []member.Member) Fill
	// Wrote, if set, is called with the number of bytes after each write to a file.
	// Several goroutines call it at a time.
	Wrote func(bytes int64)

	foreign bool // the archive is another program's
}

// Fill gives a new, empty file its whole content, including its size and its holes.
// The metadata is set afterwards. Several Fills run at a time. If Fill reports false,
// the file is emptied again and its members are inflated after all. An error ends the
// extraction.
type Fill func(into *os.File) (done bool, err error)

// Extract creates the tree of the tar stream r in the empty directory into, and
// returns what it created. Whatever the stream says, nothing outside into is read,
// changed or created. After an error into holds a part of the tree. An error that is
// the fault of the archive wraps [ErrRefused]. After Extract has returned, nothing is
// being written.
//
// Several goroutines write the files, straight from the members, while the headers are
// read in order.
func Extract(ctx context.Context, r *member.Reader, into *disk.Dir, opt ExtractOptions) (tarstream.Stats, error) {
	x := newExtractor(ctx, into, opt)
	x.parser = tarstream.NewParser(r, x.flush)
	defer x.parser.Close()
	return x.extract(x.parser)
}

// ExtractFrom is [Extract] for entries that are not one whole stream: a source may leave
// some out, and bring them in another order. The root comes first, and a directory before
// what is in it. open is given a function that the source calls before it waits, and before
// it goes on to another buffer: the files whose content is in memory are then written.
func ExtractFrom(ctx context.Context, open func(before func()) Source, into *disk.Dir, opt ExtractOptions) (tarstream.Stats, error) {
	x := newExtractor(ctx, into, opt)
	return x.extract(open(x.flush))
}

// Source returns entries, and between two entries the content of the first.
type Source interface {
	// Next returns the next entry, and io.EOF at the end of the archive. The entry
	// belongs to the caller.
	Next() (*tarstream.Entry, error)
	// Take returns the next bytes of the content: at least one and at most n, which
	// must not be more than is left. The bytes are valid until the next call of any
	// method; a caller that needs them longer holds their buffer, if they have one.
	Take(n int64) ([]byte, *member.Buffer, error)
}

type extractor struct {
	ctx      context.Context
	opt      ExtractOptions
	src      Source
	parser   *tarstream.Parser // src, where that is one whole stream
	foreign  *foreign.Reader   // src, where that is an archive of another program
	cursor   *cursor
	writers  *writers
	batch    *batch // small files that no writer has yet
	place    int64  // the place of the current entry in the archive, or in its stream
	mostOpen int64
	stats    tarstream.Stats
	used     int64 // of a foreign archive: about what it takes on disk

	dirs     kept           // directories, whose metadata is set last
	named    map[string]int // those of a foreign archive, which may name one several times or not at all: index in dirs
	symlinks kept
	links    map[string]int // index in symlinks
}

func newExtractor(ctx context.Context, into *disk.Dir, opt ExtractOptions) *extractor {
	return &extractor{
		ctx: ctx, opt: opt, cursor: newCursor(into), writers: newWriters(ctx, opt),
		mostOpen: int64(mostOpen(mostDirs)), links: map[string]int{},
	}
}

func (x *extractor) extract(src Source) (tarstream.Stats, error) {
	defer x.cursor.close()
	x.src = src
	if err := x.run(); err != nil {
		x.writers.fail(x.place, err)
	}
	x.flush()
	err := x.writers.close()
	if x.foreign != nil && errors.Is(err, member.ErrRefused) {
		err = fmt.Errorf("%w (headers at byte %d of the tar stream)", err, x.writers.at)
	}
	return x.stats, err
}

func (x *extractor) run() error {
	if x.foreign != nil { // it may leave out even the root
		root := x.opt.Default
		root.Name, root.Type = tarstream.Root, tarstream.Directory
		x.stats.Add(&root)
		x.named = map[string]int{tarstream.Root: x.dirs.add(&root, 0)}
	}
	for {
		if err := x.stopped(); err != nil {
			return err
		}
		e, err := x.src.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if x.place++; x.foreign != nil {
			x.place = x.foreign.At()
		}
		if err != nil {
			return err
		}
		if err := x.entry(e); err != nil {
			return err
		}
	}
	if x.dirs.n == 0 {
		return member.Refuse("it is empty: not even the root directory is in it")
	}
	if err := x.settle(); err != nil {
		return err
	}
	for i := range x.symlinks.n {
		if x.ctx.Err() != nil {
			return context.Cause(x.ctx)
		}
		x.place = x.symlinks.place(i)
		if err := x.symlink(x.symlinks.get(i, tarstream.Symlink)); err != nil {
			return err
		}
	}
	// The deepest first. If their metadata were set earlier, the times of a directory
	// would change with every name created in it, and its default ACL would be
	// inherited.
	for i := x.dirs.n - 1; i >= 0; i-- {
		if x.ctx.Err() != nil {
			return context.Cause(x.ctx)
		}
		x.place = x.dirs.place(i)
		if err := x.metadata(x.dirs.get(i, tarstream.Directory)); err != nil {
			return err
		}
	}
	return nil
}

// errStopped means that a writer has failed at an earlier entry. That error is the
// one that Extract returns.
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

// settle waits until all files so far have been created.
func (x *extractor) settle() error {
	x.flush()
	x.writers.busy.Wait()
	return x.stopped()
}

func (x *extractor) entry(e *tarstream.Entry) error {
	if x.foreign == nil && (x.dirs.n == 0) != (e.Name == tarstream.Root) {
		return member.Refuse("%q: the root directory must come first, and only once", e.Name)
	}
	if i, ok := x.named[e.Name]; ok && e.Type == tarstream.Directory { // now the archive names it, or names it again
		e.Xattrs = tarstream.MergeXattrs(x.dirs.get(i, e.Type).Xattrs, e.Xattrs)
		x.dirs.set(i, e, x.place)
		return nil
	}
	if x.foreign != nil && e.Type == tarstream.Hardlink && e.Link == e.Name {
		return x.again(e)
	}
	if i, ok := x.links[e.Link]; ok && x.foreign != nil && e.Type == tarstream.Hardlink { // a volume has no hardlinks to symlinks
		name := e.Name
		e = x.symlinks.get(i, tarstream.Symlink)
		e.Name = name
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
			return member.Refuse("it holds symlink %q, and the config says symlinks: reject", e.Name)
		}
		// Symlinks are kept in memory until the end. A second one of the same name is
		// refused now, or a manifest that names one member many times would fill the
		// memory.
		if _, twice := x.links[e.Name]; twice {
			return member.Refuse("symlink %q: %w", e.Name, unix.EEXIST)
		}
		i := x.symlinks.add(e, x.place)
		x.links[x.symlinks.name(i)] = i
		return nil
	}
	return x.special(e)
}

// lost counts what is not created as the archive has it.
func (o *ExtractOptions) lost(kind, name string) {
	if o.Lost != nil {
		o.Lost.Add(kind, name)
	}
}

// mostBytes is the most that all files together may have, with their holes: sums of sizes
// must not overflow, whatever a filesystem allows (XFS takes files of 8 EiB).
const mostBytes = 1 << 60

// mostKept limits what a foreign archive can have kept in memory until the end: a few
// kilobytes inflate to any number of names. Trees of millions of directories stay below.
const mostKept = 512 << 20

// count compares the archive with the limits before anything is created.
func (x *extractor) count(e *tarstream.Entry) error {
	x.stats.Add(e)
	if x.foreign != nil {
		if err := x.room(e); err != nil {
			return err
		}
	}
	switch {
	case x.stats.Entries() > x.opt.MaxEntries:
		return member.Refuse("it has more than the %d entries that were declared", x.opt.MaxEntries)
	case x.stats.Depth > x.opt.MaxDepth:
		return member.Refuse("%q is deeper than the %d levels that were declared", e.Name, x.opt.MaxDepth)
	case x.foreign == nil && e.Type == tarstream.Regular && (e.Size > x.opt.MaxBytes || x.stats.Bytes > x.opt.MaxBytes || x.stats.Bytes < 0):
		return member.Refuse("it has more than the %d bytes that were declared", x.opt.MaxBytes)
	}
	return nil
}

// room counts what an entry takes on disk whose size no manifest has declared.
func (x *extractor) room(e *tarstream.Entry) error {
	const page = 4096
	need := e.Stored() + sizeOf(e.Xattrs)
	if e.Type == tarstream.Directory {
		need += page
	}
	if need < 0 || need > x.opt.MaxBytes-x.used {
		return member.Refuse("%q takes %d bytes, and with it there are more than the %d bytes that may be used there", e.Name, need, x.opt.MaxBytes)
	}
	x.used += (need + page - 1) &^ (page - 1)
	if kept := x.dirs.bytes + x.symlinks.bytes; kept > mostKept {
		return member.Refuse("%q: the names, targets and attributes of its directories and symlinks have more than %d bytes", e.Name, int64(mostKept))
	}
	if x.stats.Bytes > mostBytes || x.stats.Bytes < 0 {
		return member.Refuse("%q has %d bytes, and with it there are more than %d, holes included", e.Name, e.Size, int64(mostBytes))
	}
	return nil
}

func (x *extractor) directory(e *tarstream.Entry) error {
	if e.Name != tarstream.Root {
		parent, base, err := x.parent(e.Name)
		if err != nil {
			return err
		}
		if err := made("mkdir", e.Name, disk.Retry(func() error { return unix.Mkdirat(parent.fd, base, 0o700) })); err != nil {
			return err
		}
	}
	i := x.dirs.add(e, x.place)
	if x.foreign != nil {
		x.named[x.dirs.name(i)] = i
	}
	return nil
}

func split(name string) (dir, base string) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return tarstream.Root, name
	}
	return name[:i], name[i+1:]
}

// parent returns the directory in which name is to be created. Everything below the
// root was created by this extraction, and there is no symbolic link yet. So a lookup
// cannot leave the root, and one that fails means that the archive does not name the
// directory before name.
func (x *extractor) parent(name string) (*openDir, string, error) {
	dir, base := split(name)
	at, err := x.cursor.to(dir)
	if x.foreign != nil && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)) {
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

// imply creates a directory that the archive leaves out.
func (x *extractor) imply(dir string) error {
	e := x.opt.Default
	e.Name, e.Type, e.Xattrs = dir, tarstream.Directory, nil
	if err := x.count(&e); err != nil {
		return err
	}
	return x.directory(&e)
}

// lookup turns the failure to reach a name into a refusal if a directory on the way
// is missing, or is not a directory.
func lookup(name string, err error) error {
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EXDEV) {
		return member.Refuse("%q: its directory does not come before it: %w", name, err)
	}
	return fail("open the directory of", name, err)
}

// again passes over a hardlink of a name to itself. GNU tar writes one where its command
// line names a file twice.
func (x *extractor) again(e *tarstream.Entry) error {
	if _, ok := x.links[e.Name]; ok {
		return nil
	}
	target, err := x.target(e)
	if err != nil {
		return err
	}
	return unix.Close(target)
}

// hardlink gives an additional name to a file of this archive.
func (x *extractor) hardlink(e *tarstream.Entry) error {
	target, err := x.target(e)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	parent, base, err := x.parent(e.Name)
	if err != nil {
		return err
	}
	// The way to link an open inode without CAP_DAC_READ_SEARCH (linkat(2)).
	err = disk.Retry(func() error {
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", target), parent.fd, base, unix.AT_SYMLINK_FOLLOW)
	})
	if errors.Is(err, unix.EMLINK) {
		return member.Refuse("hardlink %q links to %q, which has more links than the filesystem allows: %w", e.Name, e.Link, err)
	}
	return made("link", e.Name, err)
}

// target returns an O_PATH descriptor of the file that e links to.
func (x *extractor) target(e *tarstream.Entry) (int, error) {
	target, err := x.pin(e.Link)
	if errors.Is(err, unix.ENOENT) { // it may not exist yet; a file that is still being written does no harm
		if err := x.settle(); err != nil {
			return -1, err
		}
		target, err = x.pin(e.Link)
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return -1, member.Refuse("hardlink %q links to %q, which does not come before it: %w", e.Name, e.Link, err)
	}
	if err != nil {
		return -1, lookup(e.Link, err)
	}
	var st unix.Stat_t
	err = disk.Retry(func() error { return unix.Fstat(target, &st) })
	if err != nil {
		err = fail("stat", e.Link, err)
	} else if st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = member.Refuse("hardlink %q links to %q, which is not a regular file", e.Name, e.Link)
	}
	if err != nil {
		unix.Close(target)
		return -1, err
	}
	return target, nil
}

// pin returns an O_PATH descriptor of the inode at name.
func (x *extractor) pin(name string) (int, error) {
	dir, base := split(name)
	from, err := x.cursor.to(dir)
	if err != nil {
		return -1, err
	}
	return disk.Openat2(from.fd, base, unix.O_PATH|unix.O_NOFOLLOW, 0, resolve)
}

// special creates a fifo or a device, if the config says so. An archive of anybody may
// ask for the device of a disk.
func (x *extractor) special(e *tarstream.Entry) error {
	switch {
	case !e.Type.Special() || x.opt.Special == RefuseSpecial:
		return member.Refuse("%q is not a directory, file, symlink or hardlink: %s", e.Name, e.Type)
	case x.opt.Special == SkipSpecial:
		x.opt.lost(LostSpecial, e.Name)
		return nil
	}
	parent, base, err := x.parent(e.Name)
	if err != nil {
		return err
	}
	kind := map[tarstream.Type]uint32{tarstream.Fifo: unix.S_IFIFO, tarstream.BlockDevice: unix.S_IFBLK, tarstream.CharacterDevice: unix.S_IFCHR}[e.Type]
	number := int(unix.Mkdev(e.Major, e.Minor))
	if err := made("mknod", e.Name, disk.Retry(func() error { return unix.Mknodat(parent.fd, base, kind|0o600, number) })); err != nil {
		return err
	}
	// Not opened for more than its metadata: opening a device has effects.
	fd, err := disk.Openat2(parent.fd, base, unix.O_PATH|unix.O_NOFOLLOW, 0, resolve)
	if err != nil {
		return fail("open", e.Name, err)
	}
	defer unix.Close(fd)
	if err := disk.Retry(func() error { return unix.Fchownat(fd, "", int(e.UID), int(e.GID), unix.AT_EMPTY_PATH) }); err != nil {
		return fail("chown", e.Name, err)
	}
	path := fmt.Sprintf("/proc/self/fd/%d", fd) // fchmod(2) takes no O_PATH descriptor
	if err := disk.Retry(func() error { return unix.Chmod(path, x.opt.mode(e)) }); err != nil {
		return fail("chmod", e.Name, err)
	}
	if err := x.opt.label(e.Name, func(label []byte) error { return unix.Setxattr(path, selinuxLabel, label, 0) }); err != nil {
		return err
	}
	return x.opt.setTime(fd, "", unix.AT_EMPTY_PATH, e)
}

func (x *extractor) metadata(e *tarstream.Entry) error {
	dir, base := split(e.Name)
	at, err := x.cursor.to(dir)
	if err != nil {
		return lookup(e.Name, err)
	}
	// fchmod and fsetxattr do not work on an O_PATH descriptor.
	fd, err := disk.Openat2(at.fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0, resolve)
	if err != nil {
		return lookup(e.Name, err)
	}
	defer unix.Close(fd)
	return x.opt.apply(fd, e)
}

func (x *extractor) symlink(e *tarstream.Entry) error {
	parent, base, err := x.parent(e.Name)
	if err != nil {
		return err
	}
	if err := made("symlink", e.Name, disk.Retry(func() error { return unix.Symlinkat(e.Link, parent.fd, base) })); err != nil {
		return err
	}
	if err := disk.Retry(func() error {
		return unix.Fchownat(parent.fd, base, int(e.UID), int(e.GID), unix.AT_SYMLINK_NOFOLLOW)
	}); err != nil {
		return fail("chown", e.Name, err)
	}
	path := fmt.Sprintf("/proc/self/fd/%d/%s", parent.fd, base)
	if err := x.opt.label(e.Name, func(label []byte) error { return unix.Lsetxattr(path, selinuxLabel, label, 0) }); err != nil {
		return err
	}
	return x.opt.setTime(parent.fd, base, unix.AT_SYMLINK_NOFOLLOW, e)
}
