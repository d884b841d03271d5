package store

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/klauspost/compress/gzip"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
)

// IndexVersion is the version of the index that this program writes, and the
// only one that it reads.
const IndexVersion = 2

const indexFormat = "snap-index"

// Origin is the machine whose inodes and times an index speaks of.
type Origin struct {
	Machine string // machine-id(5), empty where it has none
	// Boot is boot_id of random(4). Times prove nothing across a boot: a power cut
	// may keep written data and lose its time, which fdatasync(2) need not make
	// durable.
	Boot string
}

// Index writes index.gz: what was seen of every file, so that the next capture
// can tell what is unchanged. The format is in docs/formats.md.
type Index struct {
	f    io.WriteCloser
	out  *bufio.Writer // the compressor writes a few hundred bytes at a time
	gz   *gzip.Writer
	text *bufio.Writer
	line []byte
}

// NewIndex creates an index in the file name of dir.
func NewIndex(dir *disk.Dir, name string, from Origin) (*Index, error) {
	f, err := dir.CreateFile(name)
	if err != nil {
		return nil, err
	}
	return newIndex(f, from)
}

// DiscardIndex is an index that nobody reads. It needs no room.
func DiscardIndex() (*Index, error) { return newIndex(nowhere{}, Origin{}) }

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) Close() error                { return nil }

func newIndex(f io.WriteCloser, from Origin) (*Index, error) {
	out := bufio.NewWriterSize(f, 64<<10)
	gz, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	x := &Index{f: f, out: out, gz: gz, text: bufio.NewWriterSize(gz, 64<<10)}
	_, err = fmt.Fprintf(x.text, "%s\t%d\t%s\t%s\n", indexFormat, IndexVersion, from.Machine, from.Boot)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return x, nil
}

// Volume begins the lines of a volume. fsid is the filesystem that the volume is
// on, because inodes mean nothing on another one. since is that of
// [archive.Known]; the zero time says that nothing is proven.
func (x *Index) Volume(name string, fsid disk.FSID, since archive.Timespec) error {
	b := appendQuoted(append(x.line[:0], "volume\t"...), name)
	b = append(append(append(b, '\t'), fsid...), '\t')
	b = appendTime(b, since)
	return x.write(b)
}

// Add writes the line of one file.
func (x *Index) Add(l *archive.Line) error {
	b := appendQuoted(x.line[:0], l.Name)
	b = append(b, '\t', byte(l.Type), '\t')
	b = strconv.AppendInt(b, l.Size, 10)
	b = append(b, '\t')
	b = strconv.AppendUint(b, uint64(l.Mode), 8)
	for _, n := range []uint64{uint64(l.UID), uint64(l.GID)} {
		b = append(b, '\t')
		b = strconv.AppendUint(b, n, 10)
	}
	for _, t := range []archive.Timespec{l.Mtime, l.Ctime} {
		b = appendTime(append(b, '\t'), t)
	}
	b = append(b, '\t')
	b = strconv.AppendUint(b, l.Inode, 10)
	for _, n := range []int64{int64(l.Member), int64(l.Span), l.Data} {
		b = append(b, '\t')
		b = strconv.AppendInt(b, n, 10)
	}
	b = append(append(append(b, '\t'), l.Handle...), '\t')
	if l.Type == archive.Hardlink {
		b = appendQuoted(b, l.Link)
	}
	return x.write(b)
}

func (x *Index) write(line []byte) error {
	x.line = append(line, '\n')
	_, err := x.text.Write(x.line)
	return err
}

// appendTime writes seconds, a point, and nine digits that count forward, as the
// kernel keeps them.
func appendTime(b []byte, t archive.Timespec) []byte {
	b = append(strconv.AppendInt(b, t.Sec, 10), '.')
	n := len(b)
	b = append(b, "000000000"...)
	for i, nsec := n+8, t.Nsec; i >= n; i-- {
		b[i] = byte('0' + nsec%10)
		nsec /= 10
	}
	return b
}

// appendQuoted is strconv.AppendQuote, with a shortcut for names that need no
// escapes.
func appendQuoted(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return strconv.AppendQuote(b, s)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// Close completes the file. It is not durable yet.
func (x *Index) Close() error {
	return errors.Join(x.text.Flush(), x.gz.Close(), x.out.Flush(), x.f.Close())
}
