package swap

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/remedy"
)

// Unfit says why a directory or a file can never be exchanged, and what to do about it. It
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
		return v.unfit("symlink_in_path", "name the real path in the config, and where containers mount it: snap does not follow symbolic links on the way to a volume",
			"there is a symbolic link in the path below %s: %w", v.Root, err)
	case errors.Is(err, unix.ENOTDIR):
		return v.unfit("not_a_directory", "correct the source in the config: a volume must be a directory, or one regular file", "%w", err)
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

// Expect says what the new data is: one file, or a directory. It refuses, with [*Unfit],
// a volume whose live data is the other. One that does not exist is made as that.
func (v *Volume) Expect(file bool) error {
	away := "move it away (mv " + remedy.Quote(v.Path()) + " " + remedy.Quote(v.Path()+".away") + ")"
	switch {
	case file && v.EngineVolume != "":
		return v.unfit("not_a_file", "correct the config: what the engine makes is a directory", "the snapshot has one file, and %s is a volume of the engine", v.EngineVolume)
	case v.Live == nil:
		v.File = file
	case file && !v.File:
		return v.unfit("not_a_file", "if an engine made the directory because the file was missing, remove the containers that mount it (docker rm -f) and then the directory (rmdir "+
			remedy.Quote(v.Path())+"); or "+away, "the snapshot has one file, and %s is a directory", v.Path())
	case v.File && !file:
		return v.unfit("not_a_directory", away+", and remove the containers that mount it (docker rm -f)", "the snapshot has a directory, and %s is a file", v.Path())
	}
	return nil
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
			return v.unfit("immutable", "chattr -i -a "+remedy.Quote(d.Path()), "%s has the immutable or the append-only flag", d.Path())
		}
	}
	isMount, err := v.Live.IsMountRoot()
	if err != nil {
		return err
	}
	if isMount {
		return v.mountPoint(mounts)
	}
	if v.File {
		return nil
	}
	readOnly, err := v.Live.IsReadOnlySubvolume()
	if err != nil {
		return err
	}
	if readOnly {
		return v.unfit("read_only_subvolume", "btrfs property set -ts "+remedy.Quote(v.Path())+" ro false",
			"%s is a read-only subvolume, in which nothing can be deleted", v.Path())
	}
	inside, err := mounts.Inside(v.Live)
	if err != nil {
		return err
	}
	if inside != "" {
		return v.unfit("mount_inside", "umount "+remedy.Quote(inside), "%s is mounted inside the volume", inside)
	}
	return nil
}

// mountPoint says what to change where the live directory is a mount point: of a disk of
// its own, of a subvolume, or of another directory.
func (v *Volume) mountPoint(mounts disk.Mounts) error {
	mount, other, err := mounts.Other(v.Live)
	if err != nil {
		return err
	}
	elsewhere := "/mnt/" + v.base
	if v.File {
		hint := "stop the app, copy the file, umount " + remedy.Quote(v.Path()) + ", and put the copy there"
		if other != "" {
			hint = "name the file itself in the config, and where containers mount it: " + remedy.Quote(other)
		}
		return v.unfit("mount_point", hint+"; until then capture, export and a restore into another directory work", "%s is a mount point (of %s), which cannot be exchanged", v.Path(), mount.Source)
	}
	hint := fmt.Sprintf("make it a directory of that filesystem: stop the app, umount %s, mount %s at %s instead (in /etc/fstab too), move its files into the new directory %s/data, and name that directory in the config; until then capture, export and a restore into another directory work",
		remedy.Quote(v.Path()), mount.Source, remedy.Quote(elsewhere), elsewhere)
	if other != "" {
		hint = "name the directory itself in the config, and where containers mount it: " + remedy.Quote(other) + "; until then capture, export and a restore into another directory work"
	}
	return v.unfit("mount_point", hint, "%s is a mount point (of %s), which cannot be exchanged", v.Path(), mount.Source)
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

// Quota returns the project whose quota counts the live directory, and what the quota
// has free; 0 where there is none. Until the end the staged tree counts beside the live
// one. Where a directory hands its project down, statfs tells of the quota in place of
// the filesystem (ext4 and XFS).
func (v *Volume) Quota() (project uint32, free uint64, err error) {
	if v.Live == nil {
		return 0, 0, nil
	}
	properties, err := v.Live.Properties()
	if err != nil || properties.Project == 0 {
		return 0, 0, err
	}
	inProject, err := v.Live.Space()
	if err != nil {
		return 0, 0, err
	}
	above, err := v.Nearest().Space()
	if err != nil || inProject.Total >= above.Total {
		return 0, 0, err
	}
	return properties.Project, inProject.Bytes, nil
}
