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

// Holder is a process that can still change a file of a volume, or that would go
// on reading the old one; or it is a loop device with such a backing file.
type Holder struct {
	PID     int    // 0 for a loop device
	Command string // of the process, or /dev/loopN
	Path    string // as the process sees it, or the process that attached the device
	How     string // "open for writing", "mapped", or for a loop device "attached", with what is uncertain about it
}

func (h Holder) String() string {
	if h.PID == 0 {
		return fmt.Sprintf("%s has %q %s", h.Command, h.Path, h.How)
	}
	return fmt.Sprintf("process %d (%s) has %q %s", h.PID, h.Command, h.Path, h.How)
}

// Processes says which processes Holders looks at.
type Processes int

const (
	HostProcesses Processes = iota // those in the mount namespace of this process
	AllProcesses                   // those of containers too
)

// Holders returns the processes that have a file below one of dirs open for
// writing or mapped, and the loop devices that write to such a file, under
// whatever path they see the file. It leaves out this process, and processes that
// end during the scan. Without root it sees only the caller's own processes.
func Holders(dirs []*Dir, which Processes) ([]Holder, error) {
	s, err := newScan(dirs, which)
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
	which      Processes
	ns         string // the mount namespace of this process
	own        Mounts // the mounts in it
	places     []place
	devices    []uint64          // st_dev of each place (stat(2))
	tables     map[string]Mounts // by mount namespace
	namespaces []namespace       // each once, that of this process first
}

func newScan(dirs []*Dir, which Processes) (*scan, error) {
	own, err := ReadMounts()
	if err != nil {
		return nil, err
	}
	ns, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, err
	}
	// Our own table is known. A chrooted process would show only a part of it.
	s := &scan{which: which, ns: ns, own: own, tables: map[string]Mounts{ns: own}, namespaces: []namespace{{ns, "/proc/self"}}}
	for _, d := range dirs {
		path, err := d.RealPath()
		if err != nil {
			return nil, err
		}
		mount, ok := own.covering(path, "")
		if !ok {
			return nil, fmt.Errorf("%s is not on any mount of this process", path)
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

// namespace is a mount namespace and the /proc directory of a process in it.
type namespace struct{ id, proc string }

func (s *scan) add(ns namespace) {
	if !slices.ContainsFunc(s.namespaces, func(known namespace) bool { return known.id == ns.id }) {
		s.namespaces = append(s.namespaces, ns)
	}
}

func (s *scan) table(ns namespace) (Mounts, error) {
	if mounts, ok := s.tables[ns.id]; ok {
		return mounts, nil
	}
	mounts, err := readMounts(ns.proc + "/mountinfo")
	if err != nil {
		return nil, err
	}
	s.tables[ns.id] = mounts
	return mounts, nil
}

func (s *scan) process(pid int) []Holder {
	proc := fmt.Sprintf("/proc/%d", pid)
	id, err := os.Readlink(proc + "/ns/mnt")
	if err != nil {
		return nil
	}
	ns := namespace{id, proc}
	if s.add(ns); s.which == HostProcesses && id != s.ns {
		return nil
	}
	mounts, err := s.table(ns)
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

// reaches reports whether one of the mounts shows a filesystem with a volume.
func (s *scan) reaches(mounts Mounts) bool {
	return slices.ContainsFunc(mounts, func(m Mount) bool {
		return slices.ContainsFunc(s.places, func(p place) bool { return p.dev == m.Dev })
	})
}

func (s *scan) within(p place) bool {
	return slices.ContainsFunc(s.places, func(root place) bool { return p.dev == root.dev && under(p.path, root.path) })
}

// opened returns the files of the volumes that a process has open for writing.
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
		i := slices.IndexFunc(mounts, func(m Mount) bool { return m.ID == id })
		if i >= 0 && s.within(mounts[i].place(path)) {
			found = append(found, path)
		}
	}
	return found
}

// removed reports whether an open file has no name left. The kernel's mark alone
// does not tell: a file may really be called so, or have a second name
// (proc_pid_fd(5)).
func removed(path, link string) bool {
	if !strings.HasSuffix(path, " (deleted)") {
		return false
	}
	var st unix.Stat_t
	return Retry(func() error { return unix.Stat(link, &st) }) != nil || st.Nlink == 0
}

// fdinfo returns the open flags and the mount id of a file descriptor. The kernel
// writes them in this order (proc_pid_fdinfo(5), seq_show in fs/proc/fd.c).
func fdinfo(path string) (flags, mount int, ok bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, false
	}
	var pos int64
	n, _ := fmt.Sscanf(string(text), "pos: %d\nflags: %o\nmnt_id: %d", &pos, &flags, &mount)
	return flags, mount, n == 3
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

// decimalDev turns a device as maps writes it, "fe:01", into the form of
// mountinfo, "254:1".
func decimalDev(hex string) (string, bool) {
	major, minor, ok := strings.Cut(hex, ":")
	a, err1 := strconv.ParseUint(major, 16, 32)
	b, err2 := strconv.ParseUint(minor, 16, 32)
	return fmt.Sprintf("%d:%d", a, b), ok && err1 == nil && err2 == nil
}
