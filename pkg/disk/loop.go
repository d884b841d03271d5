package disk

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// loops returns the loop devices that write to a file of the volumes.
func (s *scan) loops() []Holder {
	attached, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil { // the pattern is a constant
		return nil
	}
	var found []Holder
	for _, loop := range attached {
		block := filepath.Dir(loop)
		if ro, err := os.ReadFile(block + "/ro"); err != nil || string(ro) != "0\n" {
			continue
		}
		if path, how := s.attached(block); how != "" {
			found = append(found, Holder{0, device(block), path, how})
		}
	}
	return found
}

func device(block string) string { return "/dev/" + filepath.Base(block) }

// attached returns the path of the file that a loop device is made of and how it
// has it, which is "" where the file is of no volume.
//
// A file may be removed, renamed or detached between two of the looks that this
// takes, and then its path leads nowhere. So that is believed only when the path
// is the same afterwards.
func (s *scan) attached(block string) (path, how string) {
	for again := 3; ; again-- {
		path, ok := backingPath(block)
		if !ok { // detached
			return "", ""
		}
		how := s.holds(device(block), path)
		if how != lost || again == 0 {
			return path, how
		}
		if now, _ := backingPath(block); now == path {
			return path, how
		}
	}
}

// backingPath returns the path of a loop device's file, if it has one. It is
// that of the mount namespace in which the device was attached, whichever that
// was.
func backingPath(block string) (path string, ok bool) {
	text, err := os.ReadFile(block + "/loop/backing_file")
	return strings.TrimSuffix(string(text), "\n"), err == nil
}

// lost is how a loop device has a file that no process could show.
const lost = "attached, which is on the filesystem of the volume, and may be in it: the container that attached it is gone"

// holds says how a loop device has a file of the volumes by this path, which
// tells something only where it leads to the very file.
func (s *scan) holds(device, path string) string {
	file, err := backingFile(device)
	switch {
	case errors.Is(err, unix.ENXIO): // detached meanwhile
		return ""
	case err != nil: // no device file: all there is to go by is the path
		return s.attachedIn(s.own, path)
	case !slices.Contains(s.devices, file.dev): // where a container leads lookups to is its own affair then
		return ""
	}
	for _, v := range s.views {
		if !v.leadsTo(path, file) {
			continue
		}
		if mounts, err := s.table(v); err == nil {
			return s.attachedIn(mounts, path)
		}
	}
	if strings.HasSuffix(path, " (deleted)") { // nobody meets it again
		return ""
	}
	return lost
}

func (s *scan) attachedIn(mounts Mounts, path string) string {
	if mount, ok := mounts.covering(path, ""); ok && s.within(mount.place(path)) {
		return "attached"
	}
	return ""
}

// identity is a file as stat(2) tells it from others.
type identity struct{ dev, ino uint64 }

// backingFile returns which file a loop device is made of (loop(4),
// LOOP_GET_STATUS64).
func backingFile(device string) (identity, error) {
	fd, err := RetryValue(func() (int, error) {
		return unix.Open(device, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return identity{}, err
	}
	defer unix.Close(fd)
	status, err := unix.IoctlLoopGetStatus64(fd)
	if err != nil {
		return identity{}, err
	}
	return identity{status.Device, status.Inode}, nil
}

// leadsTo reports whether a path of the kernel's, which has no symbolic links,
// is that of a file in a mount namespace.
func (v view) leadsTo(path string, file identity) bool {
	root, err := RetryValue(func() (int, error) {
		return unix.Open(v.proc+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return false
	}
	defer unix.Close(root)
	fd, err := Openat2(root, path, unix.O_PATH|unix.O_NOFOLLOW, 0, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	return Retry(func() error { return unix.Fstat(fd, &st) }) == nil && file == identity{st.Dev, st.Ino}
}
