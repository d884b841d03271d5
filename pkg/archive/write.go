package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/disk"
)

// Line is what the index records about one name.
type Line struct {
	tarstream.Entry
	Ctime  tarstream.Timespec
	Inode  uint64
	Handle string // the handle of the inode ([disk.FileHandle])
	Member int    // the index in Result.Members of the member where the entry begins
	Span   int    // how many members after that one hold only its content
	Data   int64  // bytes of its content, without holes
}

// WriteOptions control how a volume is read.
type WriteOptions struct {
	// RejectSymlinks treats a symbolic link as an entry that cannot be restored.
	RejectSymlinks bool
	// Index, if set, is called with each name in order. Write returns its error.
	Index func(*Line) error
	// Known, if set, is an earlier reading. Unchanged files are not read again.
	Known *Known
	// Clones, if set, is a directory on the filesystem of the volume. Start makes
	// clones of large files there, if the filesystem can, and [Writing.Finish] reads
	// the clones.
	Clones *disk.Dir
	// Writers is how many Writings keep clones at the same time. They share the
	// descriptors for clones. 0 means one.
	Writers int
	// Leases is how long the walk waits in total for leases on files (fcntl(2),
	// F_SETLEASE). 0 means two minutes.
	Leases time.Duration
	// Once reads a file only once even if it changes in the meantime, because a later
	// pass reads it again.
	Once bool
	// Workers is how many goroutines compress. 0 means one per core.
	Workers int
}

// Result describes a volume that was written.
type Result struct {
	Members []member.Member
	Stats   tarstream.Stats
	Sockets int64 // how many were left out: a socket is useless without its process
	// Reused is how many names were taken from the earlier reading. Read is how many
	// bytes of content were read.
	Reused int64
	Read   int64
	// Changed lists files that changed during every attempt to read them, so that no
	// single state of them was stored, and names that vanished before they were read.
	// It has the first few, and ChangedCount counts all.
	Changed      []string
	ChangedCount int64
}

// Write reads the directory root, which anybody may be changing, and passes its tar
// stream to sink in pieces. cut.go has the rule for the pieces. Write returns an error
// if something cannot be read, and [*Unrestorable] if something could not be restored.
// After an error the pieces that sink has stored mean nothing.
func Write(ctx context.Context, root *disk.Dir, sink member.Sink, opt WriteOptions) (*Result, error) {
	w, err := Start(ctx, root, sink, opt)
	if err != nil {
		return nil, err
	}
	return w.Finish()
}

// Writing is a directory that has been walked. The directory is no longer needed: only
// clones are still to be read.
type Writing struct{ w *writer }

// Start is the first half of [Write]. If the content is to be of one moment, nothing
// may write to root during Start. After an error there is nothing to finish or
// abandon.
func Start(ctx context.Context, root *disk.Dir, sink member.Sink, opt WriteOptions) (*Writing, error) {
	pieces := member.NewPieces(ctx, sink, opt.Workers)
	w := &writer{
		ctx: ctx, opt: opt, pieces: pieces, links: map[inode]string{}, bad: &Unrestorable{}, result: &Result{},
		mostWaiting: mostOpen(maxWaiting), mostClones: mostOpen(maxClones) / max(opt.Writers, 1),
	}
	if err := w.write(root); err != nil {
		w.closeClones()
		if _, perr := pieces.Finish(); perr != nil { // if both failed, perr is the cause of err
			err = perr
		}
		return nil, err
	}
	return &Writing{w}, nil
}

// Cloned returns how many bytes Finish will read from clones.
func (x *Writing) Cloned() (n int64) {
	for _, c := range x.w.clones {
		n += c.e.Stored()
	}
	return n
}

// Finish is the second half. It reads the clones and waits for the sink. Whether it
// succeeds or fails, the clones are closed afterwards.
func (x *Writing) Finish() (*Result, error) {
	w := x.w
	err := w.readClones()
	w.closeClones()
	members, perr := w.pieces.Finish()
	if perr != nil {
		return nil, perr
	}
	if err != nil {
		return nil, err
	}
	w.result.Members = members
	return w.result, nil
}

// Abandon stops the writing and closes the clones. It takes the place of Finish.
func (x *Writing) Abandon() {
	x.w.closeClones()
	x.w.pieces.Abandon(errAbandoned)
}

var errAbandoned = errors.New("the capture was given up")

// inode identifies a file independently of its names. A file may be removed during the
// walk and a new one be given its number; the handle tells the two apart.
type inode struct {
	dev, ino uint64
	handle   string
}

type writer struct {
	ctx    context.Context
	opt    WriteOptions
	walker *walker
	pieces *member.Pieces
	cut    cutter
	group  []byte // the piece that is being filled
	recall *recall
	// waiting are the entries that go into the group if it turns out to have changed.
	// Until then the group is empty.
	waiting []waiting
	links   map[inode]string // the first names of files with several names
	bad     *Unrestorable
	result  *Result
	xbuf    []byte
	small   []byte
	before  []byte
	clones  []clone

	mostWaiting, mostClones int // see mostOpen
}

func (w *writer) write(root *disk.Dir) error {
	var err error
	if w.walker, err = newWalker(w.ctx, w.visit); err != nil {
		return err
	}
	w.walker.leases = cmp.Or(w.opt.Leases, leaseBreak)
	w.walker.vanished = w.changed
	defer w.walker.close()
	defer w.letGo()
	if w.recall, err = newRecall(w.opt.Known); err != nil {
		return err
	}
	if err := w.walker.walk(root); err != nil {
		return err
	}
	if err := w.bad.err(); err != nil {
		return err
	}
	if done, err := w.reuseEnd(); err != nil || done {
		return err
	}
	w.group = tarstream.AppendEnd(w.group)
	return w.flush()
}

