package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/crew"
	"github.com/tiny-forge/snap/pkg/disk"
)

// ErrIndex is wrapped by every error that says that an index is none, or is
// damaged. What was taken from it before that showed must be given up.
var ErrIndex = errors.New("the index cannot be used")

func badIndex(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrIndex, fmt.Errorf(format, args...))
}

// maxLine bounds a line: two names of 1000 components, each byte escaped.
const maxLine = 4 << 20

// IndexReader reads an index. That it is whole is known only when Next has
// returned io.EOF for its last volume.
type IndexReader struct {
	f       *os.File
	head    string
	batches chan batch
	stop    chan struct{}
	now     []line
	err     error
}

// line is of a volume or of a file; the other is nil.
type line struct {
	volume *IndexVolume
	file   *archive.Line
}

type batch struct {
	lines []line
	err   error
}

// IndexVolume begins the lines of a volume.
type IndexVolume struct {
	Name  string
	FSID  disk.FSID
	Since archive.Timespec
}

// OpenIndex opens the index of a snapshot. It is [ErrIndex] where that is not the one that
// the manifest means, or is of another version or another origin: then nothing in it proves
// anything.
func (s *Store) OpenIndex(m *Manifest, of Origin) (*IndexReader, error) {
	return s.openIndex(m, of.begins)
}

// OpenPlaces is OpenIndex for a reader that wants to know only where in the stream a name
// lies: that is so on every machine.
func (s *Store) OpenPlaces(m *Manifest) (*IndexReader, error) {
	return s.openIndex(m, anywhere)
}

func anywhere(head string) error {
	if !strings.HasPrefix(head, fmt.Sprintf("%s\t%d\t", indexFormat, IndexVersion)) {
		return badIndex("it begins %q", head)
	}
	return nil
}

func (s *Store) openIndex(m *Manifest, begins func(head string) error) (*IndexReader, error) {
	dir, err := s.snapshots.OpenIfThere(m.Workload)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if dir == nil || !disk.ValidID(m.SID) {
		return nil, badIndex("there is no snapshot %q of %q", m.SID, m.Workload)
	}
	rel := m.SID + "/" + indexFile
	if m.Index != "" { // another's would say that other files are unchanged
		sum, err := fileSum(dir, rel)
		if err != nil {
			return nil, badIndex("%w", err)
		}
		if sum != m.Index {
			return nil, badIndex("it is not the one that the manifest means")
		}
	}
	return readIndex(dir, rel, begins)
}

