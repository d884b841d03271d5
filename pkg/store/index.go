package store

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/klauspost/compress/gzip"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
)

// IndexVersion is the newest index that this program writes.
const IndexVersion = 1

// Index writes index.gz: what was seen of every file, so that the next capture
// can tell what is unchanged. It serves as a hint; nothing is ever put back
// because an index says so. The format is in docs/formats.md.
type Index struct {
	f    *os.File
	gz   *gzip.Writer
	text *bufio.Writer
	line []byte
}

// NewIndex creates an index in the file name of dir. machine is the host's
// machine-id(5).
func NewIndex(dir *disk.Dir, name, machine string) (*Index, error) {
	f, err := dir.CreateFile(name, 0o600)
	if err != nil {
		return nil, err
	}
	gz, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	x := &Index{f: f, gz: gz, text: bufio.NewWriterSize(gz, 64<<10)}
	_, err = fmt.Fprintf(x.text, "snap-index\t%d\t%s\n", IndexVersion, machine)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return x, nil
}

// Volume begins the lines of a volume. fsid is the filesystem it is on: inodes
// mean nothing on another.
func (x *Index) Volume(name string, fsid disk.FSID) error {
	_, err := fmt.Fprintf(x.text, "volume\t%s\t%s\n", strconv.Quote(name), fsid)
	return err
}

// Add writes the line of one file.
func (x *Index) Add(l *archive.Line) error {
	b := strconv.AppendQuote(x.line[:0], l.Name)
	b = append(b, '\t', byte(l.Type), '\t')
	b = strconv.AppendInt(b, l.Size, 10)
	b = append(b, '\t')
	b = strconv.AppendUint(b, uint64(l.Mode), 8)
	for _, n := range []uint64{uint64(l.UID), uint64(l.GID)} {
		b = append(b, '\t')
		b = strconv.AppendUint(b, n, 10)
	}
	for _, t := range []archive.Timespec{l.Mtime, l.Ctime} {
		b = fmt.Appendf(b, "\t%d.%09d", t.Sec, t.Nsec)
	}
	b = append(b, '\t')
	b = strconv.AppendUint(b, l.Inode, 10)
	b = append(b, '\t')
	b = strconv.AppendInt(b, int64(l.Member), 10)
	x.line = append(b, '\n')
	_, err := x.text.Write(x.line)
	return err
}

// Close completes the file. It is not durable yet.
func (x *Index) Close() error {
	return errors.Join(x.text.Flush(), x.gz.Close(), x.f.Close())
}
