package archive

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

// ahead is how many bytes of a stream are in memory at a time, inflated and not
// yet written. One member is always let in, however large.
const ahead = 16 << 20

// slabSize is the size of the buffers into which a stream is read that does not
// come in members.
const slabSize = 256 << 10

// stream is a tar stream in stretches of any length; io.EOF ends it. The caller
// releases each stretch.
type stream interface{ stretch() (*buffer, error) }

// buffer is a part of a stream in memory. Several goroutines may hold it: what
// is written is a slice of it, not a copy.
type buffer struct {
	b    []byte
	refs atomic.Int32
	free func() // called by the last release
}

func newBuffer(b []byte, free func()) *buffer {
	buf := &buffer{b: b, free: free}
	buf.refs.Store(1)
	return buf
}

func (b *buffer) hold() *buffer {
	b.refs.Add(1)
	return b
}

// release ends a hold. A nil buffer is held by nobody.
func (b *buffer) release() {
	if b != nil && b.refs.Add(-1) == 0 {
		b.free()
	}
}

// room bounds the bytes in memory. One goroutine takes, any give back.
type room struct {
	mu    sync.Mutex
	used  int64
	freed chan struct{}
}

func newRoom() *room { return &room{freed: make(chan struct{}, 1)} }

// take waits until n bytes are free, or all are: then n may be any number.
func (r *room) take(ctx context.Context, n int64) error {
	for {
		r.mu.Lock()
		fits := r.used == 0 || r.used+n <= ahead
		if fits {
			r.used += n
		}
		r.mu.Unlock()
		if fits {
			return nil
		}
		select {
		case <-r.freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (r *room) give(n int64) {
	r.mu.Lock()
	r.used -= n
	r.mu.Unlock()
	select {
	case r.freed <- struct{}{}:
	default: // the taker is told already
	}
}

// slabs are buffers of slabSize bytes that are used again.
type slabs struct {
	ctx  context.Context
	room *room
	free sync.Pool
}

func newSlabs(ctx context.Context) *slabs { return &slabs{ctx: ctx, room: newRoom()} }

func (s *slabs) get() (*buffer, error) {
	if err := s.room.take(s.ctx, slabSize); err != nil {
		return nil, err
	}
	b, ok := s.free.Get().(*[slabSize]byte)
	if !ok {
		b = new([slabSize]byte)
	}
	return newBuffer(b[:], func() {
		s.free.Put(b)
		s.room.give(slabSize)
	}), nil
}

// copied is the stream of any reader.
type copied struct {
	r     io.Reader
	slabs *slabs
	err   error // what r has answered
}

func (c *copied) stretch() (*buffer, error) {
	if c.err != nil {
		return nil, c.err
	}
	buf, err := c.slabs.get()
	if err != nil {
		return nil, err
	}
	var n int
	for n < len(buf.b) && c.err == nil {
		var got int
		got, c.err = c.r.Read(buf.b[n:])
		n += got
	}
	if buf.b = buf.b[:n]; n == 0 && !errors.Is(c.err, io.EOF) {
		buf.release()
		return nil, c.err
	}
	return buf, nil
}
