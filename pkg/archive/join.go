package archive

import (
	"context"
	"io"
)

// Join writes the members to w as one file of codec, which its own command and
// tar unpack: those that are stored so as they are, others compressed anew. Each
// is inflated and checked on the way, on several cores and a few ahead, before a
// byte of it is written. The error of a member that is not true wraps
// [ErrRefused]; w then holds a part.
func Join(ctx context.Context, w io.Writer, from Opener, members []Member, codec Codec) error {
	r := newReader(ctx, from, members, func(ctx context.Context, mem *memory, from Opener, m Member) ([]byte, error) {
		tar, err := mem.inflate(ctx, from, m)
		if err != nil || m.Codec == codec {
			return mem.stored, err
		}
		mem.stored = codec.Deflate(mem.stored[:0], tar)
		return mem.stored, nil
	})
	defer r.Close()
	_, err := io.Copy(w, r)
	return err
}
