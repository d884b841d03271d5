package archive

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/disk"
)

// attempts is how many times a file that changes while it is read is read.
const attempts = 3

// file stores a regular file. A file that has changed while it was read is read
// again.
func (w *Writing) file(n *node, e *tarstream.Entry, seen *sighting) error {
	f, err := w.walker.open(n)
	if err != nil {
		return err
	}
	defer f.close()
	for try := 1; ; try++ {
		// The first attempt uses the stat of the walk, from a moment ago. If the file
		// has changed since, unchanged reports it like any other change.
		if try > 1 {
			at := n.st.Ctim
			if err := disk.Retry(func() error { return unix.Fstat(f.fd, &n.st) }); err != nil {
				return fail("stat", n.name, err)
			}
			if n.st.Ctim != at { // the earlier reading no longer applies
				seen = nil
			}
		}
		if err := w.describe(f, n, e); err != nil {
			return err
		}
		last := try == attempts || w.opt.Once
		stable, err := w.attempt(f, n, e, seen, last)
		if err != nil || stable {
			return err
		}
		if last {
			w.changed(n.name)
			return nil
		}
	}
}

// describe updates e from the stat of n and from the open file.
func (w *Writing) describe(f *live, n *node, e *tarstream.Entry) error {
	e.Mode, e.UID, e.GID = n.st.Mode&0o7777, n.st.Uid, n.st.Gid
	e.Mtime, e.Size, e.Extents = timespec(n.st.Mtim), n.st.Size, nil
	err := w.readXattrs(f.fd, n, e)
	// st_blocks counts 512 bytes whatever the block size is (stat(2)).
	if err == nil && n.st.Blocks*512 < n.st.Size {
		e.Extents, err = extents(f, e.Size)
	}
	return err
}

// attempt stores the file once. It reports whether the file stayed the same. If the
// file changed, what was stored is dropped, unless this is the last attempt.
func (w *Writing) attempt(f *live, n *node, e *tarstream.Entry, seen *sighting, last bool) (stable bool, err error) {
	if e.Size > largeSize { // its content ends the group
		w.before = append(w.before[:0], w.group...)
	}
	group, mark, clones := len(w.group), w.pieces.Mark(), len(w.clones)
	line, err := w.header(n, e)
	if err != nil || line == nil {
		return true, err
	}
	torn, err := w.content(f, e, seen)
	if err != nil {
		return false, err
	}
	stable = !torn && unchanged(f, n)
	if stable || last {
		line.Span = max(w.pieces.Mark()-mark-1, 0)
		return stable, w.note(line)
	}
	if e.Size > largeSize {
		w.group = append(w.group[:0], w.before...)
	}
	w.group = w.group[:group]
	w.pieces.Rewind(mark)
	w.unclone(clones)
	return false, nil
}

// content stores what follows the header: that of a small file in the group, and that
// of a large one in pieces of its own, after the group. So a large file of which only
// the metadata changes shares all of its pieces, and one that changes in place shares
// the pieces that did not change. Content that ends early is torn.
func (w *Writing) content(f *live, e *tarstream.Entry, seen *sighting) (torn bool, err error) {
	if e.Size <= largeSize {
		n := e.Stored()
		if w.group, torn, err = readExactly(content(f, e), w.group, n); err != nil {
			return false, fail("read", e.Name, err)
		}
		w.group = tarstream.AppendPadding(w.group, n)
		w.result.Read += n
		return torn, nil
	}
	done, err := w.sameContent(e, seen)
	if err == nil && !done {
		done, err = w.cloned(f, e)
	}
	if err != nil || done {
		return false, err
	}
	if err := w.flush(); err != nil {
		return false, err
	}
	return w.readLarge(f, e, w.pieces.Put)
}

// readLarge reads the content of a large file, and calls put with each piece.
func (w *Writing) readLarge(f io.ReaderAt, e *tarstream.Entry, put func(tar []byte) error) (torn bool, err error) {
	r := content(f, e)
	for left := e.Stored(); left > 0; {
		size := min(left, member.PieceSize)
		data, short, err := readExactly(r, w.pieces.Buffer(), size)
		if err != nil {
			return torn, fail("read", e.Name, err)
		}
		torn = torn || short
		w.result.Read += size
		if left -= size; left == 0 {
			data = tarstream.AppendPadding(data, e.Stored())
		}
		if err := put(data); err != nil {
			return torn, err
		}
	}
	return torn, nil
}

// readExactly appends n bytes of r to buf. If r ends early, the rest is zeros and
// torn is true: the file has been truncated in the meantime.
func readExactly(r io.Reader, buf []byte, n int64) (data []byte, torn bool, err error) {
	start := len(buf)
	if need := start + int(n); cap(buf) < need {
		buf = append(make([]byte, 0, need+tarstream.Block), buf...)
	}
	buf = buf[:start+int(n)]
	got, err := io.ReadFull(r, buf[start:])
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		torn, err = n > 0, nil
	}
	clear(buf[start+got:])
	return buf, torn, err
}

// unchanged reports whether the size and the times of the file are still what they
// were when its header was made.
func unchanged(f *live, n *node) bool {
	var st unix.Stat_t
	if err := disk.Retry(func() error { return unix.Fstat(f.fd, &st) }); err != nil {
		return false
	}
	return st.Size == n.st.Size && st.Mtim == n.st.Mtim && st.Ctim == n.st.Ctim
}
