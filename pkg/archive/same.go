package archive

import (
	"errors"
	"io"
	"os"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

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
