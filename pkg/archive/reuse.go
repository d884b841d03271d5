package archive

import (
	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// A group of the stream whose entries are all unchanged, and are the same
// entries as before, is the same bytes as before: it is taken over without a
// look at any content. Until the end of the group is reached that is not yet
// known, so the entries wait, with their inodes held open. Where something else
// turns up among them, they are read after all.

// maxWaiting is how many inodes may be held open where there are descriptors
// enough: no group has more names. A group for which there are too few is read.
const maxWaiting = 512

// waiting is an entry that is unchanged, in a group that may be.
type waiting struct {
	node *node
	e    *tarstream.Entry
	seen *sighting
}

// await takes e where the group is, as far as it goes, one of the earlier
// reading. Where it is not, that settles what has been waiting.
func (w *writer) await(n *node, e *tarstream.Entry, seen *sighting) (bool, error) {
	if seen == nil || !w.continues(seen) || len(w.waiting) >= w.mostWaiting {
		return false, w.readWaiting()
	}
	w.waiting = append(w.waiting, waiting{n.hold(), e, seen})
	if !seen.last {
		return true, nil
	}
	_, err := w.reuse()
	return true, err
}

func (w *writer) continues(seen *sighting) bool {
	if len(w.waiting) == 0 {
		return len(w.group) == 0 && seen.first
	}
	before := w.waiting[len(w.waiting)-1].seen
	return seen.seq == before.seq+1 && seen.Member == before.Member
}

// reuse takes over the members of the group that has been waiting. Where the
// sink has them no longer it is read, and the answer is false.
func (w *writer) reuse() (bool, error) {
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
	for _, x := range w.waiting {
		x.node.release()
		line := *x.seen.Line
		line.Member = at
		if err := w.note(&line); err != nil {
			return false, err
		}
	}
	w.waiting = w.waiting[:0]
	return true, nil
}

// stored returns n members of the earlier reading, or nil where the sink has not
// all of them.
func (w *writer) stored(from, n int) ([]member.Member, error) {
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

// readWaiting stores the entries that have been waiting as if nothing had been
// known of them.
func (w *writer) readWaiting() error {
	list := w.waiting
	w.waiting = nil
	var err error
	for _, x := range list {
		if err == nil {
			err = w.store(x.node, x.e, nil)
		}
		x.node.release()
	}
	w.waiting = list[:0]
	return err
}

// reuseEnd ends the stream with the last member of the earlier reading, which
// holds the end as well, where all that is left waits for just that.
func (w *writer) reuseEnd() (done bool, err error) {
	if len(w.waiting) == 0 {
		return false, nil
	}
	last := w.waiting[len(w.waiting)-1].seen
	if last.final && len(w.opt.Known.Members) == last.Member+1 {
		return w.reuse()
	}
	return false, w.readWaiting()
}

// sameContent takes over the content of a large file that is unchanged, behind
// a header that is made anew. A sparse file is read: where its data lie is
// found out with every reading, and the kernel may have moved that.
func (w *writer) sameContent(e *tarstream.Entry, seen *sighting) (bool, error) {
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