func (w *writer) visit(n *node) error {
	if err := w.ctx.Err(); err != nil {
		return context.Cause(w.ctx)
	}
	e := &tarstream.Entry{
		Name: n.name, Mode: n.st.Mode & 0o7777, UID: n.st.Uid, GID: n.st.Gid,
		Mtime: timespec(n.st.Mtim),
	}
	switch n.kind() {
	case unix.S_IFDIR:
		e.Type = tarstream.Directory
	case unix.S_IFREG:
		if err := w.regular(n, e); err != nil {
			return err
		}
	case unix.S_IFLNK:
		if w.opt.RejectSymlinks {
			w.bad.symlink(n.name)
			return nil
		}
		e.Type = tarstream.Symlink
	case unix.S_IFSOCK:
		w.result.Sockets++
		return nil
	default:
		w.bad.kind(n)
		return nil
	}
	seen, err := w.seen(n, e)
	if err != nil {
		return err
	}
	if taken, err := w.await(n, e, seen); err != nil || taken {
		return err
	}
	return w.store(n, e, seen)
}

// seen returns what the earlier reading saw of e if that proves e to be unchanged, and
// nil otherwise.
func (w *writer) seen(n *node, e *tarstream.Entry) (*sighting, error) {
	seen, err := w.recall.find(n.name)
	if err != nil || seen == nil {
		return nil, err
	}
	if same, err := w.opt.Known.proves(seen.Line, n, e); err != nil || !same {
		return nil, err
	}
	return seen, nil
}

// store reads an entry and puts it into the stream. If the entry is unchanged, seen is
// not nil.
func (w *writer) store(n *node, e *tarstream.Entry, seen *sighting) error {
	switch e.Type {
	case tarstream.Directory:
		return w.directory(n, e)
	case tarstream.Symlink:
		return w.symlink(n, e)
	case tarstream.Hardlink:
		return w.plain(n, e)
	}
	return w.file(n, e, seen)
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

func timespec(t unix.Timespec) tarstream.Timespec {
	return tarstream.Timespec{Sec: t.Sec, Nsec: t.Nsec}
}

func (w *writer) directory(n *node, e *tarstream.Entry) error {
	fd, err := disk.Openat2(n.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0, resolve)
	if err != nil {
		return fail("open", n.name, err)
	}
	e.Xattrs, w.xbuf, err = readXattrs(fd, w.xbuf)
	unix.Close(fd)
	if err != nil {
		return fail("read the extended attributes of", n.name, err)
	}
	return w.plain(n, e)
}

func (w *writer) symlink(n *node, e *tarstream.Entry) error {
	var err error
	if e.Link, err = n.target(); err != nil {
		return err
	}
	return w.plain(n, e)
}

// regular makes a file a hardlink if one of its names has been visited before.
func (w *writer) regular(n *node, e *tarstream.Entry) error {
	e.Type = tarstream.Regular
	if n.st.Nlink < 2 {
		return nil
	}
	handle, err := n.handle()
	if err != nil {
		return err
	}
	id := inode{n.st.Dev, n.st.Ino, handle}
	if first, ok := w.links[id]; ok {
		e.Type, e.Link = tarstream.Hardlink, first
	} else {
		w.links[id] = n.name
	}
	return nil
}

// plain stores an entry that has no content.
func (w *writer) plain(n *node, e *tarstream.Entry) error {
	line, err := w.header(n, e)
	if err != nil || line == nil {
		return err
	}
	if err := w.note(line); err != nil {
		return err
	}
	return w.endSmall(e)
}

// header appends e's header to the group and returns e's line, which the caller passes
// to note. It returns nil if e cannot be kept, and has then added e to bad.
func (w *writer) header(n *node, e *tarstream.Entry) (*Line, error) {
	group, err := tarstream.AppendHeader(w.group, e)
	if err != nil {
		w.bad.add(err.Error())
		return nil, nil
	}
	w.group = group
	line := &Line{Entry: *e, Ctime: timespec(n.st.Ctim), Inode: n.st.Ino, Member: w.pieces.Mark()}
	if e.Type == tarstream.Regular {
		line.Data = e.Stored()
	}
	line.Handle, err = n.handle()
	return line, err
}

// note counts an entry that is in the stream, and passes it to the index.
func (w *writer) note(line *Line) error {
	w.result.Stats.Count(line.Name, line.Type, line.Size, line.Data)
	if w.result.Stats.Bytes < 0 { // sparse files may have any size
		return fmt.Errorf("%q: the total size of the files in the volume is too large to count", line.Name)
	}
	if w.opt.Index == nil {
		return nil
	}
	return w.opt.Index(line)
}

func (w *writer) endSmall(e *tarstream.Entry) error {
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
	w.group, w.cut.weight = w.pieces.Buffer(), 0
	return w.pieces.Put(piece)
}

// letGo releases the entries that are still waiting after an error.
func (w *writer) letGo() {
	for _, x := range w.waiting {
		x.node.release()
	}
	w.waiting = nil
}

// changed records a name whose content was not stored in a single state.
func (w *writer) changed(name string) {
	w.result.ChangedCount++
	if len(w.result.Changed) < 5 {
		w.result.Changed = append(w.result.Changed, name)
	}
}
