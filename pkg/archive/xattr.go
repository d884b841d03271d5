package archive

import (
	"bytes"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/disk"
)

// readXattrs sets the attributes of e to those of its open file or directory that a
// volume keeps. On a filesystem without attributes there are none. The memory buf is
// used again from call to call.
func readXattrs(fd int, e *tarstream.Entry, buf *[]byte) error {
	e.Xattrs = nil
	names, err := growing(buf, func(b []byte) (int, error) { return unix.Flistxattr(fd, b) })
	if errors.Is(err, unix.EOPNOTSUPP) || err == nil && len(names) == 0 {
		return nil
	}
	if err != nil {
		return fail("read the extended attributes of", e.Name, err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if !tarstream.KeptXattr(name) {
			continue
		}
		value, err := growing(buf, func(b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
		if errors.Is(err, unix.ENODATA) { // removed since it was listed
			continue
		}
		if err != nil {
			return fail("read the extended attributes of", e.Name, err)
		}
		e.Xattrs = append(e.Xattrs, tarstream.Xattr{Name: name, Value: bytes.Clone(value)})
	}
	tarstream.SortXattrs(e.Xattrs)
	return nil
}

// growing calls get with buf, which it enlarges as long as get fails with ERANGE. It
// returns the part that was filled.
func growing(buf *[]byte, get func([]byte) (int, error)) ([]byte, error) {
	for {
		if len(*buf) == 0 {
			*buf = make([]byte, 1024)
		}
		n, err := disk.RetryValue(func() (int, error) { return get(*buf) })
		if err == nil {
			return (*buf)[:n], nil
		}
		// XATTR_SIZE_MAX and XATTR_LIST_MAX are 64 KiB (xattr(7)).
		if !errors.Is(err, unix.ERANGE) || len(*buf) > 1<<17 {
			return nil, err
		}
		*buf = make([]byte, 4*len(*buf))
	}
}
