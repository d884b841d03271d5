package archive

import (
	"context"
	"errors"
	"math"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/crew"
	"github.com/tiny-forge/snap/pkg/disk"
)

// writers create the files of an extraction, several at a time. If several fail, the
// error that is kept is that of the entry that comes first in the archive, whichever
// happened first. Files before that entry are written, and files after it are not
// begun.
type writers struct {
	ctx  context.Context
	opt  ExtractOptions
	jobs chan *batch
	done sync.WaitGroup // the writers
	busy sync.WaitGroup // the batches that are not finished

	mu     sync.Mutex
	err    error
	at     int64         // the place of the entry whose error err is
	failed chan struct{} // closed with the first error
}

// batch is the work that one writer gets at a time: some small files, or a large one.
type batch struct {
	files   []file
	bytes   int64
	content *member.Buffer // of the small files
	large   chan chunk
	fill    Fill // of the large file, whose members are then not in large
	members []member.Member
	from    member.Opener // of the members
}

// file is a file to be created. Its hold of dir ends when it has been created.
type file struct {
	place int64
	entry *tarstream.Entry
	dir   *openDir
	base  string
	data  []byte // the content of a small file
}

// chunk is the next part of a large file.
type chunk struct {
	b   []byte
	buf *member.Buffer
}

// newWriters starts one writer per core, and at most four, because a disk gains
// nothing from more. With one core, system calls come in a fixed order.
func newWriters(ctx context.Context, opt ExtractOptions) *writers {
	n := min(runtime.GOMAXPROCS(0), 4)
	w := &writers{ctx: ctx, opt: opt, jobs: make(chan *batch, n), at: math.MaxInt64, failed: make(chan struct{})}
	for range n {
		w.done.Go(func() {
			for b := range w.jobs {
				if err := crew.Catch(func() error { w.make(b); return nil }); err != nil {
					w.fail(-1, err) // before every entry: this is the error to keep
				}
				w.busy.Done()
			}
		})
	}
	return w
}

// put passes a batch to a writer. It waits while all writers are busy.
func (w *writers) put(b *batch) {
	w.busy.Add(1)
	w.jobs <- b
}

// close ends the writers and returns the error, if there is one. If a writer
// panicked, close panics.
func (w *writers) close() error {
	close(w.jobs)
	w.done.Wait()
	crew.Raise(w.err)
	return w.err
}

func (w *writers) fail(place int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		close(w.failed)
	}
	if place < w.at {
		w.err, w.at = err, place
	}
}

// pointless reports whether the file at this place in the archive need not be created
// any more.
func (w *writers) pointless(place int64) bool {
	if w.ctx.Err() != nil {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return place > w.at
}

func (w *writers) make(b *batch) {
	// Released after a panic too: the reader waits for room, and whoever takes the
	// panic over would wait for the reader.
	defer b.content.Release()
	if b.large != nil {
		defer func() {
			for c := range b.large { // left over after an error
				c.buf.Release()
			}
		}()
	}
	for i := range b.files {
		f := &b.files[i]
		if !w.pointless(f.place) {
			if err := w.file(f, b); err != nil {
				w.fail(f.place, err)
			}
		}
		f.dir.release()
	}
}

func (w *writers) file(f *file, b *batch) error {
	// A Fill may also read the file.
	fd, err := disk.Openat2(f.dir.fd, f.base, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, uint64(f.entry.Mode&0o777), resolve)
	if err != nil {
		return made("create", f.entry.Name, err)
	}
	whole, err := w.content(fd, f, b)
	if w.opt.foreign && errors.Is(err, unix.EFBIG) { // of a capture, there was a filesystem that held it
		err = member.Refuse("%q has %d bytes: %w", f.entry.Name, f.entry.Size, err)
	}
	if err == nil && whole {
		err = w.opt.apply(fd, f.entry)
	}
	if cerr := unix.Close(fd); err == nil && cerr != nil {
		err = fail("close", f.entry.Name, cerr)
	}
	return err
}

// content writes the file's content. It reports false if the content ends early. The
// parser, or whoever cancelled the context, has then reported the reason.
func (w *writers) content(fd int, f *file, b *batch) (whole bool, err error) {
	out := output{fd: fd, entry: f.entry, left: f.entry.Stored(), wrote: w.opt.Wrote}
	switch {
	case b.fill != nil:
		err = w.supplied(&out, b)
	case b.large != nil:
		err = w.large(&out, f.place, b.large)
	default:
		err = out.write(f.data)
	}
	if err != nil || out.left > 0 {
		return false, err
	}
	return true, out.end()
}

func (w *writers) large(out *output, place int64, chunks <-chan chunk) error {
	for c := range chunks {
		err := func() error {
			defer c.buf.Release()
			return out.write(c.b)
		}()
		if err != nil {
			return err
		}
		if w.pointless(place) {
			return nil
		}
	}
	return nil
}

// supplied lets the caller of Extract fill the file. If the caller does not fill it,
// supplied inflates the members.
func (w *writers) supplied(out *output, b *batch) error {
	// os.File closes its descriptor, so it gets one of its own.
	fd, err := unix.FcntlInt(uintptr(out.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fail("dup", out.entry.Name, err)
	}
	f := os.NewFile(uintptr(fd), out.entry.Name)
	defer f.Close()
	done, err := b.fill(f)
	if err != nil {
		return fail("fill", out.entry.Name, err)
	}
	if done {
		out.left = 0
		return nil
	}
	if err := disk.Retry(func() error { return unix.Ftruncate(out.fd, 0) }); err != nil {
		return fail("truncate", out.entry.Name, err)
	}
	mem := member.NewMemory()
	defer mem.Free()
	for _, m := range b.members {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		data, err := mem.Inflate(w.ctx, b.from, m)
		if err != nil {
			return err
		}
		content := data[:min(int64(len(data)), out.left)]
		if !tarstream.IsZero(data[len(content):]) {
			return member.Refuse("its padding is not zero")
		}
		if err := out.write(content); err != nil {
			return err
		}
	}
	return nil
}
