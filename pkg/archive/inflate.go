package archive

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
)

// Opener gives the bytes of a member as the store has them: in the memory of buf,
// whatever that holds, where its capacity is enough, else in new memory. Either
// is the caller's, who may give it to the next call.
type Opener interface {
	Open(ctx context.Context, m Member, buf []byte) ([]byte, error)
}

// NewReader returns the tar stream of the members, in order. They are inflated
// and checked against their names on several cores, a few ahead of the reader;
// no byte of a member is given out before the whole of it was found true. The
// error of a member that is not wraps [ErrRefused].
func NewReader(ctx context.Context, from Opener, members []Member) *Reader {
	return newReader(ctx, from, members, func(ctx context.Context, mem *memory, from Opener, m Member) ([]byte, error) {
		return mem.inflate(ctx, from, m)
	})
}

// taking makes of a member what a Reader gives out, in memory that is the
// member's alone until the reader has passed it.
type taking func(ctx context.Context, mem *memory, from Opener, m Member) ([]byte, error)

// newReader is NewReader of what take makes of the members.
func newReader(ctx context.Context, from Opener, members []Member, take taking) *Reader {
	r := &Reader{from: from, take: take, members: members, ahead: make(chan chan inflated, 2*inflating()), room: newRoom()}
	r.ctx, r.cancel = context.WithCancel(ctx)
	r.done.Go(r.feed)
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
	room    *room
	taken   int          // members that were taken out of ahead
	skipped atomic.Int64 // members before this one need not be inflated any more

	now  *buffer
	rest []byte // what of now has not been read
	err  error
}

// inflating is how many members are inflated at a time. Four keep one extraction
// busy, and a forged member may have MaxMember bytes, on a host of any size.
func inflating() int { return min(runtime.GOMAXPROCS(0), 4) }

type inflated struct {
	tar *buffer // nil for a member that is skipped
	err error
}

func (r *Reader) feed() {
	defer close(r.ahead)
	limit := make(chan struct{}, inflating())
	for i, m := range r.members {
		size := min(max(m.Tar, 1), MaxMember) // forged sizes are refused by Inflate
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
			out <- r.inflate(i, m, func() { r.room.give(size) })
		})
	}
}

func (r *Reader) inflate(i int, m Member, free func()) inflated {
	if int64(i) < r.skipped.Load() || r.ctx.Err() != nil {
		free()
		return inflated{err: context.Cause(r.ctx)}
	}
	mem := newMemory()
	data, err := r.take(r.ctx, mem, r.from, m)
	if err != nil {
		mem.free()
		free()
		return inflated{err: err}
	}
	return inflated{tar: newBuffer(data, func() {
		mem.free()
		free()
	})}
}

// stretch returns the next member, which the caller releases. Its error is the
// last word.
func (r *Reader) stretch() (*buffer, error) {
	for r.err == nil {
		out, ok := <-r.ahead
		if !ok {
			if r.err = context.Cause(r.ctx); r.err == nil {
				r.err = io.EOF
			}
			break
		}
		next := <-out
		r.taken++
		if int64(r.taken) <= r.skipped.Load() {
			next.tar.release()
			continue
		}
		if next.err == nil {
			return next.tar, nil
		}
		r.err = next.err
	}
	return nil, r.err
}

// upcoming returns the members from the next one on whose tar bytes are
// together exactly size; nil where a member crosses that end.
func (r *Reader) upcoming(size int64) []Member {
	n := r.taken
	for ; n < len(r.members) && size > 0 && r.members[n].Tar > 0; n++ {
		size -= r.members[n].Tar
	}
	if size != 0 {
		return nil
	}
	return r.members[r.taken:n]
}

// skip passes over the next n members. Those that nobody is inflating yet will
// not be.
func (r *Reader) skip(n int) { r.skipped.Store(int64(r.taken + n)) }

// more makes rest hold something.
func (r *Reader) more() error {
	for len(r.rest) == 0 {
		r.now.release()
		var err error
		if r.now, err = r.stretch(); err != nil {
			return err
		}
		r.rest = r.now.b
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

// WriteTo implements io.WriterTo: whole members are written, nothing is copied.
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

// Close ends the inflating. When it returns nothing is opened any more.
func (r *Reader) Close() {
	r.cancel()
	r.done.Wait()
}
