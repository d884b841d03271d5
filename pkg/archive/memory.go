package archive

import (
	"context"
	"sync"
)

// memory is what one member is read and inflated into. It is used again and
// again: memory that the kernel has yet to give costs as much as to inflate.
type memory struct{ stored, tar []byte }

// mostKept is the size of what is kept for the next member: that of any piece
// that Write makes, and the room that inflating it takes. More than that only a
// forged member has.
const mostKept = pieceSize + pieceSize/16

var memories = sync.Pool{New: func() any { return new(memory) }}

func newMemory() *memory { return memories.Get().(*memory) }

// free ends the use of both parts.
func (m *memory) free() {
	if cap(m.stored) > mostKept {
		m.stored = nil
	}
	if cap(m.tar) > mostKept {
		m.tar = nil
	}
	memories.Put(m)
}

// inflate reads a member and inflates it. The result is valid until m is free.
func (m *memory) inflate(ctx context.Context, from Opener, member Member) ([]byte, error) {
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

// Check inflates a member, throws the content away, and returns why it is not
// what its name says; see [Inflate].
func Check(ctx context.Context, from Opener, member Member) error {
	m := newMemory()
	defer m.free()
	_, err := m.inflate(ctx, from, member)
	return err
}
