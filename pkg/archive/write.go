package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
)

// Sink takes the pieces of a volume. Put is called from several goroutines; it
// may keep tar only until it returns.
type Sink interface {
	Put(tar []byte) (Member, error)
}

// Line is what the index keeps of one name.
type Line struct {
	Entry
	Ctime  Timespec
	Inode  uint64
	Member int // index, in Result.Members, of the member where the entry begins
}

// WriteOptions say how a volume is to be read.
type WriteOptions struct {
	// RejectSymlinks makes a symbolic link something that cannot be restored.
	RejectSymlinks bool
	// Index, when set, is given every name in order.
	Index func(*Line) error
	// Workers is how many goroutines compress; 0 means one a core.
	Workers int
}

// Result is a volume as it was written.
type Result struct {
	Members []Member
	Stats   Stats
	Sockets int64 // left out: a socket means nothing without its process
	// Changed are files that changed while they were read, each time anew:
	// what was stored of them is no single state. The first few, and how many.
	Changed      []string
	ChangedCount int64
}

// Write reads the directory root, which anybody may be changing, and gives its
// tar stream in pieces to sink. The pieces are cut by cutter's rule. An error
// is returned when something cannot be read, or as [*Unrestorable] when it
// could not be put back; nothing that sink has taken then means anything.
func Write(ctx context.Context, root *disk.Dir, sink Sink, opt WriteOptions) (*Result, error) {
	pieces := newPieces(ctx, sink, opt.Workers)
	w := &writer{ctx: ctx, opt: opt, pieces: pieces, links: map[inode]string{}, bad: &Unrestorable{}, result: &Result{}}
	err := w.write(root)
	members, perr := pieces.finish()
	if perr != nil { // the cause of err, where both failed
		return nil, perr
	}
	if err != nil {
		return nil, err
	}
	w.result.Members = members
	return w.result, nil
}

type inode struct{ dev, ino uint64 }

type writer struct {
	ctx    context.Context
	opt    WriteOptions
	walker *walker
	pieces *pieces
	cut    cutter
	group  []byte           // the piece being filled
	links  map[inode]string // first names of files that have several
	bad    *Unrestorable
	result *Result
	xbuf   []byte
	small  []byte
}

func (w *writer) write(root *disk.Dir) error {
	var err error
	if w.walker, err = newWalker(w.visit); err != nil {
		return err
	}
	defer w.walker.close()
	if err := w.walker.walk(root); err != nil {
		return err
	}
	if err := w.bad.err(); err != nil {
		return err
	}
	w.group = append(w.group, zeros[:2*block]...)
	return w.flush()
}

func (w *writer) visit(n *node) error {
	if err := w.ctx.Err(); err != nil {
		return context.Cause(w.ctx)
	}
	e := &Entry{
		Name: n.name, Mode: n.st.Mode & 0o7777, UID: n.st.Uid, GID: n.st.Gid,
		Mtime: timespec(n.st.Mtim),
	}
	switch n.kind() {
	case unix.S_IFDIR:
		return w.directory(n, e)
	case unix.S_IFREG:
		return w.regular(n, e)
	case unix.S_IFLNK:
		return w.symlink(n, e)
	case unix.S_IFSOCK:
		w.result.Sockets++
		return nil
	}
	w.bad.kind(n)
	return nil
}

func kindName(kind uint32) string {
	switch kind {
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFBLK:
		return "block device"
	case unix.S_IFCHR:
		return "character device"
	}
	return "entry of unknown type"
}

func timespec(t unix.Timespec) Timespec { return Timespec{t.Sec, t.Nsec} }

func (w *writer) directory(n *node, e *Entry) error {
	fd, err := disk.Openat2(n.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0, resolve)
	if err != nil {
		return fail("open", n.name, err)
	}
	e.Type = Directory
	e.Xattrs, w.xbuf, err = readXattrs(fd, w.xbuf)
	unix.Close(fd)
	if err != nil {
		return fail("read the extended attributes of", n.name, err)
	}
	return w.plain(n, e)
}

func (w *writer) symlink(n *node, e *Entry) error {
	if w.opt.RejectSymlinks {
		w.bad.symlink(n.name)
		return nil
	}
	e.Type = Symlink
	var err error
	if e.Link, err = n.target(); err != nil {
		return err
	}
	return w.plain(n, e)
}

func (w *writer) regular(n *node, e *Entry) error {
	if n.st.Nlink > 1 {
		id := inode{n.st.Dev, n.st.Ino}
		if first, ok := w.links[id]; ok {
			e.Type, e.Link = Hardlink, first
			return w.plain(n, e)
		}
		w.links[id] = n.name
	}
	e.Type = Regular
	return w.file(n, e)
}

// plain stores an entry that has no content.
func (w *writer) plain(n *node, e *Entry) error {
	if _, err := w.header(n, e, len(w.pieces.list)); err != nil {
		return err
	}
	return w.endSmall(e)
}

// header appends e's header to the group. It reports false where e cannot be
// kept, which has then been noted.
func (w *writer) header(n *node, e *Entry, member int) (kept bool, err error) {
	group, err := appendHeader(w.group, e)
	if err != nil {
		w.bad.add(err.Error())
		return false, nil
	}
	w.group = group
	w.result.Stats.add(e)
	if w.result.Stats.Bytes < 0 { // holes make files of any size
		return false, fmt.Errorf("%q: the files of the volume are larger, taken together, than can be counted", e.Name)
	}
	if w.opt.Index == nil {
		return true, nil
	}
	return true, w.opt.Index(&Line{Entry: *e, Ctime: timespec(n.st.Ctim), Inode: n.st.Ino, Member: member})
}

