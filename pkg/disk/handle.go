package disk

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Handle names one directory for as long as it exists, wherever it is moved:
// the UUID of its filesystem and the kernel's file handle, which holds the
// inode's number and generation, so that a directory created later on a
// recycled inode has another (name_to_handle_at(2)). The form is
// "<fs>.<type>.<bytes>", all in hexadecimal; two are equal when they name the
// same directory. The empty Handle names nothing.
type Handle string

// Handle returns the handle of d.
func (d *Dir) Handle() (Handle, error) {
	id, err := d.Filesystem()
	if err != nil {
		return "", err
	}
	h, err := RetryValue(func() (unix.FileHandle, error) {
		h, _, err := unix.NameToHandleAt(d.fd, "", unix.AT_EMPTY_PATH)
		return h, err
	})
	if err != nil {
		return "", d.fail("name_to_handle_at", "", err)
	}
	return Handle(fmt.Sprintf("%s.%x.%s", id, uint32(h.Type()), hex.EncodeToString(h.Bytes()))), nil
}

// FileHandle returns the kernel's handle of whatever fd, which may be O_PATH,
// is open on: its type and its bytes in hexadecimal, "1.0c00000072a5…". On the
// filesystems where times prove something it holds the inode's number and
// generation, so no two files of one filesystem have ever the same. It is ""
// where there are no handles.
func FileHandle(fd int) (string, error) {
	h, err := RetryValue(func() (unix.FileHandle, error) {
		h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
		return h, err
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	b := h.Bytes()
	out := make([]byte, 0, 4+2*len(b))
	out = strconv.AppendUint(out, uint64(uint32(h.Type())), 16)
	return string(hex.AppendEncode(append(out, '.'), b)), nil
}

// HandleOf returns the handle of the directory rel below d, and "" when
// nothing is there. Only ENOENT is absence; every other failure is an error.
func (d *Dir) HandleOf(rel string) (Handle, error) {
	sub, err := d.Open(rel)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer sub.Close()
	return sub.Handle()
}

// FSID identifies a filesystem across reboots and mounts: its type and its
// UUID, "ext4-0f3c…". It contains no dot and no slash.
type FSID string

// Filesystem returns the identity of the filesystem that d is on.
func (d *Dir) Filesystem() (FSID, error) {
	var st unix.Statfs_t
	if err := Retry(func() error { return unix.Fstatfs(d.fd, &st) }); err != nil {
		return "", d.fail("statfs", "", err)
	}
	uuid, err := d.uuid(&st)
	if err != nil {
		return "", d.fail("read the filesystem's uuid", "", err)
	}
	return FSID(fsName(st.Type) + "-" + hex.EncodeToString(uuid)), nil
}

// XFS_IOC_FSGEOMETRY_V1 (fs/xfs/libxfs/xfs_fs.h): 112 bytes, the UUID at 64.
const xfsIocFSGeometryV1 = 0x80705864

func (d *Dir) uuid(st *unix.Statfs_t) ([]byte, error) {
	// ext4 and btrfs make f_fsid of their UUID, on every kernel alike, so that a
	// transaction survives a kernel upgrade (FS_IOC_GETFSUUID came with 6.9).
	// XFS makes it of the device number, which a reboot may change
	// (fs/xfs/xfs_super.c), so it is asked by its own ioctl.
	if st.Type == unix.XFS_SUPER_MAGIC {
		var geo [112]byte
		if err := ioctl(d.fd, xfsIocFSGeometryV1, unsafe.Pointer(&geo)); err != nil {
			return nil, err
		}
		return geo[64:80], nil
	}
	id := make([]byte, 8)
	binary.LittleEndian.PutUint32(id, uint32(st.Fsid.Val[0]))
	binary.LittleEndian.PutUint32(id[4:], uint32(st.Fsid.Val[1]))
	return id, nil
}

func ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	return Retry(func() error {
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg)); e != 0 {
			return e
		}
		return nil
	})
}
