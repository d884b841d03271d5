package disk

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Handle names one directory, or one file, for as long as it exists, wherever it is
// moved. It consists of the identity of the filesystem and the kernel's handle
// ([FileHandle]), "<filesystem>.<type>.<bytes>". Two handles are equal if they name
// the same one. The empty Handle names nothing.
type Handle string

// Handle returns the handle of d.
func (d *Dir) Handle() (Handle, error) {
	id, err := d.Filesystem()
	if err != nil {
		return "", err
	}
	h, err := fileHandle(d.fd)
	if err != nil {
		return "", d.fail("name_to_handle_at", "", err)
	}
	return Handle(string(id) + "." + h), nil
}

// FileHandle returns the kernel's handle of the open file fd, which may be O_PATH:
// its type and its bytes in hexadecimal, "1.0c00000072a5…". On the filesystems of
// [Dir.TimesProve] it holds the number and the generation of the inode, so no two
// files of one filesystem ever have the same handle. It is "" on a filesystem
// without handles.
func FileHandle(fd int) (string, error) {
	h, err := fileHandle(fd)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return "", nil
	}
	return h, err
}

func fileHandle(fd int) (string, error) {
	h, err := RetryValue(func() (unix.FileHandle, error) {
		h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
		return h, err
	})
	if err != nil {
		return "", err
	}
	b := h.Bytes()
	out := make([]byte, 0, 4+2*len(b))
	out = strconv.AppendUint(out, uint64(uint32(h.Type())), 16)
	return string(hex.AppendEncode(append(out, '.'), b)), nil
}

// HandleOf returns the handle of the directory rel below d. Only ENOENT counts as
// absence, for which HandleOf returns "".
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

// FSID identifies a filesystem across reboots and mounts. It is the type and the
// UUID, "ext4-0f3c…", and contains no dot and no slash.
type FSID string

// Filesystem returns the identity of d's filesystem.
func (d *Dir) Filesystem() (FSID, error) {
	st, err := d.statfs()
	if err != nil {
		return "", err
	}
	uuid, err := d.uuid(&st)
	if err != nil {
		return "", d.fail("read the filesystem's UUID", "", err)
	}
	return FSID(fsName(st.Type) + "-" + hex.EncodeToString(uuid)), nil
}

// XFS_IOC_FSGEOMETRY_V1 (fs/xfs/libxfs/xfs_fs.h) gives 112 bytes, with the UUID at
// byte 64.
const xfsIocFSGeometryV1 = 0x80705864

func (d *Dir) uuid(st *unix.Statfs_t) ([]byte, error) {
	// ext4 and btrfs derive f_fsid from their UUID, on every kernel in the same way,
	// so a transaction survives a kernel upgrade (FS_IOC_GETFSUUID is new in 6.9).
	// XFS derives it from the device number, which may change at a reboot
	// (fs/xfs/xfs_super.c); its own ioctl tells the UUID.
	if st.Type == unix.XFS_SUPER_MAGIC {
		var geo [112]byte
		err := Retry(func() error {
			_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), xfsIocFSGeometryV1, uintptr(unsafe.Pointer(&geo)))
			if errno != 0 {
				return errno
			}
			return nil
		})
		return geo[64:80], err
	}
	id := binary.LittleEndian.AppendUint32(nil, uint32(st.Fsid.Val[0]))
	return binary.LittleEndian.AppendUint32(id, uint32(st.Fsid.Val[1])), nil
}

// Locate returns the present path, for messages, of the directory with handle h, seen
// through the mount of d, and "" if the directory no longer exists. It needs
// CAP_DAC_READ_SEARCH (open_by_handle_at(2)).
func (d *Dir) Locate(h Handle) (string, error) {
	id, err := d.Filesystem()
	if err != nil {
		return "", err
	}
	parts := strings.Split(string(h), ".")
	if len(parts) != 3 || parts[0] != string(id) {
		return "", fmt.Errorf("handle %s is not of the filesystem of %s", h, d.path)
	}
	kind, kindErr := strconv.ParseUint(parts[1], 16, 32)
	data, dataErr := hex.DecodeString(parts[2])
	if err := errors.Join(kindErr, dataErr); err != nil {
		return "", fmt.Errorf("handle %s: %w", h, err)
	}
	fd, err := RetryValue(func() (int, error) {
		return unix.OpenByHandleAt(d.fd, unix.NewFileHandle(int32(uint32(kind)), data), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	})
	if errors.Is(err, unix.ESTALE) {
		return "", nil
	}
	if err != nil {
		return "", d.fail("open_by_handle_at", "", err)
	}
	found := &Dir{fd: fd, path: d.path}
	defer found.Close()
	st, err := found.Stat()
	if err != nil || st.Nlink == 0 { // 0: removed, but somebody still has it open
		return "", err
	}
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
}
