package archive

import (
	"bytes"
	"context"
	"io"
	"runtime"
	"sync"
)

// Opener gives the bytes of a member as the store has them.
type Opener interface {
	Open(m Member) ([]byte, error)
}

// NewReader returns the tar stream of the members, in order. They are inflated
// and checked against their names on several cores, a few ahead of the reader;
// no byte of a member is given out before the whole of it was found true. The
// error of a member that is not wraps [ErrRefused].
func NewReader(ctx context.Context, from Opener, members []Member) *Reader {
	r := &Reader{ahead: make(chan chan inflated, 2*inflating())}
	r.ctx, r.cancel = context.WithCancel(ctx)
	r.done.Go(func() { r.feed(from, members) })
	return r
}

// Reader is a tar stream; see [NewReader]. Close it when done.
type Reader struct {
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
	ahead  chan chan inflated
	now    bytes.Reader
	err    error
}

// inflating is how many members are inflated at a time. Four keep one extraction
// busy, and a forged member may have MaxMember bytes, on a host of any size.
func inflating() int { return min(runtime.GOMAXPROCS(0), 4) }

type inflated struct {
	tar []byte
	err error
}

func (r *Reader) feed(from Opener, members []Member) {
	defer close(r.ahead)
	limit := make(chan struct{}, inflating())
	for _, m := range members {
		out := make(chan inflated, 1)
		select {
		case r.ahead <- out:
		case <-r.ctx.Done():
			return
		}
		limit <- struct{}{}
		r.done.Go(func() {
			defer func() { <-limit }()
			data, err := from.Open(m)
			if err != nil {
				out <- inflated{err: err}
				return
			}
			tar, err := Inflate(data, m)
			out <- inflated{tar, err}
		})
	}
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	for r.now.Len() == 0 {
		if r.err != nil {
			return 0, r.err
		}
		out, ok := <-r.ahead
		if !ok {
			if r.err = context.Cause(r.ctx); r.err == nil {
				r.err = io.EOF
			}
			continue
		}
		next := <-out
		if r.err = next.err; r.err == nil {
			r.now.Reset(next.tar)
		}
	}
	return r.now.Read(p)
}

// Close ends the inflating. When it returns nothing is opened any more.
func (r *Reader) Close() {
	r.cancel()
	r.done.Wait()
}
