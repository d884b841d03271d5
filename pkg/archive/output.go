package archive

import (
	"io"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/disk"
)

const (
	// A dense file of reserveFrom bytes or more gets its blocks from fallocate(2),
	// reserveAhead bytes at a time. A forged size may be larger than the content, and
	// must not fill the disk.
	reserveFrom  = 2 << 20
	reserveAhead = 16 << 20
)

// output writes the content of one entry to its file.
type output struct {
	fd       int
	entry    *tarstream.Entry
	left     int64             // bytes that have not been written
	at       int64             // where the next byte goes
	extent   int               // of a sparse file: the next extent
	room     int64             // of a sparse file: how much of the last extent is left
	reserved int64             // blocks are reserved up to here
	wrote    func(bytes int64) // if not nil, called after each write
}

// write writes the next bytes. The caller never passes more than the entry has.
func (o *output) write(b []byte) error {
	o.left -= int64(len(b))
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

// reserve reserves blocks for the next n bytes and for some after them. It is only a
// hint: if it fails, as on a filesystem without fallocate, the write itself reports
// any problem.
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

// end sets the size of the file, because a hole at its end was not written.
func (o *output) end() error {
	if !o.entry.Sparse() {
		return nil
	}
	return wrapIf("truncate", o.entry.Name, disk.Retry(func() error { return unix.Ftruncate(o.fd, o.entry.Size) }))
}
