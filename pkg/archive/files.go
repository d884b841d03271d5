package archive

import (
	"context"
	"syscall"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

const (
	// A batch is small enough that all writers end at about the same time, and large
	// enough that passing it to a writer costs little compared with writing it.
	batchFiles = 32
	batchBytes = 256 << 10
	// chunksAhead is how many chunks of a large file wait for its writer.
	chunksAhead = 4
)

// mostDirs is how many directories may be open because files are still to be created
// in them, if the process may open enough descriptors.
const mostDirs = 256

// mostOpen returns how many descriptors a part of the package may hold that asks for
// many: at most a quarter of what this process may open.
func mostOpen(many int) int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1
	}
	return int(min(max(limit.Cur/4, 1), uint64(many)))
}

// file passes a regular file to the writers.
func (x *extractor) file(e *tarstream.Entry) error {
	dir, base, err := x.parent(e.Name)
	if err != nil {
		return err
	}
	f := file{place: x.place, entry: e, dir: dir.hold(), base: base}
	if e.Stored() > largeSize {
		return x.large(f)
	}
	var buf *member.Buffer
	if f.data, buf, err = x.content(e.Stored()); err != nil {
		f.dir.release()
		return err
	}
	x.add(f, buf)
	return nil
}

// content returns all n bytes of the content of a small file. They are a part of the
// buffer if they lie together, and a copy otherwise.
func (x *extractor) content(n int64) ([]byte, *member.Buffer, error) {
	var all []byte
	for int64(len(all)) < n {
		part, buf, err := x.src.Take(n - int64(len(all)))
		if err != nil || int64(len(part)) == n {
			return part, buf, err
		}
		if all == nil {
			all = make([]byte, 0, n)
		}
		all = append(all, part...)
	}
	return all, nil, nil
}

// add puts a small file into the batch. The source flushes the batch before it moves
// on to another buffer, so one hold is enough for all files of a batch.
func (x *extractor) add(f file, buf *member.Buffer) {
	if x.batch == nil {
		x.batch = &batch{files: make([]file, 0, batchFiles)}
	}
	b := x.batch
	b.files = append(b.files, f)
	b.bytes += int64(len(f.data)) + sizeOf(f.entry.Xattrs)
	if b.content == nil && buf != nil {
		b.content = buf.Hold()
	}
	if len(b.files) == batchFiles || b.bytes >= batchBytes {
		x.flush()
	}
	if x.cursor.open.Load() >= x.mostOpen+int64(len(x.cursor.levels)) {
		x.flush()
		x.writers.busy.Wait()
	}
}

// flush passes the batch to a writer.
func (x *extractor) flush() {
	if b := x.batch; b != nil {
		x.batch = nil
		x.writers.put(b)
	}
}

// large passes a file to a writer, and then its content as the stream is read.
func (x *extractor) large(f file) error {
	x.flush()
	b := &batch{files: []file{f}, large: make(chan chunk, chunksAhead)}
	defer close(b.large)
	if x.parser != nil && x.opt.Supply != nil {
		if b.members = x.parser.Members(); b.members != nil {
			b.fill = x.opt.Supply(f.entry, b.members)
		}
		if b.fill != nil {
			b.from = x.parser.PassOver(b.members)
			x.writers.put(b)
			return nil
		}
	}
	x.writers.put(b)
	for left := f.entry.Stored(); left > 0; {
		part, buf, err := x.src.Take(left)
		if err != nil {
			return err
		}
		left -= int64(len(part))
		select {
		case b.large <- chunk{part, buf.Hold()}:
		case <-x.writers.failed:
			buf.Release()
			return errStopped
		case <-x.ctx.Done():
			buf.Release()
			return context.Cause(x.ctx)
		}
	}
	return nil
}
