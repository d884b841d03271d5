package archive

import (
	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// A group of the stream has the same bytes as before if it has the same entries as
// before, all unchanged, and is then reused without reading any content. That shows
// only at the end of the group. Until then the entries wait, with their inodes held
// open. If another entry appears among them, they are read after all.

// maxWaiting is how many inodes may be held open, if the process may open enough
// descriptors. No group has more names. If there are too few descriptors for a group,
// it is read.
const maxWaiting = 512

// waiting is an unchanged entry of a group that may be unchanged.
type waiting struct {
	node *node
	e    *tarstream.Entry
	seen *sighting
	at   place
}

// await lets e wait if the group so far is one of the earlier reading. If it is not,
// await reads the entries that were waiting, ends the group where it ends before e, and
// reports false.
func (w *Writing) await(n *node, e *tarstream.Entry, seen *sighting, at place) (bool, error) {
	if seen == nil || !w.continues(seen) || len(w.waiting) >= w.mostWaiting {
		if err := w.readWaiting(); err != nil {
			return false, err
		}
	}
	if len(w.waiting) == 0 {
		if err := w.begin(e, at); err != nil || seen == nil || !w.continues(seen) || w.mostWaiting == 0 {
			return false, err
		}
	}
	w.waiting = append(w.waiting, waiting{n.hold(), e, seen, at})
	if !seen.last {
		return true, nil
	}
	_, err := w.reuse()
	return true, err
}

// continues reports whether seen is the next line of the member that waits, or the
// first line of a member when a group begins.
func (w *Writing) continues(seen *sighting) bool {
	if len(w.waiting) == 0 {
		return len(w.group) == 0 && (seen.before == nil || seen.before.Member != seen.Member)
	}
	last := w.waiting[len(w.waiting)-1].seen
	return seen.before == last.Line && seen.Member == last.Member
}

// reuse reuses the members of the group that was waiting. If the sink no longer has
// them, the group is read, and reuse reports false.
func (w *Writing) reuse() (bool, error) {
	last := w.waiting[len(w.waiting)-1].seen
	members, err := w.stored(last.Member, last.Span+1)
	if err != nil {
		return false, err
	}
	if members == nil {
		return false, w.readWaiting()
	}
	at := w.pieces.Mark()
	w.pieces.Add(members)
	w.result.Reused += int64(len(w.waiting))
	return true, w.endWaiting(func(x waiting) error {
		line := *x.seen.Line
		line.Member = at
		return w.note(&line)
	})
}

// stored returns n members of the earlier reading, or nil if the sink does not have
// all of them.
func (w *Writing) stored(from, n int) ([]member.Member, error) {
	members := make([]member.Member, 0, n)
	for _, m := range w.opt.Known.Members[from : from+n] {
		m, ok, err := w.opt.Known.Reuse(m)
		if err != nil || !ok {
			return nil, err
		}
		members = append(members, m)
	}
	return members, nil
}

// readWaiting reads and stores the entries that were waiting, as if there had been no
// earlier reading.
func (w *Writing) readWaiting() error {
	return w.endWaiting(func(x waiting) error {
		if err := w.begin(x.e, x.at); err != nil {
			return err
		}
		return w.store(x.node, x.e, nil)
	})
}

// endWaiting passes the entries that were waiting to do, up to an error, and releases
// them all.
func (w *Writing) endWaiting(do func(waiting) error) (err error) {
	list := w.waiting
	w.waiting = nil
	for _, x := range list {
		if err == nil {
			err = do(x)
		}
		x.node.release()
	}
	w.waiting = list[:0]
	return err
}

// reuseEnd ends the stream with the last member of the earlier reading, if that member
// holds exactly the entries that are waiting and the end of the stream.
func (w *Writing) reuseEnd() (done bool, err error) {
	if len(w.waiting) == 0 {
		return false, nil
	}
	last := w.waiting[len(w.waiting)-1].seen
	if w.recall.next == nil && len(w.opt.Known.Members) == last.Member+1 {
		return w.reuse()
	}
	return false, w.readWaiting()
}

// sameContent reuses the content of an unchanged large file, after a new header. A
// sparse file is read: where its data is gets looked up in every reading, and the
// kernel may have moved it.
func (w *Writing) sameContent(e *tarstream.Entry, seen *sighting) (bool, error) {
	if seen == nil || seen.Span == 0 || e.Sparse() || seen.Data != e.Size {
		return false, nil
	}
	var tar int64
	for _, m := range w.opt.Known.Members[seen.Member+1 : seen.Member+1+seen.Span] {
		tar += m.Tar
	}
	if tar != e.Size+tarstream.Padding(e.Size) {
		return false, nil
	}
	members, err := w.stored(seen.Member+1, seen.Span)
	if err != nil || members == nil {
		return false, err
	}
	if err := w.flush(); err != nil {
		return false, err
	}
	w.pieces.Add(members)
	return true, nil
}
