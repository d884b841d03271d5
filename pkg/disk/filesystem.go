package disk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// fsNames are the types of filesystems by their magic number (statfs(2)).
var fsNames = map[uint32]string{
	unix.EXT4_SUPER_MAGIC:      "ext4",
	unix.XFS_SUPER_MAGIC:       "xfs",
	unix.BTRFS_SUPER_MAGIC:     "btrfs",
	0xF2F52010:                 "f2fs",
	0x2FC12FC1:                 "zfs",
	0xCA451A4E:                 "bcachefs",
	unix.TMPFS_MAGIC:           "tmpfs",
	unix.RAMFS_MAGIC:           "ramfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
	unix.FUSE_SUPER_MAGIC:      "fuse",
	unix.NFS_SUPER_MAGIC:       "nfs",
	0x01021997:                 "9p",
	0x00C36400:                 "ceph",
	unix.SMB_SUPER_MAGIC:       "smb",
	0xFE534D42:                 "smb", // SMB2
	0xFF534D42:                 "smb", // CIFS
}

func fsName(magic int64) string {
	if name, known := fsNames[uint32(magic)]; known {
		return name
	}
	return fmt.Sprintf("fs%08x", uint32(magic))
}

func (d *Dir) statfs() (st unix.Statfs_t, err error) {
	err = Retry(func() error { return unix.Fstatfs(d.fd, &st) })
	return st, d.fail("statfs", "", err)
}

// FSName returns the type of d's filesystem, by the name that mount(8) uses.
func (d *Dir) FSName() (string, error) {
	st, err := d.statfs()
	if err != nil {
		return "", err
	}
	return fsName(st.Type), nil
}

// TimesProve reports whether unchanged times and an unchanged size of a file prove
// that its content is unchanged. That is so on ext4 (whose driver serves ext2 and
// ext3 too), XFS, btrfs and f2fs: they move ctime with every change. For a store
// through a mapped page they do so when the page becomes writable (file_update_time
// in their page_mkwrite), which happens again after each write-back.
func (d *Dir) TimesProve() (bool, error) {
	name, err := d.FSName()
	if err != nil {
		return false, err
	}
	return name == "ext4" || name == "xfs" || name == "btrfs" || name == "f2fs", nil
}

// Unsuitable says why snap cannot keep data on d, and returns "" if it can. A
// filesystem is unsuitable if it forgets its data (tmpfs), if another host may
// change it (NFS, SMB, Ceph), or if another program decides on its handles and its
// durability (FUSE, overlayfs, 9p).
func (d *Dir) Unsuitable() (string, error) {
	name, err := d.FSName()
	if err != nil {
		return "", err
	}
	switch name {
	case "tmpfs", "ramfs":
		return name + " loses its data at a reboot", nil
	case "nfs", "smb", "ceph", "9p":
		return name + " is shared with other hosts", nil
	case "fuse", "overlayfs":
		return name + " does not promise what a restore needs (stable handles, durable renames)", nil
	}
	return "", nil
}

// Space is the free space of a filesystem.
type Space struct {
	Bytes  uint64 // free bytes
	Total  uint64 // bytes of the whole filesystem
	Inodes uint64 // free inodes; ^0 if the filesystem makes them on demand
}

// Full is an error for want of room, with the filesystem that has none.
type Full struct {
	Path  string // a directory of it
	Free  Space
	Need  uint64 // bytes that could still have been written; 0 where that is not known
	Quota bool
	Err   error
}

func (f *Full) Error() string {
	switch {
	case f.Quota:
		return fmt.Sprintf("%v: a quota on the filesystem of %s is used up", f.Err, f.Path)
	case f.Missing() == 0:
		return fmt.Sprintf("%v: the filesystem of %s has %d bytes and %d inodes free", f.Err, f.Path, f.Free.Bytes, f.Free.Inodes)
	}
	return fmt.Sprintf("%v: the filesystem of %s has %d bytes free, and up to %d more are needed, so up to %d are missing", f.Err, f.Path, f.Free.Bytes, f.Need, f.Missing())
}

