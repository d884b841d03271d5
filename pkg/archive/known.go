package archive

import (
	"errors"
	"io"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// Known is what an earlier reading of the same directory saw and stored. What
// it proves to be unchanged is not read again.
//
// The proof of a file is its handle, its size and its times, and it holds only
// on a filesystem whose times say all ([disk.Dir.TimesProve]) and for what had
// no time at or after Since: the kernel moves ctime when a page of a mapped
// file becomes writable, not with every store to it, so a page that was
// writable before the reading may have been stored to behind it. A syncfs takes
// that away from all pages; Since is when the one before the earlier reading
// began, less what a time may be older than the change that it stamps.
type Known struct {
	// Next returns the lines of the earlier reading in their order, and io.EOF
	// behind the last. Any other error ends the writing with it.
	Next func() (*Line, error)
	// Members is the stream that the lines' members count through.
	Members []member.Member
	Since   tarstream.Timespec
	// Reuse asks whether the sink can do without being given m once more, and
	// returns m as it has it. With false the files are read.
	Reuse func(m member.Member) (stored member.Member, ok bool, err error)
}

// sighting is a line of the earlier reading and where it stood.
type sighting struct {
	*Line
	seq   int  // its place among the lines
	first bool // it begins a member
	last  bool // its member, or what its content fills, ends with it
	final bool // no line follows
}

// recall goes through the lines of an earlier reading beside a walk.
type recall struct {
	known *Known
	next  *Line // nil behind the last
	seq   int   // of next
	begun int   // the member that the line before next began in; -1 before the first
}

func newRecall(k *Known) (*recall, error) {
	r := &recall{known: k, seq: -1, begun: -1}
	if k == nil {
		return r, nil
	}
	return r, r.step()
}

var errOrder = errors.New("the lines of an index are out of order")

func (r *recall) step() error {
	before := r.next
	if before != nil {
		r.begun = before.Member
	}
	line, err := r.known.Next()
	r.seq++
	if errors.Is(err, io.EOF) {
		r.next = nil
		return nil
	}
	if err != nil {
		return err
	}
	if before != nil && (order(before.Name, line.Name) >= 0 || line.Member < before.Member) {
		return errOrder
	}
	if line.Member < 0 || line.Span < 0 || line.Member+line.Span >= len(r.known.Members) {
		return errOrder
	}
	r.next = line
	return nil
}

// find returns what the earlier reading saw under a name, nil where it saw
// nothing. Names come in the order of the walk.
func (r *recall) find(name string) (*sighting, error) {
	for r.next != nil && order(r.next.Name, name) < 0 {
		if err := r.step(); err != nil {
			return nil, err
		}
	}
	if r.next == nil || r.next.Name != name {
		return nil, nil
	}
	s := &sighting{Line: r.next, seq: r.seq, first: r.begun != r.next.Member}
	if err := r.step(); err != nil {
		return nil, err
	}
	s.final = r.next == nil
	if s.final { // what stands behind it can only be the end of the stream
		s.last = len(r.known.Members) > s.Member+s.Span+1
	} else {
		s.last = r.next.Member != s.Member
	}
	return s, nil
}

// order compares two names as the walk meets them: by components, a directory
// before what is in it.
func order(a, b string) int {
	if a == b {
		return 0
	}
	if a == tarstream.Root {
		return -1
	}
	if b == tarstream.Root {
		return 1
	}
	for i := range min(len(a), len(b)) {
		switch x, y := a[i], b[i]; {
		case x == y:
		case x == '/':
			return -1
		case y == '/':
			return 1
		case x < y:
			return -1
		default:
			return 1
		}
	}
	return len(a) - len(b)
}

// proves reports whether n, which is to become the entry e, is what l saw.
func (k *Known) proves(l *Line, n *node, e *tarstream.Entry) (bool, error) {
	ctime := timespec(n.st.Ctim)
	same := l.Type == e.Type && hardlinkOf(&l.Entry) == hardlinkOf(e) && l.Mode == e.Mode && l.UID == e.UID && l.GID == e.GID &&
		l.Mtime == e.Mtime && l.Ctime == ctime && l.Inode == n.st.Ino && (e.Type != tarstream.Regular || l.Size == n.st.Size)
	if !same || !ctime.Before(k.Since) || !e.Mtime.Before(k.Since) {
		return false, nil
	}
	handle, err := n.handle()
	return err == nil && handle == l.Handle, err
}

// hardlinkOf returns the first name of the file that e is a further name of.
func hardlinkOf(e *tarstream.Entry) string {
	if e.Type == tarstream.Hardlink {
		return e.Link
	}
	return ""
}
