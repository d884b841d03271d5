package disk

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount is one line of a mountinfo file (proc_pid_mountinfo(5)).
type Mount struct {
	ID    int
	Dev   string // major:minor
	Root  string // the mounted directory of the filesystem
	Point string // the mount point, seen from the root of the process
	// Source is the device, or a word where there is none.
	Source string
	// Layers are the directories that an overlay shows, as they were named when it
	// was mounted.
	Layers []string
}

// Mounts is a mount table in the kernel's order. The later of two mounts at one
// point covers the earlier.
type Mounts []Mount

// ReadMounts returns the mount table of this process.
func ReadMounts() (Mounts, error) { return readMounts("/proc/self/mountinfo") }

func readMounts(path string) (Mounts, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseMounts(f)
}

func parseMounts(f *os.File) (Mounts, error) {
	var all Mounts
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		m, err := parseMount(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", f.Name(), err)
		}
		all = append(all, m)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return all, nil
}

func parseMount(line string) (Mount, error) {
	head, tail, ok := strings.Cut(line, " - ")
	if fields := strings.Fields(head); ok && len(fields) >= 6 {
		if id, err := strconv.Atoi(fields[0]); err == nil {
			return Mount{ID: id, Dev: fields[2], Root: unescape.Replace(fields[3]), Point: unescape.Replace(fields[4]), Source: source(tail), Layers: layers(tail)}, nil
		}
	}
	return Mount{}, fmt.Errorf("cannot parse mount %q", line)
}

func source(tail string) string {
	if fields := strings.Fields(tail); len(fields) > 1 {
		return unescape.Replace(fields[1])
	}
	return ""
}

// layers returns the directories of an overlay from the end of its line: type, source
// and options.
func layers(tail string) (list []string) {
	fields := strings.Fields(tail)
	if len(fields) < 3 || fields[0] != "overlay" {
		return nil
	}
	for _, option := range strings.Split(fields[2], ",") {
		name, value, _ := strings.Cut(unescape.Replace(option), "=")
		switch strings.TrimSuffix(name, "+") {
		case "upperdir", "workdir", "lowerdir", "datadir":
			for _, layer := range strings.Split(value, ":") {
				if strings.HasPrefix(layer, "/") {
					list = append(list, layer)
				}
			}
		}
	}
	return list
}

// unescape undoes what show_mountinfo in the kernel's fs/proc_namespace.c escapes.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// under reports whether path is root or lies below it.
func under(path, root string) bool {
	return path == root || root == "/" || strings.HasPrefix(path, root+"/")
}

// RealPath returns the present path of d, as the kernel tells it to this process.
func (d *Dir) RealPath() (string, error) {
	p, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", d.fd))
	if err != nil {
		return "", err
	}
	if strings.HasSuffix(p, " (deleted)") {
		return "", d.fail("find", "", unix.ENOENT)
	}
	return p, nil
}

// Inside returns a mount point below d, and "" if there is none. A mount on d
// itself does not count.
func (m Mounts) Inside(d *Dir) (string, error) {
	path, err := d.RealPath()
	if err != nil {
		return "", err
	}
	for _, mount := range m {
		if mount.Point != path && under(mount.Point, path) {
			return mount.Point, nil
		}
	}
	return "", nil
}

// Within reports whether d is the directory of, or lies below it: by its path, or by its
// place on the filesystem, which a bind mount shows under another path.
func (m Mounts) Within(d, of *Dir) (bool, error) {
	path, err := d.RealPath()
	if err != nil {
		return false, err
	}
	root, err := of.RealPath()
	if err != nil {
		return false, err
	}
	if under(path, root) {
		return true, nil
	}
	above, known := m.covering(root, "")
	for known {
		at, shown := m.covering(path, "")
		if !shown {
			break
		}
		if at.Dev == above.Dev && under(at.place(path).path, above.place(root).path) {
			return true, nil
		}
		if at.Point == "/" {
			break
		}
		path = filepath.Dir(at.Point) // what is mounted may be mounted inside
	}
	return false, nil
}

// IsMountRoot reports whether a filesystem is mounted on d. Such a directory cannot
// be renamed (EBUSY). It needs Linux 5.8.
func (d *Dir) IsMountRoot() (bool, error) {
	var stx unix.Statx_t
	err := Retry(func() error { return unix.Statx(d.fd, "", unix.AT_EMPTY_PATH, unix.STATX_TYPE, &stx) })
	if err != nil {
		return false, d.fail("statx", "", err)
	}
	if stx.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return false, d.fail("statx", "", fmt.Errorf("the kernel does not say whether it is a mount point: %w", unix.ENOSYS))
	}
	return stx.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// Other describes a directory that is a mount point: it returns the mount, and another
// path of the directory at which nothing is mounted, "" where there is none.
func (m Mounts) Other(d *Dir) (Mount, string, error) {
	path, err := d.RealPath()
	if err != nil {
		return Mount{}, "", err
	}
	at, _ := m.covering(path, "")
	for _, mount := range m {
		other, ok := mount.seen(place{dev: at.Dev, path: at.Root})
		if !ok || other == mount.Point {
			continue
		}
		if shown, _ := m.covering(other, ""); shown.ID == mount.ID { // and not hidden by another mount
			return at, other, nil
		}
	}
	return at, "", nil
}

// place is where a directory is on its filesystem, in whatever mount it is seen.
type place struct{ dev, path string }

// covering returns the mount that shows path, among those of dev ("" for all).
func (m Mounts) covering(path, dev string) (Mount, bool) {
	var best Mount
	found := false
	for _, mount := range m {
		if under(path, mount.Point) && (dev == "" || mount.Dev == dev) && (!found || len(mount.Point) >= len(best.Point)) {
			best, found = mount, true
		}
	}
	return best, found
}

func (mount Mount) place(path string) place {
	rest := strings.TrimPrefix(path, strings.TrimSuffix(mount.Point, "/"))
	return place{dev: mount.Dev, path: strings.TrimSuffix(mount.Root, "/") + rest}
}
