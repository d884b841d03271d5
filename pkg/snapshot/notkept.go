package snapshot

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/workload"
)

// NotKept is one kind of thing that a snapshot of a volume does not hold, or that a
// restore does not bring back.
type NotKept struct {
	Volume string `json:"volume"`
	archive.Lost
}

// lostWords says of each kind what becomes of it. Sockets and what is excluded need no
// warning.
var lostWords = map[string]string{
	archive.LostSpecial:    "fifos and devices (special: skip) are left out",
	archive.LostSetuid:     "setuid and setgid bits of files are stripped by a restore (setuid: keep keeps them)",
	archive.LostCapability: "file capabilities are stripped by a restore (setuid: keep keeps them)",
	archive.LostTrusted:    "trusted.* attributes are stripped by a restore (setuid: keep keeps them)",
	archive.LostFlags:      "inode flags (chattr) that differ from the volume's own are not kept",
	archive.LostProject:    "project ids of directories that differ from the volume's own are not kept",
	archive.LostLabel:      "security labels that differ from the volume's own are not kept",
	archive.LostAttribute:  "extended attributes of the filesystem are not kept",
}

func (n NotKept) warning() string {
	words := lostWords[n.Kind]
	if words == "" {
		return ""
	}
	names := make([]string, len(n.Names))
	for i, name := range n.Names {
		names[i] = fmt.Sprintf("%q", name)
	}
	more := ""
	if n.Count > int64(len(names)) {
		more = fmt.Sprintf(" and %d more", n.Count-int64(len(names)))
	}
	return fmt.Sprintf("volume %s: %s: %s%s", n.Volume, words, strings.Join(names, ", "), more)
}

// NotKeptOf makes the list for one volume, and the warnings about it.
func NotKeptOf(volume string, lost []archive.Lost) (list []NotKept, warnings []string) {
	for _, l := range lost {
		n := NotKept{volume, l}
		list = append(list, n)
		if warning := n.warning(); warning != "" {
			warnings = append(warnings, warning)
		}
	}
	return list, warnings
}

// ExtractOptions are what the config says of a volume's archive.
func ExtractOptions(v *workload.Volume) archive.ExtractOptions {
	return archive.ExtractOptions{
		RejectSymlinks: v.Symlinks == workload.RejectSymlinks,
		KeepPrivileges: v.Setuid == workload.KeepSetuid,
		Special:        Special(v),
	}
}

// HeldByNone reports whether err says that a tree has something that no snapshot
// can hold.
func HeldByNone(err error) bool {
	var bad *archive.Unrestorable
	var nested *archive.Nested
	return errors.As(err, &bad) || errors.As(err, &nested)
}
