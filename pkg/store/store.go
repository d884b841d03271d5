package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
)

// Store is an open store.
type Store struct {
	root, snapshots *disk.Dir
	id              string
	members         Members
	closeMembers    func() error
}

// place is what a store is. The last names are of a version that kept the journal in it.
var place = disk.Private{
	What:  "store",
	Marks: [][]string{{identityFile}, {"members", "snapshots"}},
	Names: []string{scratchFolder, "lock", "tx", "audit.jsonl"},
}

// Open opens the store at an absolute path, and makes it when nothing is there. The
// error is [*disk.Unusable] where path can never be a store. When Open returns nil
// the store and its identity are durable.
func Open(path string) (*Store, error) {
	root, _, err := place.Make(path)
	if err != nil {
		return nil, err
	}
	s, err := openIn(root)
	if err != nil {
		return nil, err
	}
	if err := s.Identify(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// OpenExisting is Open that makes neither a store, for which its error wraps
// fs.ErrNotExist, nor an identity. An empty directory is not a store: it may be the
// mount point of a filesystem that is not mounted.
func OpenExisting(path string) (*Store, error) {
	root, err := place.Open(path)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{identityFile, "members", "snapshots"} {
		there, err := root.Exists(name)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open the store: %w", err), root.Close())
		}
		if there {
			return openIn(root)
		}
	}
	return nil, errors.Join(fmt.Errorf("there is no store in %s: %w", path, fs.ErrNotExist), root.Close())
}

// openIn takes over root.
func openIn(root *disk.Dir) (*Store, error) {
	s := &Store{root: root, closeMembers: func() error { return nil }}
	if err := s.open(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) open() (err error) {
	if s.id, err = readIdentity(s.root); err != nil {
		return err
	}
	members, err := openDirectory(s.root)
	if err != nil {
		return err
	}
	s.members, s.closeMembers = members, members.Close
	s.snapshots, err = s.root.Ensure("snapshots", 0o700)
	return err
}

// Root returns the store's own directory.
func (s *Store) Root() *disk.Dir { return s.root }

// Close closes the store's directories. A nil store has none.
func (s *Store) Close() error {
	if s == nil {
		return nil
	}
	return errors.Join(s.closeMembers(), s.snapshots.Close(), s.root.Close())
}

// size returns how many bytes the store holds as m, 0 when it holds none.
func (s *Store) size(ctx context.Context, m archive.Member) (int64, error) {
	sizes, err := s.members.Stat(ctx, []archive.Member{m})
	if err != nil {
		return 0, err
	}
	return sizes[0], nil
}

// Open implements [archive.Opener]: it returns the bytes of a member as they lie on
// disk, unchecked. A member that is missing, that is not a regular file, or that is
// larger than a member can be, is an error that wraps [archive.ErrRefused].
func (s *Store) Open(ctx context.Context, m archive.Member, buf []byte) ([]byte, error) {
	data, err := s.members.Get(ctx, m, buf)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: member %s is not in the store", archive.ErrRefused, m.ID)
	}
	return data, refused(err)
}

// altered reports whether err says that something stands at a name where snap
// never puts such a thing. Errors of the disk are not of this kind.
func altered(err error) bool {
	return errors.Is(err, disk.ErrDamaged) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR)
}

// refused marks the error of reading a member where its snapshot is at fault.
func refused(err error) error {
	if altered(err) {
		return fmt.Errorf("%w: %w", archive.ErrRefused, err)
	}
	return err
}
