package mounts

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// keeper is the directory that keeps an empty volume from being filled.
const keeper = ".snap-keep-empty"

// KeepEmpty keeps those of the volumes that are empty so, while containers are made of
// them and none is started yet: the engine puts the image's own files, their owner and
// their mode into a volume that has nothing in it (populateVolume in moby's
// daemon/create_unix.go). A directory of snap's own is something. release takes it away,
// and is nil where no volume is empty. What a call that was cut short left behind, the next
// one takes away.
func KeepEmpty(volumes []runtime.Volume) (release func() error, err error) {
	var kept []*keptEmpty
	take := func() error {
		var errs []error
		for _, k := range kept {
			errs = append(errs, k.release())
		}
		return errors.Join(errs...)
	}
	for _, v := range volumes {
		k, err := keepEmpty(cmp.Or(v.Path(), v.Source)) // its device, where it is a directory of the host
		if err != nil {
			return nil, errors.Join(fmt.Errorf("volume %s: %w", v.Name, err), take())
		}
		if k != nil {
			kept = append(kept, k)
		}
	}
	if len(kept) == 0 {
		return nil, nil
	}
	return take, nil
}

// keptEmpty is an empty volume with the keeper in it.
type keptEmpty struct {
	dir       *disk.Dir
	sec, nsec int64 // its time, without the keeper
}

// keepEmpty returns nil for a volume that is not empty.
func keepEmpty(path string) (*keptEmpty, error) {
	parent, err := disk.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	dir, err := parent.Open(filepath.Base(path))
	if err != nil {
		return nil, err
	}
	k := &keptEmpty{dir: dir}
	empty, err := k.keep()
	if err != nil || !empty {
		dir.Close()
		return nil, err
	}
	return k, nil
}

// keep puts the keeper into the volume, or takes over that of a call that was cut short.
// The keeper has the volume's own time, which its coming and going changes.
func (k *keptEmpty) keep() (empty bool, err error) {
	names, err := k.dir.Names()
	if err != nil || len(names) > 0 && !slices.Equal(names, []string{keeper}) {
		return false, err
	}
	if len(names) == 0 {
		if k.sec, k.nsec, err = k.dir.Mtime(); err == nil {
			err = k.dir.Mkdir(keeper, 0o700)
		}
		if err != nil {
			return false, err
		}
	}
	own, err := k.dir.Open(keeper)
	if err != nil {
		return false, err
	}
	defer own.Close()
	if len(names) == 0 {
		return true, own.SetMtime(k.sec, k.nsec)
	}
	k.sec, k.nsec, err = own.Mtime()
	return true, err
}

func (k *keptEmpty) release() error {
	defer k.dir.Close()
	if err := k.dir.Rmdir(keeper); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	names, err := k.dir.Names()
	if err == nil && len(names) == 0 {
		err = k.dir.SetMtime(k.sec, k.nsec)
	}
	return errors.Join(err, k.dir.Sync())
}
