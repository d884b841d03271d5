package member

import (
	"context"
	"errors"
	"io"
)

// Join writes the members to w as one file of codec, which gzip or zstd and tar can
// unpack. Members that are stored in codec are written as they are, others are
// compressed again. Each member is inflated and checked before a byte of it is
// written, several members at a time. When a member is not what its ID says, the
// error wraps [ErrRefused], and w holds a part of the file.
func Join(ctx context.Context, w io.Writer, from Opener, members []Member, codec Codec) error {
	r := newReader(ctx, from, members, func(mem *Memory, ctx context.Context, from Opener, m Member) ([]byte, error) {
		tar, err := mem.Inflate(ctx, from, m)
		if err != nil || m.Codec == codec {
			return mem.stored, err
		}
		mem.stored = codec.Deflate(mem.stored[:0], tar)
		return mem.stored, nil
	})
	defer r.Close()
	for {
		buf, err := r.Stretch()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		_, err = w.Write(buf.Bytes)
		buf.Release()
		if err != nil {
			return err
		}
	}
}
