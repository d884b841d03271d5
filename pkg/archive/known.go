package archive

import (
	"errors"
	"io"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// Known is what an earlier reading of the same directory saw and stored. A file that
// Known proves to be unchanged is not read again. Where the earlier reading cut its
// stream, this one does too (cut.go), and that needs no proof.
//
// The proof is the file's handle, size and times. It is valid only on a filesystem
// whose times show every change ([disk.Dir.TimesProve]), and only for a file whose
// times are earlier than Since. The kernel updates ctime when a page of a mapped file
// becomes writable, but not with every later store to that page. So a page that was
// writable before the earlier reading may have been changed after it without a new
// ctime. A syncfs makes all pages read-only. Since is the time when the last syncfs
// before the earlier reading began, minus the most by which a time stamp may be older
// than the change.
type Known struct {
	// Next returns the lines of the earlier reading in order, and io.EOF after the
	// last. Write returns any other error.
	Next func() (*Line, error)
	// Members is the earlier stream. The Member and Span of a line count in it.
	Members []member.Member
	Since   tarstream.Timespec // the zero time proves nothing
	// Loose says that an entry with the same headers counts as unchanged. That is for a
	// sink which wants only some members, by their checksums, and for which Reuse reports
	// false: nothing comes of the others.
	Loose bool
	// Reuse reports whether the sink still has m, and returns m as the sink stores
	// it. If it reports false, the files are read.
	Reuse func(m member.Member) (stored member.Member, ok bool, err error)
}

// sighting is a line of the earlier reading, and its place there.
type sighting struct {
	*Line
	before *Line // nil for the first line
	last   bool  // the line ends its member, or the members that its content fills
}

// recall goes through the lines of an earlier reading during a walk.
type recall struct {
	known        *Known
	before, next *Line // two lines that follow one another; nil before the first and after the last
	member       int   // that of the last line whose name was met again; -1 before the first
}

func newRecall(k *Known) (*recall, error) {
	r := &recall{known: k, member: -1}
	if k == nil {
		return r, nil
	}
	return r, r.step()
}

// ErrOrder means that an earlier reading is not one.
var ErrOrder = errors.New("the lines of an index are out of order")

func (r *recall) step() error {
	line, err := r.known.Next()
	if errors.Is(err, io.EOF) {
		r.before, r.next = r.next, nil
		return nil
	}
	if err != nil {
		return err
	}
	if r.next != nil && (tarstream.Order(r.next.Name, line.Name) >= 0 || line.Member < r.next.Member) {
		return ErrOrder
	}
	if line.Member < 0 || line.Span < 0 || line.Member+line.Span >= len(r.known.Members) {
		return ErrOrder
	}
	r.before, r.next = r.next, line
	return nil
}

// unchanged returns what the earlier reading saw under the name of e if that proves e
// to be unchanged, and nil otherwise. It also returns the place of e there. Names must
// come in the order of the walk.
func (r *recall) unchanged(n *node, e *tarstream.Entry) (*sighting, place, error) {
	for r.next != nil && tarstream.Order(r.next.Name, e.Name) < 0 {
		if err := r.step(); err != nil {
			return nil, place{}, err
		}
	}
	if r.next == nil || r.next.Name != e.Name {
		return nil, place{}, nil
	}
	s := &sighting{Line: r.next, before: r.before}
	at := place{same: s.like(e), first: s.Member != r.member}
	r.member = s.Member
	if err := r.step(); err != nil {
		return nil, at, err
	}
	if r.next != nil {
		s.last = r.next.Member != s.Member
	} else { // only the end of the stream can follow
		s.last = len(r.known.Members) > s.Member+s.Span+1
	}
	if at.last = s.last; !at.same {
		return nil, at, nil
	}
	if same, err := r.known.proves(s.Line, n, e); err != nil || !same {
		return nil, at, err
	}
	return s, at, nil
}

// like reports whether e has the headers that were stored, extended attributes aside.
func (l *Line) like(e *tarstream.Entry) bool {
	return l.Type == e.Type && l.Mode == e.Mode && l.UID == e.UID && l.GID == e.GID && l.Mtime == e.Mtime &&
		(e.Type != tarstream.Hardlink || l.Link == e.Link) && (e.Type != tarstream.Regular || l.Size == e.Size)
}

// proves reports whether n, which becomes the entry e and is like l, is the unchanged
// file of l.
func (k *Known) proves(l *Line, n *node, e *tarstream.Entry) (bool, error) {
	ctime := timespec(n.st.Ctim)
	if k.Loose {
		return true, nil
	}
	if l.Ctime != ctime || l.Inode != n.st.Ino || k.Since == (tarstream.Timespec{}) || !ctime.Before(k.Since) || !e.Mtime.Before(k.Since) {
		return false, nil
	}
	handle, err := n.handle()
	return err == nil && handle == l.Handle, err
}