func (f *Full) Unwrap() error { return f.Err }

// Missing is how many bytes are missing at most; 0 where that is not known.
func (f *Full) Missing() uint64 {
	if f.Need <= f.Free.Bytes {
		return 0
	}
	return f.Need - f.Free.Bytes
}

// Way says what to do.
func (f *Full) Way() string {
	switch {
	case f.Quota:
		return "raise that quota"
	case f.Missing() == 0:
		return "free space and inodes (df -h, df -i) on the filesystem of " + f.Path
	}
	return fmt.Sprintf("free %d bytes on the filesystem of %s", f.Missing(), f.Path)
}

// WhenFull returns err, and as [*Full] if there was no room for something on d's
// filesystem. need is how many bytes could still have been written.
func (d *Dir) WhenFull(err error, need int64) error {
	quota := errors.Is(err, unix.EDQUOT)
	if !quota && !errors.Is(err, unix.ENOSPC) {
		return err
	}
	free, spaceErr := d.Space()
	if spaceErr != nil {
		return err
	}
	return &Full{Path: d.path, Free: free, Need: uint64(need), Quota: quota, Err: err}
}

// Space returns the free space of d's filesystem.
func (d *Dir) Space() (Space, error) {
	st, err := d.statfs()
	if err != nil {
		return Space{}, err
	}
	s := Space{Bytes: st.Bavail * uint64(st.Bsize), Total: st.Blocks * uint64(st.Bsize), Inodes: st.Ffree}
	if st.Files == 0 { // btrfs makes inodes on demand
		s.Inodes = ^uint64(0)
	}
	return s, nil
}

// Stat is fstat(2) of the open file fd, which may be O_PATH, and returns the attributes
// that statx(2) shows in the same call.
func Stat(fd int, st *unix.Stat_t) (attributes uint64, err error) {
	var stx unix.Statx_t
	err = Retry(func() error {
		return unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_SYNC_AS_STAT, unix.STATX_BASIC_STATS, &stx)
	})
	*st = unix.Stat_t{
		Dev: unix.Mkdev(stx.Dev_major, stx.Dev_minor), Ino: stx.Ino, Mode: uint32(stx.Mode), Uid: stx.Uid, Gid: stx.Gid,
		Rdev: unix.Mkdev(stx.Rdev_major, stx.Rdev_minor), Size: int64(stx.Size), Blocks: int64(stx.Blocks),
		Mtim: timespec(stx.Mtime), Ctim: timespec(stx.Ctime), Atim: timespec(stx.Atime),
	}
	assign(&st.Nlink, stx.Nlink)
	assign(&st.Blksize, stx.Blksize)
	return stx.Attributes, err
}

// assign is for fields that have another type on each architecture.
func assign[T ~uint32 | ~uint64 | ~int32 | ~int64](to *T, n uint32) { *to = T(n) }

func timespec(t unix.StatxTimestamp) unix.Timespec {
	return unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)}
}

// Locked reports whether d has the immutable or the append-only flag (chattr +i,
// +a). Then nobody, not even root, can rename or remove anything in it.
func (d *Dir) Locked() (bool, error) {
	locked, err := Locked(d.fd)
	return locked, d.fail("statx", "", err)
}

// Locked is [Dir.Locked] for the open file or directory fd, which may be O_PATH. A
// file with one of the flags can be neither removed nor renamed.
func Locked(fd int) (bool, error) { return lockedAt(fd, "", unix.AT_EMPTY_PATH) }

func lockedAt(fd int, name string, flags int) (bool, error) {
	var stx unix.Statx_t
	err := Retry(func() error {
		return unix.Statx(fd, name, flags|unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_SYNC_AS_STAT, unix.STATX_TYPE, &stx)
	})
	return stx.Attributes&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0, err
}
