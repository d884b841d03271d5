package member

import (
	"context"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/tiny-forge/snap/pkg/crew"
)

// Opener reads members from the store.
type Opener interface {
	// Open returns the stored bytes of a member. They lie in the memory of buf if
	// its capacity is large enough, else in new memory. The memory belongs to the
	// caller, who may pass it to the next call.
	Open(ctx context.Context, m Member, buf []byte) ([]byte, error)
}

// Reader gives out a tar stream member by member. Close it when done.
type Reader struct {
	ctx     context.Context
	cancel  context.CancelFunc
	done    sync.WaitGroup
	from    Opener
	take    taking
	members []Member
	ahead   chan chan inflated
	fed     error // a panic of feed; to be read when ahead is closed
	room    *room
	taken   int          // how many members were received from ahead
	skipped atomic.Int64 // members before this one need not be inflated
	err     error
}

// taking turns a member into what a Reader returns for it. The memory belongs to
// this member alone until the reader has passed it.
type taking func(mem *Memory, ctx context.Context, from Opener, m Member) ([]byte, error)

type inflated struct {
	tar *Buffer // nil for a skipped member
	err error
}

// NewReader returns the tar stream of the members, in order. Several members at a
// time are inflated and checked against their IDs, a few of them before the caller
// asks. No byte of a member is returned before the whole member has been checked.
// When a member is not what its ID says, the error wraps [ErrRefused].
func NewReader(ctx context.Context, from Opener, members []Member) *Reader {
	return newReader(ctx, from, members, (*Memory).Inflate)
}

func newReader(ctx context.Context, from Opener, members []Member, take taking) *Reader {
	r := &Reader{from: from, take: take, members: members, ahead: make(chan chan inflated, 2*inflating()), room: newRoom()}
	r.ctx, r.cancel = context.WithCancel(ctx)
	r.done.Go(func() {
		defer close(r.ahead)
		r.fed = crew.Catch(func() error { r.feed(); return nil })
	})
	return r
}

// inflating is how many members are inflated at a time. Four are enough to keep an
// extraction busy. More would cost memory, since a forged member may have MaxMember
// bytes.
func inflating() int { return min(runtime.GOMAXPROCS(0), 4) }

func (r *Reader) feed() {
	limit := make(chan struct{}, inflating())
	for i, m := range r.members {
		size := min(max(m.Tar, 1), MaxMember) // Inflate refuses forged sizes
		if r.room.take(r.ctx, size) != nil {
			return
		}
		out := make(chan inflated, 1)
		select {
		case r.ahead <- out:
		case <-r.ctx.Done():
			return
		}
		limit <- struct{}{}
		r.done.Go(func() {
			defer func() { <-limit }()
			var got inflated
			got.err = crew.Catch(func() (err error) {
				got.tar, err = r.inflate(i, m, func() { r.room.give(size) })
				return err
			})
			out <- got
		})
	}
}

func (r *Reader) inflate(i int, m Member, free func()) (*Buffer, error) {
	if int64(i) < r.skipped.Load() || r.ctx.Err() != nil {
		free()
		return nil, context.Cause(r.ctx)
	}
	mem := NewMemory()
	buf := newBuffer(nil, func() {
		mem.Free()
		free()
	})
	var err error
	if buf.Bytes, err = r.take(mem, r.ctx, r.from, m); err != nil {
		buf.Release()
		return nil, err
	}
	return buf, nil
}

// Stretch returns the next member, which the caller releases, and io.EOF at the end.
// After an error it returns the same error again.
func (r *Reader) Stretch() (*Buffer, error) {
	for r.err == nil {
		out, ok := <-r.ahead
		if !ok {
			crew.Raise(r.fed)
			if r.err = context.Cause(r.ctx); r.err == nil {
				r.err = io.EOF
			}
			break
		}
		next := <-out
		crew.Raise(next.err)
		r.taken++
		if int64(r.taken) <= r.skipped.Load() {
			next.tar.Release()
			continue
		}
		if next.err == nil {
			return next.tar, nil
		}
		r.err = next.err
	}
	return nil, r.err
}

// Upcoming returns the next members that have exactly size tar bytes in total, and
// nil if a member crosses that end.
func (r *Reader) Upcoming(size int64) []Member {
	n := r.taken
	for ; n < len(r.members) && size > 0 && r.members[n].Tar > 0; n++ {
		size -= r.members[n].Tar
	}
	if size != 0 {
		return nil
	}
	return r.members[r.taken:n]
}

// Opener returns where the members come from.
func (r *Reader) Opener() Opener { return r.from }

// Skip passes over the next n members. A member whose inflating has not begun will
// not be inflated.
func (r *Reader) Skip(n int) { r.skipped.Store(int64(r.taken + n)) }

// At returns which member Stretch returns next, counted from 0.
func (r *Reader) At() int { return max(r.taken, int(r.skipped.Load())) }

// Close stops the inflating. After Close has returned, no member is being opened.
func (r *Reader) Close() {
	r.cancel()
	r.done.Wait()
}
