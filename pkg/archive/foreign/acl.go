package foreign

import (
	"cmp"
	"encoding/binary"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

// aclEntry is one entry of a POSIX ACL (include/uapi/linux/posix_acl.h and
// posix_acl_xattr.h).
type aclEntry struct {
	tag, perm uint16
	id        uint32
}

const (
	userObj, user, groupObj, group, mask, other = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
	noID                                        = math.MaxUint32
	aclVersion                                  = 2
	// mostACL is more entries than an attribute can hold.
	mostACL = 8192
)

// parseACL turns the text of an ACL (acl(5), "ACL TEXT FORMS") into the attribute that
// the kernel keeps. The entries come in lines or between commas. star and bsdtar append
// the id to the entry of a named user or group, and that counts more than the name. Where
// the ACL has no meaning here, parseACL says why.
func (n *names) parseACL(s string) (attr []byte, why string) {
	const malformed = "which is malformed"
	var list []aclEntry
	for line := range strings.SplitSeq(s, "\n") {
		line, _, _ = strings.Cut(line, "#")
		for field := range strings.SplitSeq(line, ",") {
			if field = strings.TrimSpace(field); field == "" {
				continue
			}
			e, ok, named := n.parseEntry(field)
			if !named {
				return nil, "which names somebody whom this host does not know"
			}
			if !ok || len(list) == mostACL {
				return nil, malformed
			}
			list = append(list, e)
		}
	}
	// The kernel takes the entries in this order alone (fs/posix_acl.c, posix_acl_valid).
	slices.SortFunc(list, func(a, b aclEntry) int { return cmp.Or(cmp.Compare(a.tag, b.tag), cmp.Compare(a.id, b.id)) })
	count := map[uint16]int{}
	for i, e := range list {
		if i > 0 && e.tag == list[i-1].tag && e.id == list[i-1].id {
			return nil, malformed
		}
		count[e.tag]++
	}
	if count[userObj] != 1 || count[groupObj] != 1 || count[other] != 1 || count[user]+count[group] > 0 && count[mask] != 1 {
		return nil, malformed
	}
	attr = binary.LittleEndian.AppendUint32(attr, aclVersion)
	for _, e := range list {
		attr = binary.LittleEndian.AppendUint16(attr, e.tag)
		attr = binary.LittleEndian.AppendUint16(attr, e.perm)
		attr = binary.LittleEndian.AppendUint32(attr, e.id)
	}
	return attr, ""
}

// tags are the types of an entry, with and without a name.
var tags = map[string][2]uint16{
	"user": {userObj, user}, "u": {userObj, user}, "group": {groupObj, group}, "g": {groupObj, group},
	"mask": {mask, 0}, "m": {mask, 0}, "other": {other, 0}, "o": {other, 0},
}

// parseEntry reads "user:NAME:rwx", with ":ID" after it or without. named is false where
// nothing tells whose id NAME is.
func (n *names) parseEntry(field string) (e aclEntry, ok, named bool) {
	parts := strings.Split(field, ":")
	if len(parts) == 2 { // mask:rwx and other:rwx, as Solaris writes them
		parts = []string{parts[0], "", parts[1]}
	}
	if len(parts) < 3 || len(parts) > 4 {
		return e, false, true
	}
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	kind, known := tags[parts[0]]
	e = aclEntry{tag: kind[0], id: noID}
	if e.perm, ok = permissions(parts[2]); !ok || !known {
		return e, false, true
	}
	if parts[1] == "" {
		return e, len(parts) == 3, true
	}
	if e.tag = kind[1]; e.tag == 0 {
		return e, false, true
	}
	if len(parts) == 4 {
		e.id, ok = numericID(parts[3])
		return e, ok, true
	}
	if e.id, ok = numericID(parts[1]); ok {
		return e, true, true
	}
	e.id, named = n.id(e.tag, parts[1])
	return e, named, named
}

// permissions reads "rwx": each letter once, or "-" in its place.
func permissions(s string) (perm uint16, ok bool) {
	for _, c := range s {
		bit := map[rune]uint16{'r': 4, 'w': 2, 'x': 1}[c]
		if bit == 0 && c != '-' || perm&bit != 0 {
			return 0, false
		}
		perm |= bit
	}
	return perm, s != ""
}

func numericID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n != noID
}

// names are the users and groups of this host, read once they are needed. An archive
// may not make snap ask for a name anywhere else, in a directory on the network.
type names struct{ users, groups map[string]uint32 }

func (n *names) id(tag uint16, name string) (uint32, bool) {
	known, file := &n.users, "/etc/passwd"
	if tag == group {
		known, file = &n.groups, "/etc/group"
	}
	if *known == nil {
		*known = map[string]uint32{}
		text, _ := os.ReadFile(file) // without it nobody is known
		for line := range strings.Lines(string(text)) {
			// Of a line, passwd(5) and group(5) have the name first and the id third.
			if f := strings.SplitN(line, ":", 4); len(f) == 4 {
				if id, ok := numericID(f[2]); ok {
					(*known)[f[0]] = id
				}
			}
		}
	}
	id, ok := (*known)[name]
	return id, ok
}
