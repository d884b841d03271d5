package archive

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// The levels of this library, which by itself stores what does not compress.
// Pieces of a large file: level 4 packs a PostgreSQL directory like gzip -6 at
// six times its speed, level 2 8 % worse for a sixth less time. Groups of small
// files, which are mostly text: level 2 takes two thirds of the time of 3, 60 %
// of that of 4, and packs 2 and 3 % worse (12 % worse than gzip -6).
const (
	gzipFull  = 4 // of whole pieces of a large file
	gzipShort = 2
)

var (
	fullDeflaters  = deflaters(gzipFull)
	shortDeflaters = deflaters(gzipShort)
	inflaters      = sync.Pool{New: func() any { return new(gzip.Reader) }}
)

func deflaters(level int) *sync.Pool {
	return &sync.Pool{New: func() any {
		w, err := gzip.NewWriterLevel(io.Discard, level)
		if err != nil {
			panic(err) // the level is a constant
		}
		return w
	}}
}

func deflateGzip(dst, tar []byte) []byte {
	if cap(dst) == 0 {
		dst = make([]byte, 0, len(tar)/2+64)
	}
	out := bytes.NewBuffer(dst)
	pool := shortDeflaters
	if len(tar) >= pieceSize {
		pool = fullDeflaters
	}
	w := pool.Get().(*gzip.Writer)
	defer pool.Put(w)
	w.Reset(out)
	// Writing to a bytes.Buffer cannot fail.
	_, _ = w.Write(tar)
	_ = w.Close()
	return out.Bytes()
}

// inflateGzip takes data that is one gzip member of exactly size bytes into buf,
// which has roomFor(size).
func inflateGzip(buf, data []byte, size int64) ([]byte, error) {
	in := bytes.NewReader(data)
	r := inflaters.Get().(*gzip.Reader)
	defer inflaters.Put(r)
	if err := r.Reset(in); err != nil {
		return nil, fmt.Errorf("not gzip: %w", err)
	}
	r.Multistream(false)
	tar := buf[:size+1]
	n, err := fill(r, tar)
	switch {
	case err == nil:
		return nil, pastDeclared(size)
	case err != io.EOF: // io.ErrUnexpectedEOF too: gzip's word for a cut member
		return nil, err
	case int64(n) != size:
		return nil, notDeclared(int64(n), size)
	case in.Len() > 0:
		return nil, behind(in.Len())
	}
	return tar[:n], nil
}

// fill reads until buf is full or r fails. Unlike io.ReadFull it returns r's own
// error, so that the end of a member and a member that is cut stay two things.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var got int
		got, err = r.Read(buf[n:])
		n += got
	}
	if n == len(buf) {
		return n, nil
	}
	return n, err
}
