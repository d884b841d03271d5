package archive

import (
	"io"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/disk"
)

const (
	// A dense file of reserveFrom bytes and more gets its blocks by
	// fallocate(2), reserveAhead at a time: a size that is forged may promise
	// more than ever follows, and must not fill the disk.
	reserveFrom  = 2 << 20
	reserveAhead = 16 << 20
	// holeSize is the least run of zeros that becomes a hole where a foreign
	// archive's sparse file is written.
	holeSize = 64 << 10
)

// output lays the content of one entry out in its file.
type output struct {
	fd       int
	entry    *tarstream.Entry
	left     int64             // content that has not been written
	at       int64             // where it goes
	extent   int               // of a sparse file: the next one
	room     int64             // of a sparse file: what is left of the last one
	reserved int64             // the file has blocks up to here
	wrote    func(bytes int64) // nil, or told of each write
}

// write writes the next content, never more than the entry has.
func (o *output) write(b []byte) error {
	o.left -= int64(len(b))
	if o.entry.ZeroHoles {
		return o.sparing(b)
	}
	if !o.entry.Sparse() {
		o.reserve(int64(len(b)))
		return o.pwrite(b)
	}
	for len(b) > 0 {
		for o.room == 0 { // extents may be empty
			x := o.entry.Extents[o.extent]
			o.extent++
			o.at, o.room = x.Offset, x.Length
		}
		n := min(o.room, int64(len(b)))
		if err := o.pwrite(b[:n]); err != nil {
			return err
		}
		b, o.room = b[n:], o.room-n
	}
	return nil
}

// sparing leaves holes where b has nothing but zeros.
func (o *output) sparing(b []byte) error {
	for len(b) > 0 {
		part := b[:min(holeSize, len(b))]
		if b = b[len(part):]; tarstream.IsZero(part) {
			o.at += int64(len(part))
		} else if err := o.pwrite(part); err != nil {
			return err
		}
	}
	return nil
}

// reserve gives the file blocks for the next n bytes and some ahead of them. It
// is a hint: where it fails, as on a filesystem that has no fallocate, writing
// tells what is the matter.
func (o *output) reserve(n int64) {
	if o.entry.Size < reserveFrom || o.at+n <= o.reserved {
		return
	}
	more := min(max(n, reserveAhead), o.entry.Size-o.at)
	_ = disk.Retry(func() error { return unix.Fallocate(o.fd, unix.FALLOC_FL_KEEP_SIZE, o.at, more) })
	o.reserved = o.at + more
}

func (o *output) pwrite(b []byte) error {
	for len(b) > 0 {
		n, err := disk.RetryValue(func() (int, error) { return unix.Pwrite(o.fd, b[:min(len(b), disk.WriteSize)], o.at) })
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return fail("write", o.entry.Name, err)
		}
		b, o.at = b[n:], o.at+int64(n)
		if o.wrote != nil {
			o.wrote(int64(n))
		}
	}
	return nil
}

// end gives the file its size: a hole at its end was not written.
func (o *output) end() error {
	if !o.entry.Sparse() && !o.entry.ZeroHoles {
		return nil
	}
	return wrapIf("truncate", o.entry.Name, disk.Retry(func() error { return unix.Ftruncate(o.fd, o.entry.Size) }))
}
