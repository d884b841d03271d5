package member

import (
	"context"
	"io"
)

// Join writes the members to w as one file of codec, which gzip or zstd and tar can
// unpack. Members that are stored in codec are written as they are, others are
// compressed again. Each member is inflated and checked before a byte of it is
// written, several members at a time. When a member is not what its ID says, the
// error wraps [ErrRefused], and w holds a part of the file.
func Join(ctx context.Context, w io.Writer, from Opener, members []Member, codec Codec) error {
	r := newReader(ctx, from, members, func(ctx context.Context, mem *Memory, from Opener, m Member) ([]byte, error) {
		tar, err := mem.Inflate(ctx, from, m)
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
