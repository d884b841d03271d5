package tarstream

import "strings"

// The kernel stores POSIX ACLs as extended attributes (acl(5)). snap keeps the bytes
// of the attribute, with numeric ids.
const (
	ACLAccess  = "system.posix_acl_access"
	ACLDefault = "system.posix_acl_default"
)

// A pax keyword ends at the first "=", and the name of an attribute may contain
// one. GNU tar writes it as %3D, and a percent sign as %25 (xheader.c,
// xattr_encode_keyword). XattrName decodes such a keyword.
var (
	xattrKey  = strings.NewReplacer("%", "%25", "=", "%3D")
	XattrName = strings.NewReplacer("%25", "%", "%3D", "=")
)

// KeptXattr reports whether an attribute belongs to the data. User attributes, ACLs,
// file capabilities and trusted attributes do. Labels of the host's security modules
// and tuning of its filesystem do not.
func KeptXattr(name string) bool {
	return name == ACLAccess || name == ACLDefault || strings.HasPrefix(name, "user.") || PrivilegedXattr(name)
}

// PrivilegedXattr reports whether an attribute grants privileges. A restore sets such
// an attribute only if the config says so.
func PrivilegedXattr(name string) bool {
	return name == "security.capability" || strings.HasPrefix(name, "trusted.")
}
