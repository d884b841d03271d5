package foreign

import (
	"net/url"
	"slices"
	"strings"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// meaningless are pax records that say nothing of the data, or say again what other
// fields say: GNU tar passes over them too. The times are those of the moment at which
// the archive was read.
var meaningless = []string{
	"atime", "ctime", "comment", "charset", "hdrcharset", "uname", "gname",
	"SCHILY.dev", "SCHILY.ino", "SCHILY.nlink", "SCHILY.archtype", "SCHILY.filetype", "SCHILY.volhdr.label",
	"LIBARCHIVE.creationtime", "LIBARCHIVE.symlinktype",
}

// What the kernel lets one file have (xattr(7)): XATTR_SIZE_MAX and XATTR_LIST_MAX.
const maxValue, maxNames = 64 << 10, 64 << 10

// attributes gives e the extended attributes among its records, and counts the others.
func (r *Reader) attributes(e *tarstream.Entry, x *overrides) error {
	keeps := e.Type == tarstream.Regular || e.Type == tarstream.Directory
	names, twins := 0, map[string]bool{}
	for _, p := range x.attributes {
		switch name, isAttr := strings.CutPrefix(p.key, tarstream.PaxXattr); {
		case isAttr:
			twins[name] = true
			name = tarstream.XattrName.Replace(name)
			if keeps && tarstream.KeptXattr(name) {
				if names += len(name) + 1; len(p.value) > maxValue || names > maxNames {
					return member.Refuse("%q: extended attribute %q: no file has so many, or such a large one", e.Name, name)
				}
				e.Xattrs = setXattr(e.Xattrs, name, []byte(p.value))
			} else if e.Type != tarstream.Hardlink { // the file itself has them
				r.drop("extended attribute " + name)
			}
		case strings.HasPrefix(p.key, aclPrefix), strings.HasPrefix(p.key, libarchive):
		case p.key == starFlags:
			r.drop("inode flags (" + starFlags + ")")
		case p.key == selinux:
			r.drop("extended attribute security.selinux")
		case !slices.Contains(meaningless, p.key) && !strings.HasPrefix(p.key, volumePrefix):
			r.drop("pax record " + p.key)
		}
	}
	// Of what comes in two forms, the attribute tells more: an ACL there has its ids.
	// libarchive writes each attribute in its own form too, with its name quoted.
	for _, p := range x.attributes {
		if kind, ok := strings.CutPrefix(p.key, aclPrefix); ok && e.Type != tarstream.Hardlink {
			r.textACL(e, kind, p.value)
		}
		if quoted, ok := strings.CutPrefix(p.key, libarchive); ok {
			if name, err := url.PathUnescape(quoted); err != nil || !twins[name] {
				r.drop("extended attribute " + quoted)
			}
		}
	}
	tarstream.SortXattrs(e.Xattrs)
	return nil
}

// setXattr sets an attribute, in place of an earlier one of that name.
func setXattr(list []tarstream.Xattr, name string, value []byte) []tarstream.Xattr {
	if i := slices.IndexFunc(list, func(x tarstream.Xattr) bool { return x.Name == name }); i >= 0 {
		list[i].Value = value
		return list
	}
	return append(list, tarstream.Xattr{Name: name, Value: value})
}

// textACL turns a POSIX ACL in text form into the attribute in which the kernel keeps
// one.
func (r *Reader) textACL(e *tarstream.Entry, kind, value string) {
	attr, ok := map[string]string{"access": tarstream.ACLAccess, "default": tarstream.ACLDefault}[kind]
	if !ok {
		r.drop("ACL of another kind (" + aclPrefix + kind + ")")
		return
	}
	if slices.ContainsFunc(e.Xattrs, func(x tarstream.Xattr) bool { return x.Name == attr }) {
		return
	}
	if e.Type != tarstream.Directory && (e.Type != tarstream.Regular || attr == tarstream.ACLDefault) {
		r.drop("ACL that such an entry cannot have")
		return
	}
	acl, why := r.names.parseACL(value)
	if why != "" {
		r.drop("ACL in text form, " + why)
		return
	}
	e.Xattrs = setXattr(e.Xattrs, attr, acl)
}
