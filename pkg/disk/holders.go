package disk

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Holder is a process that could still change a file of a volume, or that
// would go on reading the old one; or a loop device that is made of one.
type Holder struct {
	PID     int    // 0: a loop device
	Command string // or /dev/loopN
	Path    string // as that process sees it, or whoever attached the device
	How     string // "open for writing", "mapped", or of a loop device "attached" and what is not known of that
}

func (h Holder) String() string {
	if h.PID == 0 {
		return fmt.Sprintf("%s has %q %s", h.Command, h.Path, h.How)
	}
	return fmt.Sprintf("process %d (%s) has %q %s", h.PID, h.Command, h.Path, h.How)
}

// Scope says whose processes Holders looks at.
type Scope int

const (
	// HostProcesses are those that share this process's mount namespace:
	// everything but containers.
	HostProcesses Scope = iota
	// AllProcesses are containers too.
	AllProcesses
)

// Holders returns the processes that hold a file below one of dirs open for
// writing, or mapped, and the loop devices that write to one: those the kernel
// holds, in no process's name. Files are compared by their place on the
// filesystem, so a container that sees the volume under another path is found
// too. Processes that end during the scan are passed over; this process is left
// out. Without root only the caller's own processes can be looked at.
func Holders(dirs []*Dir, scope Scope) ([]Holder, error) {
	s, err := newScan(dirs, scope)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []Holder
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		found = append(found, s.process(pid)...)
	}
	return append(found, s.loops()...), nil
}

type scan struct {
	scope   Scope
	ns      string // this process's mount namespace
	own     Mounts
	places  []place
	devices []uint64          // that they are on, as stat(2) says
	tables  map[string]Mounts // by mount namespace
	views   []view            // one of each mount namespace, this process's first
}

func newScan(dirs []*Dir, scope Scope) (*scan, error) {
	own, err := ReadMounts()
	if err != nil {
		return nil, err
	}
	ns, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, err
	}
	// Its table is known: a chrooted process of our own namespace would show a cut one.
	s := &scan{scope: scope, ns: ns, own: own, tables: map[string]Mounts{ns: own}, views: []view{{ns, "/proc/self"}}}
	for _, d := range dirs {
		path, err := d.RealPath()
		if err != nil {
			return nil, err
		}
		mount, ok := own.covering(path, "")
		if !ok {
			return nil, fmt.Errorf("%s is on no mount of this process", path)
		}
		s.places = append(s.places, mount.place(path))
		st, err := d.Stat()
		if err != nil {
			return nil, err
		}
		s.devices = append(s.devices, st.Dev)
	}
	return s, nil
}

// view is a mount namespace, as a process in it has it.
type view struct{ ns, proc string }

// meet notes the mount namespace of a process.
func (s *scan) meet(v view) {
	if !slices.ContainsFunc(s.views, func(met view) bool { return met.ns == v.ns }) {
		s.views = append(s.views, v)
	}
}

// table returns the mounts of a namespace.
func (s *scan) table(v view) (Mounts, error) {
	if mounts, ok := s.tables[v.ns]; ok {
		return mounts, nil
	}
	mounts, err := readMounts(v.proc + "/mountinfo")
	if err != nil {
		return nil, err
	}
	s.tables[v.ns] = mounts
	return mounts, nil
}

func (s *scan) process(pid int) []Holder {
	proc := fmt.Sprintf("/proc/%d", pid)
	ns, err := os.Readlink(proc + "/ns/mnt")
	if err != nil {
		return nil
	}
	v := view{ns, proc}
	if s.meet(v); s.scope == HostProcesses && ns != s.ns {
		return nil
	}
	mounts, err := s.table(v)
	if err != nil || !s.reaches(mounts) {
		return nil
	}
	comm, _ := os.ReadFile(proc + "/comm")
	name := strings.TrimSpace(string(comm))
	var found []Holder
	for _, path := range s.opened(proc, mounts) {
		found = append(found, Holder{pid, name, path, "open for writing"})
	}
	for _, path := range s.mapped(proc, mounts) {
		found = append(found, Holder{pid, name, path, "mapped"})
	}
	return found
}

