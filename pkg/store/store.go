package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
)

// Store is an open store; see the package's comment.
type Store struct {
	root, members, snapshots *disk.Dir

	mu  sync.Mutex
	fan map[string]*disk.Dir // members/ab, by "ab"
}

// Unusable says that a directory cannot be a store, and why.
type Unusable struct {
	Path   string
	Reason string
	Hint   string
}

func (u *Unusable) Error() string { return fmt.Sprintf("store %s: %s", u.Path, u.Reason) }

// Open opens the store at path, an absolute one, and makes it when nothing is
// there. The store holds copies of everything, so it is the user's alone:
// mode 0700. The error is [*Unusable] where path can never be a store.
func Open(path string) (*Store, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the store: %w", err)
	}
	return openAt(path)
}

// OpenExisting is Open that makes nothing where there is no store, but returns
// an error that wraps fs.ErrNotExist: a directory that is not there, or an
// empty one, as the point is at which the store's filesystem is not mounted.
func OpenExisting(path string) (*Store, error) {
	root, err := disk.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	defer root.Close()
	for _, name := range []string{"members", "snapshots", "tx"} {
		there, err := root.Exists(name)
		if err != nil {
			return nil, fmt.Errorf("open the store: %w", err)
		}
		if there {
			return openAt(path)
		}
	}
	return nil, fmt.Errorf("there is no store in %s: %w", path, fs.ErrNotExist)
}

func openAt(path string) (*Store, error) {
	root, err := disk.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	s := &Store{root: root, fan: map[string]*disk.Dir{}}
	if err := s.open(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) open() error {
	if err := s.own(); err != nil {
		return err
	}
	why, err := s.root.Unsuitable()
	if err != nil {
		return err
	}
	// An overlay's upper layer is a local filesystem, and the store needs no
	// handles: only volumes do.
	if name, _ := s.root.FSName(); why != "" && name != "overlayfs" {
		return &Unusable{s.root.Path(), why, "put the store on a local filesystem (ext4, xfs, btrfs)"}
	}
	if s.members, err = s.root.Ensure("members", 0o700); err != nil {
		return err
	}
	s.snapshots, err = s.root.Ensure("snapshots", 0o700)
	return err
}

// own makes sure that nobody else can write the store, nor read it.
func (s *Store) own() error {
	st, err := s.root.Stat()
	if err != nil {
		return err
	}
	path := s.root.Path()
	if int(st.Uid) != os.Geteuid() {
		return &Unusable{path, fmt.Sprintf("belongs to user %d, not to the one that runs snap", st.Uid), fmt.Sprintf("chown %d %q", os.Geteuid(), path)}
	}
	if st.Mode&0o022 != 0 {
		names, err := s.root.Names()
		if err != nil {
			return err
		}
		if len(names) > 0 {
			return &Unusable{path, fmt.Sprintf("others may write it (mode %#o), so what it holds cannot be trusted", st.Mode&0o7777),
				fmt.Sprintf("look at its content, then chmod 700 %q", path)}
		}
	}
	if st.Mode&0o7777 == 0o700 {
		return nil
	}
	if err := disk.Retry(func() error { return unix.Fchmod(s.root.FD(), 0o700) }); err != nil {
		return fmt.Errorf("chmod %s: %w", path, err)
	}
	return nil
}

// Root returns the store's own directory.
func (s *Store) Root() *disk.Dir { return s.root }

// Close closes the store's directories.
func (s *Store) Close() error {
	errs := []error{s.members.Close(), s.snapshots.Close()}
	for _, d := range s.fan {
		errs = append(errs, d.Close())
	}
	return errors.Join(append(errs, s.root.Close())...)
}

// shard returns members/ab for a member's id; with create it is made. A nil
// directory without an error means that it does not exist.
func (s *Store) shard(id string, create bool) (*disk.Dir, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := id[:2]
	if d := s.fan[name]; d != nil {
		return d, nil
	}
	var d *disk.Dir
	var err error
	if create {
		d, err = s.members.EnsureUnsynced(name, 0o700) // Batch.place syncs it all
	} else if d, err = s.members.OpenSameMount(name); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s.fan[name] = d
	return d, nil
}

func memberFile(m archive.Member) string { return m.ID + m.Codec.Ext() }

// size returns how many bytes the store holds as m, by its id and codec, 0 when
// it holds none.
func (s *Store) size(m archive.Member) (int64, error) {
	shard, err := s.shard(m.ID, false)
	if err != nil || shard == nil {
		return 0, err
	}
	st, err := shard.Lstat(memberFile(m))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, fmt.Errorf("%w: member %s is not a regular file", disk.ErrDamaged, m.ID)
	}
	return st.Size, nil
}

// Open returns the bytes of a member as they lie on disk, unchecked, in buf
// where they fit (see [archive.Opener]). A member that is missing, that is no
// regular file, or that is larger than a member can be, is an error that wraps
// [archive.ErrRefused].
func (s *Store) Open(m archive.Member, buf []byte) ([]byte, error) {
	if !archive.ValidMemberID(m.ID) {
		return nil, fmt.Errorf("%w: %q is not the id of a member", archive.ErrRefused, m.ID)
	}
	shard, err := s.shard(m.ID, false)
	if err != nil {
		return nil, refused(err)
	}
	if shard == nil {
		return nil, missing(m.ID)
	}
	// What does not compress is stored as it is, in blocks: both codecs expand
	// by less than 1 %.
	data, err := shard.ReadFileInto(memberFile(m), archive.MaxMember+archive.MaxMember/64, buf)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(m.ID)
	}
	return data, refused(err)
}

// altered reports whether err says that something stands at a name that snap
// never puts there, unlike an error of the disk.
func altered(err error) bool {
	return errors.Is(err, disk.ErrDamaged) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR)
}

// refused marks the error of reading a member where its snapshot is at fault.
func refused(err error) error {
	if err != nil && altered(err) {
		return fmt.Errorf("%w: %w", archive.ErrRefused, err)
	}
	return err
}

func missing(id string) error {
	return fmt.Errorf("%w: member %s is not in the store", archive.ErrRefused, id)
}
