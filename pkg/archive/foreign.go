package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/disk"
)

// Foreign is the result of extracting a foreign archive.
type Foreign struct {
	Stats tarstream.Stats
	// Dropped counts metadata that a volume does not keep, by kind: ACLs in text
	// form, labels of security modules.
	Dropped map[string]int64
}

// ExtractForeign is [Extract] for an archive that another program made: a .tar,
// .tar.gz or .tar.zst, with or without a leading "./", in any order, in the old, GNU
// or pax format. The same rules apply. Only zeros may follow the archive.
func ExtractForeign(ctx context.Context, in io.Reader, into *disk.Dir, opt ExtractOptions) (*Foreign, error) {
	plain, err := unpack(in)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	x := newExtractor(ctx, into, opt)
	x.foreign = true
	tail := &tailReader{r: plain}
	src := &foreign{tail: tail, tr: tar.NewReader(tail), dropped: map[string]int64{}}
	stats, err := x.extract(src)
	return &Foreign{Stats: stats, Dropped: src.dropped}, err
}

// foreignChunk is how much of a large file is in memory as one piece.
const foreignChunk = 256 << 10

type foreign struct {
	tail    *tailReader
	tr      *tar.Reader
	free    []byte // memory for what Take returns
	dropped map[string]int64
}

// Take implements [Source]. The memory that it returns is not used again.
func (f *foreign) Take(n int64) ([]byte, *member.Buffer, error) {
	if n = min(n, foreignChunk); n > int64(len(f.free)) {
		f.free = make([]byte, foreignChunk)
	}
	part := f.free[:n]
	f.free = f.free[n:]
	switch _, err := io.ReadFull(f.tr, part); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, nil, member.Refuse("its content ends early")
	case err != nil:
		return nil, nil, member.Refuse("%w", err)
	}
	return part, nil, nil
}

func (f *foreign) Next() (*tarstream.Entry, error) {
	for {
		// The zeros of a file's content do not count. Zeros from here on are padding,
		// which is shorter than a block, and the end of the archive.
		if _, err := io.Copy(io.Discard, f.tr); err != nil {
			return nil, member.Refuse("%w", err)
		}
		f.tail.zeros = 0
		h, err := f.tr.Next()
		if errors.Is(err, io.EOF) {
			return nil, f.end()
		}
		if err != nil {
			return nil, member.Refuse("%w", err)
		}
		// git archive and others begin with a comment for the whole archive.
		if h.Typeflag == tar.TypeXGlobalHeader && len(h.PAXRecords) == 1 && h.PAXRecords["comment"] != "" {
			continue
		}
		return f.convert(h)
	}
}

// end reads what follows the archive. It must be the padding of the last record, and
// the archive must have ended with two zero blocks.
func (f *foreign) end() error {
	buf := make([]byte, 32<<10)
	for {
		before := f.tail.zeros
		n, err := f.tail.Read(buf)
		if n > 0 && f.tail.zeros < before+int64(n) {
			return member.Refuse("there is data after the end")
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return member.Refuse("%w", err)
		}
	}
	if f.tail.zeros < 2*tarstream.Block {
		return member.Refuse("its end is missing: the archive is truncated")
	}
	return io.EOF
}

func (f *foreign) convert(h *tar.Header) (*tarstream.Entry, error) {
	e := &tarstream.Entry{Mode: uint32(h.Mode) & 0o7777, Mtime: tarstream.Timespec{Sec: h.ModTime.Unix(), Nsec: int64(h.ModTime.Nanosecond())}}
	var err error
	if e.Name, err = plainName(h.Name); err != nil {
		return nil, err
	}
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= math.MaxUint32 || int64(h.Gid) >= math.MaxUint32 {
		return nil, member.Refuse("%q has owner %d:%d", e.Name, h.Uid, h.Gid)
	}
	e.UID, e.GID = uint32(h.Uid), uint32(h.Gid)
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		e.Type, e.Size = tarstream.Regular, h.Size
		e.ZeroHoles = h.Typeflag == tar.TypeGNUSparse || h.PAXRecords["GNU.sparse.major"] != "" || h.PAXRecords["GNU.sparse.map"] != ""
	case tar.TypeDir:
		e.Type = tarstream.Directory
	case tar.TypeLink:
		e.Type = tarstream.Hardlink
		if e.Link, err = plainName(h.Linkname); err != nil {
			return nil, err
		}
	case tar.TypeSymlink:
		e.Type, e.Link = tarstream.Symlink, h.Linkname
		if e.Link == "" || len(e.Link) >= 4096 || strings.IndexByte(e.Link, 0) >= 0 {
			return nil, member.Refuse("symlink %q is not valid", e.Name)
		}
	case tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
		e.Type = tarstream.Type(h.Typeflag)
		if err := e.SetNumber(h.Devmajor, h.Devminor); err != nil {
			return nil, err
		}
	default:
		return nil, member.Refuse("%q is not a directory, file, symlink or hardlink: type %q", e.Name, rune(h.Typeflag))
	}
	if e.Type != tarstream.Regular && h.Size != 0 {
		return nil, member.Refuse("%s %q has %d bytes of content", e.Type, e.Name, h.Size)
	}
	if e.Name == tarstream.Root && e.Type != tarstream.Directory {
		return nil, member.Refuse("the root directory is a %s", e.Type)
	}
	f.attributes(e, h)
	return e, nil
}

func (f *foreign) attributes(e *tarstream.Entry, h *tar.Header) {
	for key, value := range h.PAXRecords {
		name, isAttr := strings.CutPrefix(key, tarstream.PaxXattr)
		name = tarstream.XattrName.Replace(name)
		switch {
		case isAttr && tarstream.KeptXattr(name) && e.Type != tarstream.Symlink && !e.Type.Special():
			e.Xattrs = append(e.Xattrs, tarstream.Xattr{Name: name, Value: []byte(value)})
		case isAttr:
			f.dropped["extended attribute "+name]++
		case strings.HasPrefix(key, "SCHILY.acl."):
			f.dropped["ACL in text form"]++
		}
	}
	tarstream.SortXattrs(e.Xattrs)
}

// plainName removes from a name the leading "./" of tar and the trailing "/" of a
// directory. What is left must be a plain relative path.
func plainName(name string) (string, error) {
	plain := strings.TrimSuffix(strings.TrimPrefix(name, "./"), "/")
	if name == "." || name == "./" {
		return tarstream.Root, nil
	}
	if err := tarstream.CheckName(plain); err != nil {
		return "", member.Refuse("%q: %w", name, err)
	}
	return plain, nil
}

// tailReader counts the zero bytes at the end of what has been read.
type tailReader struct {
	r     io.Reader
	zeros int64
}

func (t *tailReader) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	last := n
	for last > 0 && p[last-1] == 0 {
		last--
	}
	if last > 0 {
		t.zeros = 0
	}
	t.zeros += int64(n - last)
	return n, err
}

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

// DefaultDirectory is the metadata of directories that an archive leaves out: that of
// live, or what mkdir gives where live is nil or cannot be read.
func DefaultDirectory(live *disk.Dir) Entry {
	e := Entry{Mode: 0o755, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Mtime: Timespec{Sec: time.Now().Unix()}}
	if live == nil {
		return e
	}
	if st, err := live.Stat(); err == nil {
		e.Mode, e.UID, e.GID = st.Mode&0o7777, st.Uid, st.Gid
	}
	return e
}
