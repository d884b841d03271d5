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

// Line is what the index keeps of one name.
type Line struct {
	tarstream.Entry
	Ctime  tarstream.Timespec
	Inode  uint64
	Handle string // of the inode ([disk.FileHandle])
	Member int    // index, in Result.Members, of the member where the entry begins
	Span   int    // how many members behind it hold nothing but its content
	Data   int64  // bytes of its content without holes
}

// WriteOptions say how a volume is to be read.
type WriteOptions struct {
	// RejectSymlinks makes a symbolic link something that cannot be restored.
	RejectSymlinks bool
	// Index, when set, is given every name in order.
	Index func(*Line) error
	// Known, when set, is what need not be read again.
	Known *Known
	// Clones, when set, is a directory on the filesystem of the volume. Of a large
	// file that has to be read a clone is made there, where the filesystem can,
	// and read by [Writing.Finish].
	Clones *disk.Dir
	// Writers is how many of them keep clones at the same time, and share what
	// descriptors there are for them; 0 means one.
	Writers int
	// Leases is how long leases on files that are to be read are waited for,
	// all of them together (fcntl(2), F_SETLEASE); 0 means two minutes.
	Leases time.Duration
	// Once reads a file that changes while it is read only once: it will be read
	// again by a later pass.
	Once bool
	// Workers is how many goroutines compress; 0 means one a core.
	Workers int
}

// Result is a volume as it was written.
type Result struct {
	Members []member.Member
	Stats   tarstream.Stats
	Sockets int64 // left out: a socket means nothing without its process
	// Reused are names of which nothing was read, Read bytes of content that
	// were.
	Reused int64
	Read   int64
	// Changed are files that changed while they were read, each time anew, so
	// that what was stored of them is no single state, and names that vanished
	// before they were read. The first few, and how many.
	Changed      []string
	ChangedCount int64
}

// Write reads the directory root, which anybody may be changing, and gives its
// tar stream in pieces to sink. The pieces are cut by cutter's rule. An error
// is returned when something cannot be read, or as [*Unrestorable] when it
// could not be put back; nothing that sink has taken then means anything.
func Write(ctx context.Context, root *disk.Dir, sink member.Sink, opt WriteOptions) (*Result, error) {
	w, err := Start(ctx, root, sink, opt)
	if err != nil {
		return nil, err
	}
	return w.Finish()
}

// Writing is a directory that has been walked, and that is not needed any more:
// what is still to be read are clones.
type Writing struct{ w *writer }

// Start is the first half of [Write], the one for which nothing may write to
// root where its content is to be of one moment. After an error there is no
// second half.
func Start(ctx context.Context, root *disk.Dir, sink member.Sink, opt WriteOptions) (*Writing, error) {
	pieces := member.NewPieces(ctx, sink, opt.Workers)
	w := &writer{
		ctx: ctx, opt: opt, pieces: pieces, links: map[inode]string{}, bad: &Unrestorable{}, result: &Result{},
		mostWaiting: mostOpen(maxWaiting), mostClones: mostOpen(maxClones) / max(opt.Writers, 1),
	}
	if err := w.write(root); err != nil {
		w.closeClones()
		if _, perr := pieces.Finish(); perr != nil { // the cause of err, where both failed
			err = perr
		}
		return nil, err
	}
	return &Writing{w}, nil
}

// Cloned returns how many bytes Finish is going to read from clones.
func (x *Writing) Cloned() (n int64) {
	for _, c := range x.w.clones {
		n += c.e.Stored()
	}
	return n
}

// Finish is the second half: it reads the clones and waits for the sink.
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

// Abandon ends the writing instead of Finish.
func (x *Writing) Abandon() {
	x.w.closeClones()
	x.w.pieces.Abandon(errAbandoned)
}

var errAbandoned = errors.New("the capture was given up")

// inode is a file, whatever its names. The handle tells it from a later one that
// has been given the number of one that was removed while the walk went on.
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
	group  []byte // the piece being filled
	recall *recall
	// waiting are entries that are to be in group when it is known to have
	// changed; group is empty then.
	waiting []waiting
	links   map[inode]string // first names of files that have several
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

// seen returns what the earlier reading saw of e, where that proves e to be
// unchanged, and nil otherwise.
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

// store reads an entry and puts it into the stream; seen is not nil where it is
// unchanged.
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

// regular tells whether a file is a further name of one that has been met.
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

// header appends e's header to the group, and returns e's line, which is still
// to be noted; nil where e cannot be kept, which has then been noted.
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

// note counts an entry that is in the stream, and gives it to the index.
func (w *writer) note(line *Line) error {
	w.result.Stats.Count(line.Name, line.Type, line.Size, line.Data)
	if w.result.Stats.Bytes < 0 { // holes make files of any size
		return fmt.Errorf("%q: the files of the volume are larger, taken together, than can be counted", line.Name)
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

// letGo closes what still waits after an error.
func (w *writer) letGo() {
	for _, x := range w.waiting {
		x.node.release()
	}
	w.waiting = nil
}

// changed notes a name of which no single state was stored.
func (w *writer) changed(name string) {
	w.result.ChangedCount++
	if len(w.result.Changed) < 5 {
		w.result.Changed = append(w.result.Changed, name)
	}
}