// fileSum is the SHA-256 of a file, in hexadecimal.
func fileSum(dir *disk.Dir, rel string) (string, error) {
	f, err := dir.OpenFile(rel)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// ReadPlaces opens the index in the file rel below dir, of any origin; see
// [Store.OpenPlaces].
func ReadPlaces(dir *disk.Dir, rel string) (*IndexReader, error) {
	return readIndex(dir, rel, anywhere)
}

// begins refuses the first line of an index that is of another origin.
func (of Origin) begins(head string) error {
	want := fmt.Sprintf("%s\t%d\t%s\t%s", indexFormat, IndexVersion, of.Machine, of.Boot)
	if head != want || of.Boot == "" {
		return badIndex("it begins %q, not %q", head, want)
	}
	return nil
}

func readIndex(dir *disk.Dir, rel string, begins func(head string) error) (*IndexReader, error) {
	f, err := dir.OpenFile(rel)
	if err != nil {
		return nil, badIndex("%w", err)
	}
	r := &IndexReader{f: f, batches: make(chan batch, 8), stop: make(chan struct{})}
	gz, err := gzip.NewReader(bufio.NewReaderSize(f, 64<<10))
	if err != nil {
		return nil, errors.Join(badIndex("%w", err), f.Close())
	}
	text := bufio.NewReaderSize(gz, 256<<10)
	head, err := readLine(text)
	if err != nil {
		return nil, errors.Join(badIndex("%w", err), f.Close())
	}
	if err := begins(string(head)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r.head = string(head)
	go r.read(text) // ahead, on another core
	return r, nil
}

// Of reports whether the inodes and times of the index are those of this origin. The index
// of another proves nothing.
func (r *IndexReader) Of(origin Origin) bool { return origin.begins(r.head) == nil }

func readLine(text *bufio.Reader) ([]byte, error) {
	b, err := text.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		long := bytes.Clone(b)
		for errors.Is(err, bufio.ErrBufferFull) && len(long) < maxLine {
			b, err = text.ReadSlice('\n')
			long = append(long, b...)
		}
		b = long
	}
	if err != nil {
		if errors.Is(err, io.EOF) && len(b) > 0 {
			return nil, io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return b[:len(b)-1], nil
}

func (r *IndexReader) read(text *bufio.Reader) {
	defer close(r.batches)
	send := func(b batch) bool {
		select {
		case r.batches <- b:
			return b.err == nil
		case <-r.stop:
			return false
		}
	}
	if err := crew.Catch(func() error { r.readAll(text, send); return nil }); err != nil {
		send(batch{err: err})
	}
}

func (r *IndexReader) readAll(text *bufio.Reader, send func(batch) bool) {
	for {
		b := batch{lines: make([]line, 0, 256)}
		for len(b.lines) < cap(b.lines) && b.err == nil {
			var raw []byte
			if raw, b.err = readLine(text); b.err != nil {
				break
			}
			var l line
			if l, b.err = parseLine(string(raw)); b.err == nil {
				b.lines = append(b.lines, l)
			}
		}
		if b.err != nil && !errors.Is(b.err, io.EOF) {
			b.err = badIndex("%w", b.err)
		}
		if !send(b) {
			return
		}
	}
}

// peek returns the next line, and io.EOF after the last.
func (r *IndexReader) peek() (line, error) {
	for len(r.now) == 0 {
		if r.err != nil {
			return line{}, r.err
		}
		b := <-r.batches
		r.now, r.err = b.lines, b.err
		crew.Raise(b.err)
	}
	return r.now[0], nil
}

// Volume goes on to the lines of the next volume; io.EOF after the last.
func (r *IndexReader) Volume() (*IndexVolume, error) {
	for {
		l, err := r.peek()
		if err != nil {
			return nil, err
		}
		r.now = r.now[1:]
		if l.volume != nil {
			return l.volume, nil
		}
	}
}

// Find goes on to the lines of the volume of that name; io.EOF where none follows. It goes
// forward only: a volume that was passed is not found again.
func (r *IndexReader) Find(name string) (*IndexVolume, error) {
	for {
		v, err := r.Volume()
		if err != nil || v.Name == name {
			return v, err
		}
	}
}

// Rest reads the index to its end, where damage shows.
func (r *IndexReader) Rest() error {
	for {
		if _, err := r.Volume(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// Next returns the next line of the volume, and io.EOF after its last.
func (r *IndexReader) Next() (*archive.Line, error) {
	l, err := r.peek()
	if err != nil {
		return nil, err
	}
	if l.volume != nil {
		return nil, io.EOF
	}
	r.now = r.now[1:]
	return l.file, nil
}

func (r *IndexReader) Close() error {
	close(r.stop)
	for range r.batches { // until its goroutine is gone
	}
	return r.f.Close()
}

func parseLine(s string) (line, error) {
	if rest, ok := strings.CutPrefix(s, "volume\t"); ok {
		f := fields{rest: rest}
		v := &IndexVolume{Name: f.quoted(), FSID: disk.FSID(f.next()), Since: f.time()}
		return line{volume: v}, f.end()
	}
	f := fields{rest: s}
	l := &archive.Line{}
	l.Name = f.quoted()
	if t := f.next(); len(t) == 1 {
		l.Type = archive.Type(t[0])
	} else {
		f.fail("type", t)
	}
	l.Size = f.int()
	l.Mode = uint32(f.uint(8, 32))
	l.UID, l.GID = uint32(f.uint(10, 32)), uint32(f.uint(10, 32))
	l.Mtime, l.Ctime = f.time(), f.time()
	l.Inode = f.uint(10, 64)
	l.Member, l.Span = int(f.int()), int(f.int())
	l.Data = f.int()
	l.Handle = f.next()
	if l.Type == archive.Hardlink {
		l.Link = f.quoted()
	} else if link := f.next(); link != "" {
		f.fail("link", link)
	}
	return line{file: l}, f.end()
}

// fields takes a line apart at its tabs. The first field that is not what it
// should be is kept as the error.
type fields struct {
	rest string
	done bool
	err  error
}

func (f *fields) fail(what, got string) {
	if f.err == nil {
		f.err = fmt.Errorf("%q is not a %s", got, what)
	}
}

func (f *fields) next() string {
	if f.done {
		f.fail("whole line", f.rest)
		return ""
	}
	s, rest, more := strings.Cut(f.rest, "\t")
	f.rest, f.done = rest, !more
	return s
}

func (f *fields) end() error {
	if !f.done {
		f.fail("field that is known", f.rest)
	}
	return f.err
}

func (f *fields) quoted() string {
	raw := f.next()
	s, err := strconv.Unquote(raw)
	if err != nil {
		f.fail("quoted name", raw)
	}
	return s
}

func (f *fields) uint(base, bits int) uint64 {
	raw := f.next()
	n, err := strconv.ParseUint(raw, base, bits)
	if err != nil {
		f.fail("number", raw)
	}
	return n
}

// int returns a number that is not negative.
func (f *fields) int() int64 { return int64(f.uint(10, 63)) }

func (f *fields) time() archive.Timespec {
	raw := f.next()
	sec, nsec, _ := strings.Cut(raw, ".")
	s, err := strconv.ParseInt(sec, 10, 64)
	n, err2 := strconv.ParseUint(nsec, 10, 32)
	if err != nil || err2 != nil || len(nsec) != 9 || n > 999999999 {
		f.fail("time", raw)
	}
	return archive.Timespec{Sec: s, Nsec: int64(n)}
}