// reaches reports whether any of the mounts is of a device that a volume is on.
func (s *scan) reaches(mounts Mounts) bool {
	for _, m := range mounts {
		for _, p := range s.places {
			if m.Dev == p.dev {
				return true
			}
		}
	}
	return false
}

func (s *scan) within(p place) bool {
	for _, root := range s.places {
		if p.dev == root.dev && under(p.path, root.path) {
			return true
		}
	}
	return false
}

// opened returns the files of the volumes that a process may write to.
func (s *scan) opened(proc string, mounts Mounts) []string {
	fds, err := os.ReadDir(proc + "/fdinfo")
	if err != nil {
		return nil
	}
	var found []string
	for _, fd := range fds {
		path, err := os.Readlink(proc + "/fd/" + fd.Name())
		if err != nil || !strings.HasPrefix(path, "/") || removed(path, proc+"/fd/"+fd.Name()) {
			continue
		}
		flags, id, ok := fdinfo(proc + "/fdinfo/" + fd.Name())
		if !ok || flags&unix.O_ACCMODE == unix.O_RDONLY || flags&unix.O_PATH != 0 {
			continue
		}
		if mount, ok := mounts.byID(id); ok && s.within(mount.place(path)) {
			found = append(found, path)
		}
	}
	return found
}

// removed reports whether the file that a process has is gone from the
// filesystem. The kernel marks its path then, but a file may have that name, or
// another name besides (proc_pid_fd(5)).
func removed(path, link string) bool {
	if !strings.HasSuffix(path, " (deleted)") {
		return false
	}
	var st unix.Stat_t
	return Retry(func() error { return unix.Stat(link, &st) }) != nil || st.Nlink == 0
}

// fdinfo returns the open flags and the mount id of a descriptor
// (proc_pid_fdinfo(5)).
func fdinfo(path string) (flags int64, mount int, ok bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, false
	}
	seen := 0
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "flags":
			flags, err = strconv.ParseInt(value, 8, 64)
		case "mnt_id":
			mount, err = strconv.Atoi(value)
		default:
			continue
		}
		if err != nil {
			return 0, 0, false
		}
		seen++
	}
	return flags, mount, seen == 2
}

// mapped returns the files of the volumes that a process has mapped
// (proc_pid_maps(5)).
func (s *scan) mapped(proc string, mounts Mounts) []string {
	f, err := os.Open(proc + "/maps")
	if err != nil {
		return nil
	}
	defer f.Close()
	var found []string
	last := ""
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.SplitN(lines.Text(), " ", 6)
		if len(fields) < 6 {
			continue
		}
		path := strings.ReplaceAll(strings.TrimLeft(fields[5], " "), `\012`, "\n")
		from, to, _ := strings.Cut(fields[0], "-")
		link := proc + "/map_files/" + strings.TrimLeft(from, "0") + "-" + strings.TrimLeft(to, "0")
		if !strings.HasPrefix(path, "/") || path == last || removed(path, link) {
			continue
		}
		last = path
		dev, ok := decimalDev(fields[3])
		if !ok {
			continue
		}
		if mount, ok := mounts.covering(path, dev); ok && s.within(mount.place(path)) {
			found = append(found, path)
		}
	}
	return found
}

// decimalDev turns the "fe:01" of maps into the "254:1" of mountinfo.
func decimalDev(hex string) (string, bool) {
	major, minor, ok := strings.Cut(hex, ":")
	a, err1 := strconv.ParseUint(major, 16, 32)
	b, err2 := strconv.ParseUint(minor, 16, 32)
	return fmt.Sprintf("%d:%d", a, b), ok && err1 == nil && err2 == nil
}
