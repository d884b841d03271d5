package swap

import (
	"errors"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
)

// Journals returns the paths of SQLite's journals beside a volume that is one file: a
// write-ahead log, or a rollback journal. SQLite applies what it finds there to the file,
// whichever file that is. A journal that is empty, or whose head is zeros, is finished
// with (https://www.sqlite.org/fileformat2.html, sections 3 and 4).
func (v *Volume) Journals() (paths []string, err error) {
	names, err := v.journals()
	for _, name := range names {
		paths = append(paths, v.parent.Path()+"/"+name)
	}
	return paths, err
}

func (v *Volume) journals() (found []string, err error) {
	if !v.File || v.parent == nil {
		return nil, nil
	}
	for _, suffix := range []string{"-wal", "-journal"} {
		name := v.base + suffix
		f, err := v.parent.OpenFile(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, disk.ErrDamaged) || errors.Is(err, unix.ELOOP) { // or not a file
			continue
		}
		if err != nil {
			return nil, err
		}
		var head [8]byte
		_, err = io.ReadFull(f, head[:])
		f.Close()
		if err == nil && head != [8]byte{} {
			found = append(found, name)
		}
	}
	return found, nil
}

// journalsAside gives the journals beside a file that is about to leave the live name another
// name, so that they are not applied to the one that comes in. They are of an app that
// ran on the file that leaves: the first exchange of a restore is refused where there
// are any.
func (x *Tx) journalsAside(v *Volume) error {
	names, err := v.journals()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := moveBeside(v.parent, name, v.parent, name, x.ID); err != nil {
			return err
		}
		x.Aside = append(x.Aside, v.parent.Path()+"/"+name)
		x.at("put aside " + name)
	}
	return nil
}
