package foreign

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// Damaged says that an archive is cut, or was changed on its way.
type Damaged struct{ err error }

func (d *Damaged) Error() string { return d.err.Error() }
func (d *Damaged) Unwrap() error { return d.err }

func damaged(format string, args ...any) error {
	return member.Refuse("%w", &Damaged{fmt.Errorf(format, args...)})
}

// window is the largest window of a zstd frame, and so the memory that an archive may
// take. It is the limit of zstd -d itself (zstd(1), --memory). Archives made with
// --long=28 or more exceed it, and are refused.
const window = 128 << 20

// mostZeros is how many zeros may follow an archive, or its last compressed piece.
// Tapes and tar pad a record; /dev/zero has no end.
const mostZeros = 4 << 30

// source is the file itself. It remembers its own error, which is not the archive's.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = fmt.Errorf("read the archive: %w", err)
	}
	return n, err
}

// Stream is the tar stream in an archive. An error of the file is returned as it is, and
// one of the compression wraps [member.ErrRefused].
type Stream struct {
	ctx  context.Context
	from *source
	r    io.Reader
	end  func()
}

// Open returns the tar stream in a .tar, .tar.gz or .tar.zst, which it tells apart by
// their first bytes. Several gzip members or zstd frames may follow one another, and
// zeros may follow the last: bsdtar pads to the end of a record what it has compressed.
// A read ends with ctx, if one of in does. The caller closes the stream.
func Open(ctx context.Context, in io.Reader) (*Stream, error) {
	s := &Stream{ctx: ctx, from: &source{r: in}, end: func() {}}
	buf := bufio.NewReaderSize(s.from, 64<<10)
	head, _ := buf.Peek(4) // an error of the file stays in s.from; a short one is not an archive
	switch {
	case s.from.err != nil:
		return nil, s.from.err
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		z := &gunzip{buf: buf}
		s.r, s.end = z, z.close
		return s, nil
	case isZstd(head):
		// With a concurrency of 1 it starts no goroutine, which could hang on a pipe
		// that nobody closes. The second limit applies to frames without a window.
		in := &frames{buf: buf}
		zr, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(window), zstd.WithDecoderMaxMemory(window))
		if err != nil {
			return nil, err
		}
		s.r, s.end = &unzstd{zr, in}, zr.Close
		return s, nil
	}
	head, err := buf.Peek(tarstream.Block)
	if s.from.err != nil {
		return nil, s.from.err
	}
	if err == nil && (tarstream.IsZero(head) || summed(head)) {
		s.r = buf
		return s, nil
	}
	return nil, member.Refuse("it is not a tar archive, neither plain nor compressed with gzip or zstd")
}

// Close frees the memory of the decoder.
func (s *Stream) Close() { s.end() }

func (s *Stream) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil { // a few bytes may inflate to many
		return 0, context.Cause(s.ctx)
	}
	n, err := s.r.Read(p)
	switch {
	case err == nil || err == io.EOF:
		return n, err
	case s.from.err != nil:
		return n, s.from.err
	case errors.Is(err, member.ErrRefused):
		return n, err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return n, damaged("it is truncated: its compressed data ends early")
	}
	return n, damaged("%w", err)
}

// gunzip inflates gzip members one by one (RFC 1952).
type gunzip struct {
	buf  *bufio.Reader
	z    *pgzip.Reader // it inflates ahead, in a goroutine of its own
	open bool          // inside a member
}

// close does not wait for the goroutine, which may be waiting for a pipe that nobody closes.
func (g *gunzip) close() {
	if g.z != nil {
		go g.z.Close()
	}
}

