package swap

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
)

// FindOrphan returns the transaction of a wrapper beside root/rel that known does
// not list, or "". The name is read before known is called: a transaction is
// known before its wrapper is made.
func FindOrphan(root, rel string, known func() ([]string, error)) (string, error) {
	v, err := openVolume(journal.Volume{Root: root, Rel: rel})
	if v == nil {
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		return "", err
	}
	defer v.Close()
	// A restore follows no symbolic link, so it has left nothing beyond one.
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return v.Orphan(known)
}

// Orphan is [FindOrphan] for an open volume.
func (v *Volume) Orphan(known func() ([]string, error)) (string, error) {
	if v.parent == nil {
		return "", nil
	}
	names, err := v.parent.Names()
	if err != nil {
		return "", err
	}
	ids, err := known()
	if err != nil {
		return "", err
	}
	for _, name := range names {
		id, ok := strings.CutPrefix(name, journal.Wrapper(""))
		if !ok || !disk.ValidID(id) || slices.Contains(ids, id) {
			continue
		}
		there, err := v.parent.Exists(name)
		if err != nil {
			return "", err
		}
		if there { // else it ended meanwhile
			return id, nil
		}
	}
	return "", nil
}
