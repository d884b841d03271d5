package archive

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/disk"
)

// times returns the argument of utimensat(2) that sets mtime and leaves the access
// time as it is.
func times(t tarstream.Timespec) []unix.Timespec {
	return []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: t.Sec, Nsec: t.Nsec}}
}

// apply sets the metadata of an open file or directory. Only this order keeps all of
// it: chown clears setuid and capabilities (chown(2)), an ACL overrides the group bits
// that chmod sets (acl(5)), and every step updates ctime.
func (o *ExtractOptions) apply(fd int, e *tarstream.Entry) error {
	// Values that are right already are not set: each would be another change in the
	// filesystem's journal.
	var st unix.Stat_t
	if err := disk.Retry(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return fail("stat", e.Name, err)
	}
	if st.Uid != e.UID || st.Gid != e.GID {
		if err := disk.Retry(func() error { return unix.Fchown(fd, int(e.UID), int(e.GID)) }); err != nil {
			return fail("chown", e.Name, err)
		}
	}
	mode := o.mode(e)
	if mode != e.Mode {
		o.lost(LostSetuid, e.Name)
	}
	if st.Mode&0o7777 != mode || mode&(unix.S_ISUID|unix.S_ISGID) != 0 { // which chown has cleared
		if err := disk.Retry(func() error { return unix.Fchmod(fd, mode) }); err != nil {
			return fail("chmod", e.Name, err)
		}
	}
	for _, attr := range e.Xattrs {
		if tarstream.PrivilegedXattr(attr.Name) && !o.KeepPrivileges {
			kind := LostTrusted
			if attr.Name == capability {
				kind = LostCapability
			}
			o.lost(kind, e.Name)
			continue
		}
		if err := disk.Retry(func() error { return unix.Fsetxattr(fd, attr.Name, attr.Value, 0) }); err != nil {
			if o.foreign && errors.Is(err, unix.ENOSPC) && roomy(fd) {
				return member.Refuse("%q: its filesystem has no room for the %d bytes of extended attribute %q beside the others of this file (ext4 keeps 4 KiB in all)", e.Name, len(attr.Value), attr.Name)
			}
			return xattrError(e, attr, err)
		}
	}
	if err := o.label(e.Name, func(label []byte) error { return unix.Fsetxattr(fd, selinuxLabel, label, 0) }); err != nil {
		return err
	}
	// The x/sys wrapper cannot pass a null path, as futimens does; AT_EMPTY_PATH does
	// the same since Linux 5.8.
	return o.setTime(fd, "", unix.AT_EMPTY_PATH, e)
}

// setTime sets the time of name below fd. A filesystem gives a time that it cannot hold
// the nearest that it can (utimensat(2)). What a capture has read fits; what another
// program wrote may not.
func (o *ExtractOptions) setTime(fd int, name string, flags int, e *tarstream.Entry) error {
	err := disk.Retry(func() error { return unix.UtimesNanoAt(fd, name, times(e.Mtime), flags) })
	if err != nil || !o.foreign || e.Mtime.Sec == int64(int32(e.Mtime.Sec)) {
		return wrapIf("set the time of", e.Name, err)
	}
	var st unix.Stat_t
	if err := disk.Retry(func() error { return unix.Fstatat(fd, name, &st, flags) }); err != nil {
		return fail("stat", e.Name, err)
	}
	if st.Mtim.Sec != e.Mtime.Sec {
		return member.Refuse("%q has a time that the filesystem cannot hold, %d seconds after 1970", e.Name, e.Mtime.Sec)
	}
	return nil
}

// The extended attributes that have a meaning here.
const (
	capability   = "security.capability"
	selinuxLabel = "security.selinux"
)

// mode returns the mode that e is created with.
func (o *ExtractOptions) mode(e *tarstream.Entry) uint32 {
	if e.Type == tarstream.Directory || o.KeepPrivileges {
		return e.Mode
	}
	return e.Mode &^ (unix.S_ISUID | unix.S_ISGID)
}

// label gives name the label of the volume. Where that is not allowed, the name keeps
// the label that the host gives to new files, and counts as lost.
func (o *ExtractOptions) label(name string, set func(label []byte) error) error {
	if o.Label == "" {
		return nil
	}
	err := disk.Retry(func() error { return set([]byte(o.Label)) })
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		o.lost(LostLabel, name)
		return nil
	}
	return wrapIf("label", name, err)
}

// roomy reports whether the filesystem of fd is certainly not full.
func roomy(fd int) bool {
	var st unix.Statfs_t
	err := disk.Retry(func() error { return unix.Fstatfs(fd, &st) })
	return err == nil && st.Bavail*uint64(st.Bsize) > 1<<20
}

func xattrError(e *tarstream.Entry, attr tarstream.Xattr, err error) error {
	// EINVAL: an invalid ACL; EACCES: a default ACL of a file; E2BIG and ERANGE: a
	// value or a name that no filesystem accepts (setxattr(2), xattr(7)).
	forged := errors.Is(err, unix.EINVAL) || errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ERANGE) ||
		errors.Is(err, unix.EACCES) && attr.Name == tarstream.ACLDefault && e.Type != tarstream.Directory
	if forged {
		return member.Refuse("%q: extended attribute %q: %w", e.Name, attr.Name, err)
	}
	return fail(fmt.Sprintf("set extended attribute %q of", attr.Name), e.Name, err)
}

func wrapIf(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return fail(op, name, err)
}

// made is wrapIf for creating a name. It refuses the archive if the failure is the
// archive's fault: the name exists already, or no filesystem accepts it.
func made(op, name string, err error) error {
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENAMETOOLONG) || errors.Is(err, unix.EILSEQ) || errors.Is(err, unix.EINVAL) {
		return member.Refuse("%s %q: %w", op, name, err)
	}
	return wrapIf(op, name, err)
}

// readXattrs sets the attributes of e to those of its open file or directory that a
// volume keeps, and counts those that are lost. On a filesystem without attributes
// there are none.
func (w *Writing) readXattrs(fd int, n *node, e *tarstream.Entry) error {
	e.Xattrs = nil
	buf := &w.xbuf
	counted := n.listed
	n.listed = true
	names, err := growing(buf, func(b []byte) (int, error) { return unix.Flistxattr(fd, b) })
	if errors.Is(err, unix.EOPNOTSUPP) || err == nil && len(names) == 0 {
		return nil
	}
	if err != nil {
		return fail("read the extended attributes of", e.Name, err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		get := func() ([]byte, error) {
			return growing(buf, func(b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
		}
		var err error
		if !counted {
			err = w.census.attribute(n, name, get)
		}
		if err == nil && !tarstream.KeptXattr(name) {
			continue
		}
		var value []byte
		if err == nil {
			value, err = get()
		}
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
