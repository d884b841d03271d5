package archive

import (
	"bytes"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/disk"
)

// readXattrs returns the attributes of an open file or directory that a volume keeps,
// sorted. On a filesystem without attributes there are none.
func readXattrs(fd int, buf []byte) ([]tarstream.Xattr, []byte, error) {
	names, buf, err := growing(buf, func(b []byte) (int, error) { return unix.Flistxattr(fd, b) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, buf, nil
	}
	if err != nil || len(names) == 0 {
		return nil, buf, err
	}
	var list []tarstream.Xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if !tarstream.KeptXattr(name) {
			continue
		}
		var value []byte
		value, buf, err = growing(buf, func(b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
		if errors.Is(err, unix.ENODATA) { // removed since it was listed
			continue
		}
		if err != nil {
			return nil, buf, err
		}
		list = append(list, tarstream.Xattr{Name: name, Value: bytes.Clone(value)})
	}
	tarstream.SortXattrs(list)
	return list, buf, nil
}

// growing calls get with buf, and with a larger buffer as long as get fails with
// ERANGE. It returns the part that was filled, and the buffer for the next call.
func growing(buf []byte, get func([]byte) (int, error)) (value, next []byte, err error) {
	for {
		if len(buf) == 0 {
			buf = make([]byte, 1024)
		}
		n, err := disk.RetryValue(func() (int, error) { return get(buf) })
		if err == nil {
			return buf[:n], buf, nil
		}
		// XATTR_SIZE_MAX and XATTR_LIST_MAX are 64 KiB (xattr(7)).
		if !errors.Is(err, unix.ERANGE) || len(buf) > 1<<17 {
			return nil, buf, err
		}
		buf = make([]byte, 4*len(buf))
	}
}
