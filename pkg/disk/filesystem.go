package disk

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	f2fsMagic     = 0xF2F52010
	zfsMagic      = 0x2FC12FC1
	bcachefsMagic = 0xCA451A4E
	p9Magic       = 0x01021997
	cephMagic     = 0x00C36400
	smb2Magic     = 0xFE534D42
	cifsMagic     = 0xFF534D42
)

// fsName names the filesystem with the magic number of statfs(2).
func fsName(magic int64) string {
	switch uint32(magic) {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case f2fsMagic:
		return "f2fs"
	case zfsMagic:
		return "zfs"
	case bcachefsMagic:
		return "bcachefs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.RAMFS_MAGIC:
		return "ramfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs"
	case unix.FUSE_SUPER_MAGIC:
		return "fuse"
	case unix.NFS_SUPER_MAGIC:
		return "nfs"
	case p9Magic:
		return "9p"
	case cephMagic:
		return "ceph"
	case smb2Magic, cifsMagic, unix.SMB_SUPER_MAGIC:
		return "smb"
	}
	return fmt.Sprintf("fs%08x", uint32(magic))
}

// FSName returns the name of the filesystem that d is on, as mount(8) calls it.
func (d *Dir) FSName() (string, error) {
	var st unix.Statfs_t
	if err := Retry(func() error { return unix.Fstatfs(d.fd, &st) }); err != nil {
		return "", d.fail("statfs", "", err)
	}
	return fsName(st.Type), nil
}

// TimesProve reports whether d is on a filesystem where a file whose times and
// size are those of before has the content of before. ext4 (its driver serves
// ext2 and ext3 too), XFS, btrfs and f2fs move ctime with every change, with a
// store through a mapped page when that page becomes writable
// (file_update_time in their page_mkwrite), which it does anew after each
// write-back.
func (d *Dir) TimesProve() (bool, error) {
	name, err := d.FSName()
	if err != nil {
		return false, err
	}
	return name == "ext4" || name == "xfs" || name == "btrfs" || name == "f2fs", nil
}

// Unsuitable says why data on d cannot be kept by snap, and "" where it can: a
// filesystem that forgets (tmpfs), that another host may change (NFS, SMB,
// Ceph), or whose handles and durability are another program's word (FUSE,
// overlayfs, 9p).
func (d *Dir) Unsuitable() (string, error) {
	name, err := d.FSName()
	if err != nil {
		return "", err
	}
	switch name {
	case "tmpfs", "ramfs":
		return name + " keeps nothing across a reboot", nil
	case "nfs", "smb", "ceph", "9p":
		return name + " is shared with other hosts", nil
	case "fuse", "overlayfs":
		return name + " does not promise what a restore needs (stable handles, durable renames)", nil
	}
	return "", nil
}

// Space is what a filesystem has left for root.
type Space struct {
	Bytes  uint64 // free bytes
	Total  uint64 // bytes of the whole filesystem
	Inodes uint64 // free inodes; ^0 where the filesystem makes them on demand
}

// Space returns what the filesystem of d has left.
func (d *Dir) Space() (Space, error) {
	var st unix.Statfs_t
	if err := Retry(func() error { return unix.Fstatfs(d.fd, &st) }); err != nil {
		return Space{}, d.fail("statfs", "", err)
	}
	s := Space{Bytes: st.Bavail * uint64(st.Bsize), Total: st.Blocks * uint64(st.Bsize), Inodes: st.Ffree}
	if st.Files == 0 { // btrfs: inodes are made on demand
		s.Inodes = ^uint64(0)
	}
	return s, nil
}

// Locked reports whether d carries the immutable or the append-only flag
// (chattr +i, +a): nothing in it can then be renamed or removed, not even by
// root.
func (d *Dir) Locked() (bool, error) {
	locked, err := Locked(d.fd)
	return locked, d.fail("statx", "", err)
}

// Locked is [Dir.Locked] of the file or directory that is open as fd, by O_PATH
// too. Such a file can neither be removed nor renamed, and at most be appended
// to.
func Locked(fd int) (bool, error) { return lockedAt(fd, "", unix.AT_EMPTY_PATH) }

func lockedAt(fd int, name string, flags int) (bool, error) {
	var stx unix.Statx_t
	err := Retry(func() error {
		return unix.Statx(fd, name, flags|unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_SYNC_AS_STAT, unix.STATX_TYPE, &stx)
	})
	return stx.Attributes&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0, err
}
