package member

import (
	"context"
	"sync"
)

// Memory is what one member is read and inflated into. It is used again and
// again: memory that the kernel has yet to give costs as much as to inflate.
type Memory struct{ stored, tar []byte }

// mostKept is the size of the memory that is kept for the next member: enough for
// any piece of a capture and for inflating it. Only a forged member needs more.
const mostKept = PieceSize + PieceSize/16

var memories = sync.Pool{New: func() any { return new(Memory) }}

// NewMemory returns memory for one member at a time. Call Free when done.
func NewMemory() *Memory { return memories.Get().(*Memory) }

// Free gives the memory back. What Inflate returned is then invalid.
func (m *Memory) Free() {
	if cap(m.stored) > mostKept {
		m.stored = nil
	}
	if cap(m.tar) > mostKept {
		m.tar = nil
	}
	memories.Put(m)
}

// Inflate reads a member and inflates it. The result is valid until Free is called.
func (m *Memory) Inflate(ctx context.Context, from Opener, member Member) ([]byte, error) {
	data, err := from.Open(ctx, member, m.stored)
	if err != nil {
		return nil, err
	}
	m.stored = data
	tar, err := Inflate(m.tar, data, member)
	if err == nil {
		m.tar = tar
	}
	return tar, err
}

// Check inflates a member and discards the content. It returns why the member is
// not what its ID says; see [Inflate].
func Check(ctx context.Context, from Opener, member Member) error {
	m := NewMemory()
	defer m.Free()
	_, err := m.Inflate(ctx, from, member)
	return err
}
