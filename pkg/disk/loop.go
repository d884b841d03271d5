package disk

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A loop device holds its backing file in the kernel, without a process: no
// /proc/<pid>/fd shows that the mounted image of a virtual disk in a volume is
// still written to.

// loops returns the loop devices that write to a file of the volumes.
func (s *scan) loops() []Holder {
	backed, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil { // the pattern is a constant
		return nil
	}
	var found []Holder
	for _, loop := range backed {
		block := filepath.Dir(loop)
		if ro, err := os.ReadFile(block + "/ro"); err != nil || string(ro) != "0\n" {
			continue
		}
		if path, how := s.attached(block); how != "" {
			found = append(found, Holder{Command: device(block), Path: path, How: how})
		}
	}
	return found
}

func device(block string) string { return "/dev/" + filepath.Base(block) }

// attached returns the path of a loop device's backing file and how the device
// holds it; how is "" when the file belongs to no volume. A file that is removed or
// renamed meanwhile has a path that leads nowhere, so that result counts only when
// the path is still the same.
func (s *scan) attached(block string) (path, how string) {
	for range 4 {
		var ok bool
		if path, ok = backingPath(block); !ok { // detached
			return "", ""
		}
		how = s.holds(device(block), path)
		if now, _ := backingPath(block); how != unknown || now == path {
			break
		}
	}
	return path, how
}

// backingPath returns the path of a loop device's backing file, as it was in the
// mount namespace that attached the device. The kernel does not say which one.
func backingPath(block string) (path string, ok bool) {
	text, err := os.ReadFile(block + "/loop/backing_file")
	return strings.TrimSuffix(string(text), "\n"), err == nil
}

// unknown is said of a backing file that is on a volume's filesystem and that no
// mount namespace shows at its path.
const unknown = Attached + ", which is on the filesystem of the volume and may be in the volume: the container that attached it is gone"

// holds says how a loop device holds a file of the volumes, and "" if it holds
// none. The path counts only in a mount namespace in which it leads to this very
// file: a container may have attached another file under the same path.
func (s *scan) holds(device, path string) string {
	file, err := backingFile(device)
	switch {
	case errors.Is(err, unix.ENXIO): // detached meanwhile
		return ""
	case err != nil: // without a device node there is only the path
		return s.attachedIn(s.namespaces[0].mounts, path)
	case !slices.Contains(s.devices, file.dev): // no lookups in a container's tree for it
		return ""
	}
	for _, ns := range s.namespaces {
		if !ns.leadsTo(path, file) {
			continue
		}
		return s.attachedIn(ns.mounts, path)
	}
	if strings.HasSuffix(path, " (deleted)") { // nobody can open it any more
		return ""
	}
	return unknown
}

func (s *scan) attachedIn(mounts Mounts, path string) string {
	if mount, ok := mounts.covering(path, ""); ok && s.within(mount.place(path)) {
		return Attached
	}
	return ""
}

// identity tells a file from all others (stat(2)).
type identity struct{ dev, ino uint64 }

// backingFile returns the identity of a loop device's backing file (loop(4),
// LOOP_GET_STATUS64).
func backingFile(device string) (identity, error) {
	f, err := os.OpenFile(device, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return identity{}, err
	}
	defer f.Close()
	status, err := RetryValue(func() (*unix.LoopInfo64, error) { return unix.IoctlLoopGetStatus64(int(f.Fd())) })
	if err != nil {
		return identity{}, err
	}
	return identity{status.Device, status.Inode}, nil
}

// leadsTo reports whether path leads to a file in a mount namespace. A path that
// the kernel gives contains no symbolic links.
func (ns *namespace) leadsTo(path string, file identity) bool {
	if ns.proc == "" {
		return false
	}
	root, err := OpenRoot(ns.proc + "/root")
	if err != nil {
		return false
	}
	defer root.Close()
	fd, err := Openat2(root.fd, strings.TrimPrefix(path, "/"), unix.O_PATH|unix.O_NOFOLLOW, 0, beneath)
	if err != nil {
		return false
	}
	found := &Dir{fd: fd, path: path}
	defer found.Close()
	st, err := found.Stat()
	return err == nil && file == identity{st.Dev, st.Ino}
}
