package member

import (
	"context"
	"errors"
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

// NewReader returns the tar stream of the members, in order. Several members at a
// time are inflated and checked against their IDs, a few of them before the caller
// asks. No byte of a member is returned before the whole member has been checked.
// When a member is not what its ID says, the error wraps [ErrRefused].
func NewReader(ctx context.Context, from Opener, members []Member) *Reader {
	return newReader(ctx, from, members, func(ctx context.Context, mem *Memory, from Opener, m Member) ([]byte, error) {
		return mem.Inflate(ctx, from, m)
	})
}

// taking turns a member into what a Reader returns for it. The memory belongs to
// this member alone until the reader has passed it.
type taking func(ctx context.Context, mem *Memory, from Opener, m Member) ([]byte, error)

// newReader is NewReader for what take returns for each member.
func newReader(ctx context.Context, from Opener, members []Member, take taking) *Reader {
	r := &Reader{from: from, take: take, members: members, ahead: make(chan chan inflated, 2*inflating()), room: newRoom()}
	r.ctx, r.cancel = context.WithCancel(ctx)
	r.done.Go(func() {
		defer close(r.ahead)
		r.fed = crew.Catch(func() error { r.feed(); return nil })
	})
	return r
}

// Reader is a tar stream; see [NewReader]. Close it when done.
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

	now  *Buffer
	rest []byte // the part of now that has not been read
	err  error
}

// inflating is how many members are inflated at a time. Four are enough to keep an
// extraction busy. More would cost memory, since a forged member may have MaxMember
// bytes.
func inflating() int { return min(runtime.GOMAXPROCS(0), 4) }

type inflated struct {
	tar *Buffer // nil for a skipped member
	err error
}

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
			if err := crew.Catch(func() error { got = r.inflate(i, m, func() { r.room.give(size) }); return nil }); err != nil {
				got.err = err
			}
			out <- got
		})
	}
}

func (r *Reader) inflate(i int, m Member, free func()) inflated {
	if int64(i) < r.skipped.Load() || r.ctx.Err() != nil {
		free()
		return inflated{err: context.Cause(r.ctx)}
	}
	mem := NewMemory()
	data, err := r.take(r.ctx, mem, r.from, m)
	if err != nil {
		mem.Free()
		free()
		return inflated{err: err}
	}
	return inflated{tar: newBuffer(data, func() {
		mem.Free()
		free()
	})}
}

// Stretch returns the next member, which the caller releases. After an error it
// returns the same error again.
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

// Opener returns where the members come from.
func (r *Reader) Opener() Opener { return r.from }

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

// Skip passes over the next n members. A member whose inflating has not begun will
// not be inflated.
func (r *Reader) Skip(n int) { r.skipped.Store(int64(r.taken + n)) }

// more fills rest if it is empty.
func (r *Reader) more() error {
	for len(r.rest) == 0 {
		r.now.Release()
		var err error
		if r.now, err = r.Stretch(); err != nil {
			return err
		}
		r.rest = r.now.Bytes
	}
	return nil
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if err := r.more(); err != nil {
		return 0, err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// WriteTo implements io.WriterTo. It writes whole members without copying them.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		if err := r.more(); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return total, err
		}
		n, err := w.Write(r.rest)
		total += int64(n)
		if r.rest = r.rest[n:]; err != nil {
			return total, err
		}
	}
}

// Close stops the inflating. After Close has returned, no member is being opened.
func (r *Reader) Close() {
	r.cancel()
	r.done.Wait()
}
