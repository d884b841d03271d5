package swap

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
)

// Unfit says why a directory can never be exchanged, and what to do about it. It
// changed nothing.
type Unfit struct {
	Code string // stable, for machines: "mount_point"
	Hint string
	Err  error
}

func (u *Unfit) Error() string { return u.Err.Error() }
func (u *Unfit) Unwrap() error { return u.Err }

func (v *Volume) unfit(code, hint, format string, args ...any) *Unfit {
	return &Unfit{code, hint, fmt.Errorf("volume %s: "+format, append([]any{v.Name}, args...)...)}
}

func (v *Volume) unreachable(err error) error {
	switch {
	case errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) && v.isSymlink():
		return v.unfit("symlink_in_path", "name the real directory in the config: snap does not follow symbolic links on the way to a volume",
			"there is a symbolic link in the path below %s: %w", v.Root, err)
	case errors.Is(err, unix.ENOTDIR):
		return v.unfit("not_a_directory", "correct the source in the config: a volume must be a directory", "%w", err)
	}
	return err
}

// isSymlink reports whether a symbolic link stands at the live name. Opened as a
// directory without following it, a symlink is ENOTDIR.
func (v *Volume) isSymlink() bool {
	if v.parent == nil {
		return false
	}
	st, err := v.parent.Lstat(v.base)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK
}

// Fit refuses, with [*Unfit], a volume that a restore could not exchange.
func (v *Volume) Fit(mounts disk.Mounts) error {
	for _, d := range []*disk.Dir{v.Nearest(), v.Live} {
		if d == nil {
			return nil
		}
		why, err := d.Unsuitable()
		if err != nil {
			return err
		}
		if why != "" {
			return &Unfit{"unsuitable_filesystem", "keep the volume on ext4, xfs or btrfs", fmt.Errorf("volume %s (%s): %s", v.Name, v.Path(), why)}
		}
		locked, err := d.Locked()
		if err != nil {
			return err
		}
		if locked {
			return v.unfit("immutable", "chattr -i -a "+Quote(d.Path()), "%s has the immutable or the append-only flag", d.Path())
		}
	}
	isMount, err := v.Live.IsMountRoot()
	if err != nil {
		return err
	}
	if isMount {
		return v.unfit("mount_point", "mount the filesystem one directory above and make the volume a directory in it",
			"%s is a mount point, which cannot be exchanged", v.Path())
	}
	readOnly, err := v.Live.IsReadOnlySubvolume()
	if err != nil {
		return err
	}
	if readOnly {
		return v.unfit("read_only_subvolume", "btrfs property set -ts "+Quote(v.Path())+" ro false",
			"%s is a read-only subvolume, in which nothing can be deleted", v.Path())
	}
	inside, err := mounts.Inside(v.Live)
	if err != nil {
		return err
	}
	if inside != "" {
		return v.unfit("mount_inside", "umount "+Quote(inside), "%s is mounted inside the volume", inside)
	}
	return nil
}

// AllFit is [Volume.Fit] for several volumes.
func AllFit(volumes []*Volume) error {
	mounts, err := disk.ReadMounts()
	if err != nil {
		return err
	}
	for _, v := range volumes {
		if err := v.Fit(mounts); err != nil {
			return err
		}
	}
	return nil
}

// NoHolders refuses, with [*Unfit], directories that a holder uses: a process that
// which selects, or a loop device.
func NoHolders(dirs []*disk.Dir, which disk.Processes) error {
	found, err := disk.Holders(dirs, which)
	if err != nil || len(found) == 0 {
		return err
	}
	list := make([]string, 0, 5)
	for _, h := range found[:min(len(found), 5)] {
		list = append(list, h.String())
	}
	hint := "end these processes, then try again"
	if at := slices.IndexFunc(found, func(h disk.Holder) bool { return h.PID == 0 }); at >= 0 {
		hint = "unmount these devices and detach them (losetup -d " + found[at].Command + ")"
		if at > 0 {
			hint = "end these processes; " + hint
		}
		hint += ", then try again"
	}
	return &Unfit{"in_use", hint, fmt.Errorf("the data is in use: %s", strings.Join(list, "; "))}
}
