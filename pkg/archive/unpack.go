package archive

import (
	"bufio"
	"bytes"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// foreignWindow is the largest window of a zstd frame, and so the memory that a foreign
// archive may take. It is the limit of zstd -d itself (zstd(1), --memory). Archives
// made with --long=28 or more exceed it, and are refused.
const foreignWindow = 128 << 20

// unpack returns the tar stream in a .tar, .tar.gz or .tar.zst, which it tells apart
// by their first bytes. Several gzip members or zstd frames may follow one another.
func unpack(in io.Reader) (io.ReadCloser, error) {
	buf := bufio.NewReaderSize(in, 64<<10)
	head, err := buf.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		zr, err := pgzip.NewReader(buf)
		if err != nil {
			return nil, member.Refuse("not a gzip file: %w", err)
		}
		return zr, nil
	case isZstd(head):
		// With a concurrency of 1 it starts no goroutine, which could hang on a pipe
		// that nobody closes. The second limit applies to frames without a window.
		zr, err := zstd.NewReader(buf, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(foreignWindow), zstd.WithDecoderMaxMemory(foreignWindow))
		if err != nil {
			return nil, member.Refuse("not a zstd file: %w", err)
		}
		return zr.IOReadCloser(), nil
	}
	if head, err = buf.Peek(tarstream.Block); err != nil && err != io.EOF {
		return nil, err
	}
	if tarstream.IsTar(head) {
		return io.NopCloser(buf), nil
	}
	return nil, member.Refuse("it is not a tar archive, neither plain nor compressed with gzip or zstd")
}

// isZstd reports whether head begins a zstd frame, or a skippable frame, with which
// some compressors begin (RFC 8878, sections 3.1.1 and 3.1.2).
func isZstd(head []byte) bool {
	return bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")) ||
		len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte("\x2a\x4d\x18"))
}
