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
	// KeepPrivileges says that a restore keeps setuid and setgid bits of files,
	// capabilities and trusted.*. They are stored in any case, and otherwise count as
	// lost.
	KeepPrivileges bool
	// Special says what becomes of fifos and devices.
	Special Special
	// Exclude, if set, reports whether a name is left out, with everything below it.
	Exclude func(name string) bool
	// ExcludeCaches leaves out what is in directories with a CACHEDIR.TAG.
	ExcludeCaches bool
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
}

// Result describes a volume that was written.
type Result struct {
	Members []member.Member
	Stats   tarstream.Stats
	Sockets int64 // how many were left out: a socket is useless without its process
	Lost    []Lost
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

// Write reads root, which anybody may be changing, and passes its tar stream to sink in
// pieces. cut.go has the rule for the pieces. root is a directory, or a single file
// ([disk.Dir.OpenSingle]). Write returns an error if something cannot be read, and
// [*Unrestorable] if something could not be restored. After an error the pieces that
// sink has stored mean nothing.
func Write(ctx context.Context, root *disk.Dir, sink member.Sink, opt WriteOptions) (*Result, error) {
	w, err := Start(ctx, root, sink, opt)
	if err != nil {
		return nil, err
	}
	return w.Finish()
}

// Writing is a directory that has been walked. The directory is no longer needed: only
// clones are still to be read.
type Writing struct {
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
	census  *census
	result  *Result
	xbuf    []byte // see readXattrs
	before  []byte // the group before a large file
	clones  []clone

	mostWaiting, mostClones int // see mostOpen
}

// Start is the first half of [Write]. If the content is to be of one moment, nothing
// may write to root during Start. After an error there is nothing to abandon.
func Start(ctx context.Context, root *disk.Dir, sink member.Sink, opt WriteOptions) (*Writing, error) {
	w := &Writing{
		ctx: ctx, opt: opt, pieces: member.NewPieces(ctx, sink), result: &Result{},
		mostWaiting: mostOpen(maxWaiting), mostClones: mostOpen(maxClones) / max(opt.Writers, 1),
	}
	w.group = w.pieces.Buffer()
	if err := w.write(root); err != nil {
		w.unclone(0)
		if _, perr := w.pieces.Finish(); perr != nil { // if both failed, perr is the cause of err
			err = perr
		}
		return nil, err
	}
	return w, nil
}

// Cloned returns how many bytes Finish will read from clones.
func (w *Writing) Cloned() (n int64) {
	for _, c := range w.clones {
		n += c.e.Stored()
	}
	return n
}

// Finish is the second half. It reads the clones and waits for the sink. Whether it
// succeeds or fails, the clones are closed afterwards.
func (w *Writing) Finish() (*Result, error) {
	err := w.readClones()
	w.unclone(0)
	members, perr := w.pieces.Finish()
	if err = cmp.Or(perr, err); err != nil {
		return nil, err
	}
	w.result.Members, w.result.Sockets, w.result.Lost = members, w.census.sockets, w.census.lost.List()
	return w.result, nil
}

// Abandon stops the writing and closes the clones. It takes the place of Finish.
func (w *Writing) Abandon() {
	w.unclone(0)
	w.pieces.Abandon(errors.New("the capture was given up"))
}

func (w *Writing) write(root *disk.Dir) error {
	var err error
	if w.census, err = newCensus(root, w.opt); err != nil {
		return err
	}
	if w.walker, err = newWalker(w.ctx, w.visit, w.changed); err != nil {
		return err
	}
	w.walker.leases = cmp.Or(w.opt.Leases, leaseBreak)
	w.walker.listing, w.walker.exclude, w.walker.caches = w.census.listing, w.opt.Exclude, w.opt.ExcludeCaches
	w.walker.left = func(name string) { w.census.lost.Add(LostExcluded, name) }
	defer w.walker.close()
	defer w.endWaiting(func(waiting) error { return nil }) // after an error
	if w.recall, err = newRecall(w.opt.Known); err != nil {
		return err
	}
	if err := w.walker.walk(root); err != nil {
		return err
	}
	if err := w.census.bad.err(); err != nil {
		return err
	}
	if done, err := w.reuseEnd(); err != nil || done {
		return err
	}
	w.group = tarstream.AppendEnd(w.group)
	return w.flush()
}

func (w *Writing) visit(n *node) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	e, err := w.census.entry(n)
	if err != nil || e == nil {
		return err
	}
	seen, at, err := w.recall.unchanged(n, e)
	if err != nil {
		return err
	}
	// What is not read is not opened either. A capability counts only on an executable.
	if seen != nil && (e.Type == tarstream.Directory || e.Type == tarstream.Regular && e.Mode&0o111 != 0) {
		if err := w.census.listAttributes(n, &w.xbuf); err != nil {
			return err
		}
	}
	if taken, err := w.await(n, e, seen, at); err != nil || taken {
		return err
	}
	return w.store(n, e, seen)
}

// store reads an entry and puts it into the stream. If the entry is unchanged, seen is
// not nil.
func (w *Writing) store(n *node, e *tarstream.Entry, seen *sighting) (err error) {
	switch e.Type {
	case tarstream.Regular:
		return w.file(n, e, seen)
	case tarstream.Symlink:
		if e.Link, err = n.target(); err != nil {
			return err
		}
	case tarstream.Directory:
		if n.standIn {
			break
		}
		fd, err := disk.Openat2(n.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0, resolve)
		if err != nil {
			return fail("open", n.name, err)
		}
		err = w.readXattrs(fd, n, e)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	line, err := w.header(n, e)
	if err != nil || line == nil {
		return err
	}
	return w.note(line)
}

// header appends e's header to the group and returns e's line, which the caller passes
// to note after the content. It returns nil if e cannot be kept, and has then added e
// to the offenders.
func (w *Writing) header(n *node, e *tarstream.Entry) (*Line, error) {
	group, err := tarstream.AppendHeader(w.group, e)
	if err != nil {
		w.census.bad.add(err.Error())
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

// note counts an entry that is in the stream, passes it to the index, and ends the
// group where a group ends.
func (w *Writing) note(line *Line) error {
	w.result.Stats.Count(line.Name, line.Type, line.Size, line.Data)
	if w.result.Stats.Bytes < 0 { // sparse files may have any size
		return fmt.Errorf("%q: the total size of the files in the volume is too large to count", line.Name)
	}
	if w.opt.Index != nil {
		if err := w.opt.Index(line); err != nil {
			return err
		}
	}
	if len(w.group) > 0 && w.cut.after(&line.Entry, len(w.group)) {
		return w.flush()
	}
	return nil
}

// begin ends the group where it ends before e.
func (w *Writing) begin(e *tarstream.Entry, at place) error {
	if w.cut.before(e, at) {
		return w.flush()
	}
	return nil
}

// flush ends the group.
func (w *Writing) flush() error {
	if len(w.group) == 0 {
		return nil
	}
	piece := w.group
	w.group = w.pieces.Buffer()
	w.cut.reset()
	return w.pieces.Put(piece)
}

// changed records a name whose content was not stored in a single state.
func (w *Writing) changed(name string) {
	w.result.ChangedCount++
	if len(w.result.Changed) < 5 {
		w.result.Changed = append(w.result.Changed, name)
	}
}
