package archive

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/tiny-forge/snap/pkg/archive/foreign"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/disk"
)

// Foreign is the result of extracting a foreign archive.
type Foreign struct {
	Stats tarstream.Stats
	// Dropped counts, by kind, what entries of the archive have and a volume does not
	// keep: labels of security modules, inode flags, pax records that snap does not know.
	Dropped map[string]int64
}

// ExtractForeign is [Extract] for an archive that another program made: a .tar,
// .tar.gz or .tar.zst, with or without a leading "./", in any order, in the old, GNU
// or pax format (package foreign). The same rules apply. A directory that comes twice is
// what it was the last time, and a hardlink to a symlink is another such symlink. MaxBytes
// counts what is written, and not the holes of sparse files. An error that is the archive's
// fault says where in the tar stream it was found.
func ExtractForeign(ctx context.Context, in io.Reader, into *disk.Dir, opt ExtractOptions) (*Foreign, error) {
	plain, err := foreign.Open(ctx, in)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	opt.foreign = true
	x := newExtractor(ctx, into, opt)
	src := foreign.NewReader(plain)
	x.foreign = src
	stats, err := x.extract(src)
	return &Foreign{Stats: stats, Dropped: src.Dropped()}, err
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
