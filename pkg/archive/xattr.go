package archive

import (
	"bytes"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
)

// POSIX ACLs are extended attributes to the kernel (acl(5)); snap carries them
// as what they are, with numeric ids.
const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// A pax keyword ends at the first "=", which an attribute's name may hold. GNU
// tar writes it as %3D, and the per cent sign as %25 (xheader.c,
// xattr_encode_keyword).
var (
	xattrKey  = strings.NewReplacer("%", "%25", "=", "%3D")
	xattrName = strings.NewReplacer("%25", "%", "%3D", "=")
)

// keptXattr reports whether an attribute belongs to the data: the user's own,
// ACLs, file capabilities and trusted ones. Labels of the host's security
// modules and tunings of its filesystem do not.
func keptXattr(name string) bool {
	return name == aclAccess || name == aclDefault || strings.HasPrefix(name, "user.") || privilegedXattr(name)
}

// privilegedXattr reports whether an attribute gives power, and so is put back
// only where the config says so.
func privilegedXattr(name string) bool {
	return name == "security.capability" || strings.HasPrefix(name, "trusted.")
}

// readXattrs returns the kept attributes of an open file or directory, sorted.
// A filesystem without attributes has none.
func readXattrs(fd int, buf []byte) ([]Xattr, []byte, error) {
	names, buf, err := growing(buf, func(b []byte) (int, error) { return unix.Flistxattr(fd, b) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, buf, nil
	}
	if err != nil || len(names) == 0 {
		return nil, buf, err
	}
	var list []Xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if !keptXattr(name) {
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
		list = append(list, Xattr{name, bytes.Clone(value)})
	}
	sortXattrs(list)
	return list, buf, nil
}

// growing calls get with buf, and with a larger one as long as it answers
// ERANGE. It returns the part that was filled and the buffer for the next call.
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
