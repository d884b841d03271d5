package member

import (
	"context"
	"sync/atomic"
)

// ahead is how many inflated bytes of a stream may be in memory at a time, before
// they are written. One member is always admitted, however large it is.
const ahead = 16 << 20

// Buffer is a part of a stream in memory. Several goroutines may hold it, since
// they write slices of it and not copies.
type Buffer struct {
	Bytes []byte
	refs  atomic.Int32
	free  func() // called by the last release
}

func newBuffer(b []byte, free func()) *Buffer {
	buf := &Buffer{Bytes: b, free: free}
	buf.refs.Store(1)
	return buf
}

// Hold keeps the buffer in memory until Release has been called once more. Both do
// nothing for a nil buffer, which stands for memory that is not used again.
func (b *Buffer) Hold() *Buffer {
	if b != nil {
		b.refs.Add(1)
	}
	return b
}

// Release ends a hold.
func (b *Buffer) Release() {
	if b != nil && b.refs.Add(-1) == 0 {
		b.free()
	}
}

// room bounds the bytes in memory. Only one goroutine calls take; any goroutine may
// call give.
type room struct {
	used  atomic.Int64
	freed chan struct{}
}

func newRoom() *room { return &room{freed: make(chan struct{}, 1)} }

// take waits until n bytes are free. When all bytes are free, n may be any number.
func (r *room) take(ctx context.Context, n int64) error {
	for used := r.used.Load(); used > 0 && used+n > ahead; used = r.used.Load() {
		select {
		case <-r.freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	r.used.Add(n)
	return nil
}

func (r *room) give(n int64) {
	r.used.Add(-n)
	select {
	case r.freed <- struct{}{}:
	default: // the goroutine that waits has been told already
	}
}