func (w *writer) endSmall(e *Entry) error {
	if w.cut.after(e, len(w.group)) {
		return w.flush()
	}
	return nil
}

func (w *writer) flush() error {
	if len(w.group) == 0 {
		return nil
	}
	piece := w.group
	w.group, w.cut.weight = w.pieces.buffer(), 0
	return w.pieces.put(piece)
}

// attempts is how often a file that changes while it is read is read again.
const attempts = 3

// file stores a regular file. A file that is not the same after reading as it
// was before is read again.
func (w *writer) file(n *node, e *Entry) error {
	f, err := w.walker.open(n)
	if err != nil {
		return err
	}
	defer f.Close()
	for try := 1; ; try++ {
		if err := w.stat(f, n, e); err != nil {
			return err
		}
		stable, err := w.attempt(f, n, e, try == attempts)
		if err != nil || stable {
			return err
		}
		if try == attempts {
			w.result.ChangedCount++
			if len(w.result.Changed) < 5 {
				w.result.Changed = append(w.result.Changed, n.name)
			}
			return nil
		}
	}
}

// stat brings n and e up to what the open file is now.
func (w *writer) stat(f *os.File, n *node, e *Entry) error {
	fd := int(f.Fd())
	if err := disk.Retry(func() error { return unix.Fstat(fd, &n.st) }); err != nil {
		return fail("stat", n.name, err)
	}
	e.Mode, e.UID, e.GID = n.st.Mode&0o7777, n.st.Uid, n.st.Gid
	e.Mtime, e.Size, e.Extents = timespec(n.st.Mtim), n.st.Size, nil
	var err error
	if e.Xattrs, w.xbuf, err = readXattrs(fd, w.xbuf); err != nil {
		return fail("read the extended attributes of", n.name, err)
	}
	// st_blocks counts 512 bytes whatever the block size is (stat(2)).
	if n.st.Blocks*512 < n.st.Size {
		e.Extents, err = extents(f, e.Size)
	}
	return err
}

// attempt stores the file once. It reports whether the file stayed the same;
// when it did not, nothing is kept unless this is the last attempt.
func (w *writer) attempt(f *os.File, n *node, e *Entry, last bool) (bool, error) {
	if large(e.Size) {
		return w.attemptLarge(f, n, e, last)
	}
	w.small = w.small[:0]
	data, torn, err := readExactly(content(f, e), w.small, e.stored())
	if err != nil {
		return false, fail("read", n.name, err)
	}
	w.small = data
	stable := !torn && unchanged(f, n)
	if !stable && !last {
		return false, nil
	}
	if kept, err := w.header(n, e, len(w.pieces.list)); err != nil || !kept {
		return true, err
	}
	w.group = append(w.group, data...)
	w.group = appendPadding(w.group, int64(len(data)))
	return stable, w.endSmall(e)
}

// attemptLarge puts the header behind what the group holds, ends the group,
// and stores the content in pieces of its own: a file whose metadata alone
// change shares all of them, and one that changes in place shares the rest.
func (w *writer) attemptLarge(f *os.File, n *node, e *Entry, last bool) (bool, error) {
	before := append(w.pieces.buffer(), w.group...)
	mark, stats := w.pieces.mark(), w.result.Stats
	var line *Line
	index := w.opt.Index
	w.opt.Index = func(l *Line) error { line = l; return nil } // held back until the file is stored
	kept, err := w.header(n, e, mark)
	w.opt.Index = index
	if err != nil || !kept {
		return true, err
	}
	torn, err := w.largeContent(f, n, e)
	if err != nil {
		return false, err
	}
	stable := !torn && unchanged(f, n)
	if !stable && !last {
		w.pieces.rewind(mark)
		w.result.Stats, w.group = stats, before
		return false, nil
	}
	if index != nil {
		return stable, index(line)
	}
	return stable, nil
}

func (w *writer) largeContent(f *os.File, n *node, e *Entry) (torn bool, err error) {
	if err := w.flush(); err != nil {
		return false, err
	}
	r := content(f, e)
	for left := e.stored(); left > 0; {
		size := min(left, pieceSize)
		data, short, err := readExactly(r, w.group, size)
		if err != nil {
			return torn, fail("read", n.name, err)
		}
		torn = torn || short
		w.group = data
		if left -= size; left == 0 {
			w.group = appendPadding(w.group, e.stored())
		}
		if err := w.flush(); err != nil {
			return torn, err
		}
	}
	return torn, nil
}

// readExactly appends n bytes of r to buf. Where r ends early the rest is
// zeros, and torn says so: the file has been cut meanwhile.
func readExactly(r io.Reader, buf []byte, n int64) (data []byte, torn bool, err error) {
	start := len(buf)
	if need := start + int(n); cap(buf) < need {
		buf = append(make([]byte, 0, need+block), buf...)
	}
	buf = buf[:start+int(n)]
	got, err := io.ReadFull(r, buf[start:])
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		torn, err = n > 0, nil
	}
	clear(buf[start+got:])
	return buf, torn, err
}

// unchanged reports whether the file is, by its size and times, what it was
// when its header was made.
func unchanged(f *os.File, n *node) bool {
	var st unix.Stat_t
	if err := disk.Retry(func() error { return unix.Fstat(int(f.Fd()), &st) }); err != nil {
		return false
	}
	return st.Size == n.st.Size && st.Mtim == n.st.Mtim && st.Ctim == n.st.Ctim
}
