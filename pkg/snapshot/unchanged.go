package snapshot

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/store"
)

// Unchanged finds the live files of a volume that are as a snapshot saw them. Where
// the filesystem has reflinks they need not be inflated: the staged file shares their
// extents. A clone's content is checked against the checksums of its members, unless
// the operator trusts the index (--trust-index).
type Unchanged struct {
	live  *disk.Dir
	lines map[string]*archive.Line // of large dense files, by name
	trust bool
}

// UnchangedSince reads the index of a snapshot, in which the volume may have another name.
// It returns nil if nothing can be cloned, or if no index is usable.
func UnchangedSince(st *store.Store, m *store.Manifest, volume string, p Source, trust bool) (*Unchanged, error) {
	proves, err := p.Live.TimesProve()
	if err != nil || !proves || !p.Parent.CanClone() {
		return nil, err
	}
	fsid, err := p.Live.Filesystem()
	if err != nil {
		return nil, err
	}
	u := &Unchanged{live: p.Live, lines: map[string]*archive.Line{}, trust: trust}
	index, err := st.OpenIndex(m, Origin())
	if err == nil {
		defer index.Close()
		err = u.collect(index, volume, fsid)
	}
	if errors.Is(err, store.ErrIndex) {
		return nil, nil
	}
	return u, err
}

// collect takes the lines of a volume. It reads the index to its end, where damage
// shows.
func (u *Unchanged) collect(index *store.IndexReader, volume string, fsid disk.FSID) error {
	for {
		v, err := index.Volume()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for v.Name == volume && v.FSID == fsid {
			l, err := index.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			if l.Type == archive.Regular && l.Span > 0 && l.Data == l.Size && l.Ctime.Before(v.Since) && l.Mtime.Before(v.Since) {
				u.lines[l.Name] = l
			}
		}
	}
}

// Supply is what [archive.ExtractOptions] asks.
func (u *Unchanged) Supply(e *archive.Entry, content []archive.Member) archive.Fill {
	line := u.lines[e.Name]
	if line == nil || e.Extents != nil || e.Size != line.Size || len(content) != line.Span {
		return nil
	}
	live := u.open(line)
	if live == nil {
		return nil
	}
	live.Close()
	return func(into *os.File) (bool, error) {
		live := u.open(line)
		if live == nil {
			return false, nil
		}
		defer live.Close()
		// The live file may change at any moment, the clone does not. If the file
		// changed before the clone was made, the second check of its times tells.
		if disk.CloneInto(int(into.Fd()), int(live.Fd())) != nil || !is(live, line) {
			return false, nil
		}
		if u.trust {
			return true, nil
		}
		return archive.SameContent(into, e.Size, content)
	}
}

// open opens the live file of a line, nil if it is gone, or was replaced or changed.
func (u *Unchanged) open(line *archive.Line) *os.File {
	f, err := u.live.OpenFile(line.Name)
	if err != nil {
		return nil
	}
	if !is(f, line) {
		f.Close()
		return nil
	}
	return f
}

// is reports whether an open file is the one that an index saw, unchanged.
func is(f *os.File, l *archive.Line) bool {
	fd := int(f.Fd())
	var st unix.Stat_t
	if err := disk.Retry(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return false
	}
	if st.Size != l.Size || st.Ino != l.Inode ||
		st.Mtim != (unix.Timespec{Sec: l.Mtime.Sec, Nsec: l.Mtime.Nsec}) || st.Ctim != (unix.Timespec{Sec: l.Ctime.Sec, Nsec: l.Ctime.Nsec}) {
		return false
	}
	handle, err := disk.FileHandle(fd)
	return err == nil && handle == l.Handle && handle != ""
}

// Any reports whether there is a file to clone. It is false for nil.
func (u *Unchanged) Any() bool { return u != nil && len(u.lines) > 0 }