func (g *gunzip) Read(p []byte) (int, error) {
	for {
		if !g.open {
			if err := g.next(); err != nil {
				return 0, err
			}
		}
		n, err := g.z.Read(p)
		if err == io.EOF {
			g.open, err = false, nil
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

func (g *gunzip) next() error {
	if g.z != nil {
		if over, err := padded(g.buf); over || err != nil {
			return err
		}
	}
	// A program that knows one of the flags that RFC 1952 reserves would read something
	// else here.
	if head, err := g.buf.Peek(4); err == nil && head[3]&0xe0 != 0 {
		return member.Refuse("its gzip header has the reserved flags %#02x", head[3]&0xe0)
	}
	if g.z == nil {
		g.z = new(pgzip.Reader)
	}
	if err := g.z.Reset(g.buf); err == io.EOF {
		return io.ErrUnexpectedEOF
	} else if err != nil {
		return damaged("what follows is not gzip: %w", err)
	}
	g.z.Multistream(false)
	g.open = true
	return nil
}

// padded reads the zeros that may follow the compressed pieces. It returns io.EOF after
// them, and nil where something else comes next.
func padded(buf *bufio.Reader) (over bool, err error) {
	head, err := buf.Peek(1)
	if err != nil {
		return true, err
	}
	if head[0] != 0 {
		return false, nil
	}
	if err := onlyZeros(buf); err != nil {
		return true, err
	}
	return true, io.EOF
}

// onlyZeros reads to the end, and refuses what is not zero.
func onlyZeros(r io.Reader) error {
	chunk := make([]byte, 64<<10)
	for sum := int64(0); sum <= mostZeros; {
		n, err := r.Read(chunk)
		if !tarstream.IsZero(chunk[:n]) {
			return member.Refuse("there is data after the end")
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		sum += int64(n)
	}
	return member.Refuse("more than %d zeros follow its end", int64(mostZeros))
}

// isZstd reports whether head begins a zstd frame, or a skippable frame, with which
// some compressors begin (RFC 8878, sections 3.1.1 and 3.1.2).
func isZstd(head []byte) bool {
	return bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")) ||
		len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte("\x2a\x4d\x18"))
}

// unzstd is the decoder. It takes the end of the file for the end of the archive in the
// first bytes of a frame too.
type unzstd struct {
	*zstd.Decoder
	from *frames
}

func (u *unzstd) Read(p []byte) (int, error) {
	n, err := u.Decoder.Read(p)
	if err == io.EOF && !u.from.over {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// frames passes zstd frames on as they are, and finds where each ends: the decoder does
// not say, and takes up to three bytes after the last for its end.
type frames struct {
	buf   *bufio.Reader
	left  int64 // bytes to pass on before the next decision
	state frameState
	sum   bool // a checksum follows the last block
	begun bool // there was a frame
	over  bool // there are no more
}

type frameState int

const (
	atFrame frameState = iota
	atBlock
)

func (f *frames) Read(p []byte) (int, error) {
	for f.left == 0 {
		if err := f.decide(); err != nil {
			return 0, err
		}
	}
	n, err := f.buf.Read(p[:min(int64(len(p)), f.left)])
	if f.left -= int64(n); err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// decide looks at the next header: of a frame, or of a block.
func (f *frames) decide() error {
	if f.state == atBlock {
		b, err := f.buf.Peek(3)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		head := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
		f.left = 3 + int64(head>>3)
		if head>>1&3 == 1 { // one byte, repeated
			f.left = 3 + 1
		}
		if head&1 != 0 { // the last one
			if f.state = atFrame; f.sum {
				f.left += 4
			}
		}
		return nil
	}
	if f.begun {
		over, err := padded(f.buf)
		if f.over = err == io.EOF; over || err != nil {
			return err
		}
	}
	f.begun = true
	b, err := f.buf.Peek(zstd.HeaderMaxSize)
	if err != nil && err != io.EOF {
		return err
	}
	var h zstd.Header
	if err := h.Decode(b); errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	} else if err != nil {
		return damaged("what follows is not zstd: %w", err)
	}
	f.left = int64(h.HeaderSize)
	if h.Skippable {
		f.left += int64(h.SkippableSize)
		return nil
	}
	f.state, f.sum = atBlock, h.HasCheckSum
	return nil
}
