package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/disk"
)

// StatSum walks the directory root, reads no content, and returns a checksum of what
// stat(2) shows of everything in it, times included, and of the root's own mode, owner
// and extended attributes. A rename changes the root's own times, so they are not in it.
//
// newest is the newest ctime. A change that comes later and leaves the checksum as it is
// has the very time that was there before it. On a filesystem that keeps whole seconds
// the time counts as the end of its second.
func StatSum(ctx context.Context, root *disk.Dir) (sum string, newest Timespec, err error) {
	s := &statSum{ctx: ctx, sum: sha256.New()}
	w, err := newWalker(ctx, s.visit, func(name string) { s.write("gone", name) })
	if err != nil {
		return "", newest, err
	}
	defer w.close()
	if err := w.walk(root); err != nil {
		return "", newest, err
	}
	if err := s.attributes(root); err != nil {
		return "", newest, err
	}
	return hex.EncodeToString(s.sum.Sum(nil)), s.newest, nil
}

type statSum struct {
	ctx    context.Context
	sum    hash.Hash
	buf    []byte
	newest Timespec
}

// write adds texts, so that no two lists of them add the same bytes.
func (s *statSum) write(texts ...string) {
	s.buf = s.buf[:0]
	for _, text := range texts {
		s.buf = append(strconv.AppendInt(s.buf, int64(len(text)), 10), ':')
		s.buf = append(s.buf, text...)
	}
	s.sum.Write(s.buf)
}

func (s *statSum) visit(n *node) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	number := func(v int64) { s.buf = append(strconv.AppendInt(s.buf, v, 36), ' ') }
	s.write(n.name)
	s.buf = s.buf[:0]
	number(int64(n.st.Mode))
	number(int64(n.st.Uid))
	number(int64(n.st.Gid))
	number(int64(n.st.Ino))
	if n.name != tarstream.Root {
		if n.kind() != unix.S_IFDIR { // the size of a directory is the filesystem's matter
			number(n.st.Size)
		}
		for _, t := range []unix.Timespec{n.st.Mtim, n.st.Ctim} {
			number(t.Sec)
			number(t.Nsec)
		}
		ctime := timespec(n.st.Ctim)
		if ctime.Nsec == 0 {
			ctime.Nsec = 999_999_999
		}
		if s.newest == (Timespec{}) || s.newest.Before(ctime) {
			s.newest = ctime
		}
	}
	s.sum.Write(s.buf)
	return nil
}

// attributes adds the extended attributes of root, whose ctime tells nothing of them.
func (s *statSum) attributes(root *disk.Dir) error {
	var buf []byte
	names, err := growing(&buf, func(b []byte) (int, error) { return unix.Flistxattr(root.FD(), b) })
	if errors.Is(err, unix.EOPNOTSUPP) || err == nil && len(names) == 0 {
		return nil
	}
	if err != nil {
		return fail("list the extended attributes of", root.Path(), err)
	}
	list := strings.Split(strings.TrimSuffix(string(names), "\x00"), "\x00")
	slices.Sort(list)
	for _, name := range list {
		value, err := growing(&buf, func(b []byte) (int, error) { return unix.Fgetxattr(root.FD(), name, b) })
		if err != nil && !errors.Is(err, unix.ENODATA) {
			return fail("read the extended attributes of", root.Path(), err)
		}
		s.write(name, string(value))
	}
	return nil
}

// Seen is a name of a live directory, as stat(2) shows it. It is good until the call that
// gave it has returned.
type Seen struct {
	// Line is what an index would have of it, but for Handle and the place in a stream. Of a
	// further name of a file, too, Size is that of the file.
	Line
	node *node
	w    *walker
}

// Walk calls see with each name of the directory root that Write would store, in the order
// of a stream. It reads nothing but CACHEDIR.TAG. A name that vanishes meanwhile is left
// out. Symlinks, fifos and devices are seen even if opt refuses them. inCache is called
// with each cache directory whose content opt excludes, before anything in it is seen.
func Walk(ctx context.Context, root *disk.Dir, opt WriteOptions, see func(*Seen) error, inCache func(dir string)) error {
	opt.RejectSymlinks = false
	if opt.Special == RefuseSpecial {
		opt.Special = KeepSpecial
	}
	census, err := newCensus(root, opt)
	if err != nil {
		return err
	}
	s := &Seen{}
	s.w, err = newWalker(ctx, func(n *node) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		e, err := census.entry(n)
		if e == nil || err != nil {
			return err
		}
		if e.Type == tarstream.Hardlink {
			e.Size = n.st.Size
		}
		s.Line, s.node = Line{Entry: *e, Ctime: timespec(n.st.Ctim), Inode: n.st.Ino}, n
		return see(s)
	}, func(string) {})
	if err != nil {
		return err
	}
	defer s.w.close()
	s.w.exclude, s.w.caches, s.w.inCache, s.w.leases = opt.Exclude, opt.ExcludeCaches, inCache, leaseBreak
	s.w.left = func(string) {}
	if err := s.w.walk(root); err != nil {
		return err
	}
	return census.bad.err()
}

// Unchanged reports whether l, of an earlier reading with this Since, proves that the
// name is as it was then: see [Known].
func (s *Seen) Unchanged(l *Line, since Timespec) (bool, error) {
	return (&Known{Since: since}).proves(l, s.node, &s.Entry)
}

// Target returns the target of a symlink.
func (s *Seen) Target() (string, error) { return s.node.target() }

// Open opens a file for reading. The caller closes it.
func (s *Seen) Open() (*os.File, error) {
	f, err := s.w.open(s.node)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(f.fd), f.name), nil
}

// SameContent reports whether a dense file of size bytes has the content of these
// members, which hold nothing else (see [ExtractOptions.Supply]). It reads the file and
// compares checksums; it does not open the members.
func SameContent(f *os.File, size int64, content []member.Member) (bool, error) {
	r := io.NewSectionReader(f, 0, size)
	buf := make([]byte, 0, member.PieceSize+tarstream.Block)
	for _, m := range content {
		n := min(m.Tar, size)
		if m.Tar > member.PieceSize+tarstream.Block || n < 1 {
			return false, nil
		}
		buf = buf[:n]
		if _, err := io.ReadFull(r, buf); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return false, nil
		} else if err != nil {
			return false, fail("read", f.Name(), err)
		}
		if size -= n; size == 0 {
			buf = tarstream.AppendPadding(buf, n)
		}
		if int64(len(buf)) != m.Tar || member.IDOf(buf) != m.ID {
			return false, nil
		}
	}
	return size == 0, nil
}
