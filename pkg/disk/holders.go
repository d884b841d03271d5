package disk

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Holder is whoever can still change a directory under whatever name it has: a
// process, a mount, or a loop device.
type Holder struct {
	PID     int    // 0 for a loop device, and for a mount that belongs to no process
	Command string // of the process; /dev/loopN; or the file that keeps a mount namespace
	Path    string // as the process sees it; of a mount, where it is mounted
	How     string // one of the words below; for a loop device with what is uncertain

	// Namespace is the mount namespace of the holder, "mnt:[4026532201]"; "" for
	// that of this process. Cgroups are the control groups of its process.
	Namespace string
	Cgroups   string
	// Idle says that the holder is a shell at its prompt, or waits for this
	// process, and that its working directory is all that it has.
	Idle bool
}

// The ways to hold a directory.
const (
	OpenForWriting = "open for writing"
	Mapped         = "mapped"
	OpenDirectory  = "open as a directory"
	WorksIn        = "as its working directory"
	RootIn         = "as its root directory"
	Mounted        = "mounted"
	Attached       = "attached"
)

func (h Holder) String() string {
	switch {
	case h.How != Mounted && h.PID == 0:
		return fmt.Sprintf("%s has %q %s", h.Command, h.Path, h.How)
	case h.How != Mounted:
		return fmt.Sprintf("process %d (%s) has %q %s", h.PID, h.Command, h.Path, h.How)
	case h.PID != 0:
		return fmt.Sprintf("the mount namespace of process %d (%s) has it mounted at %q", h.PID, h.Command, h.Path)
	case h.Command != "":
		return fmt.Sprintf("the mount namespace that %s keeps has it mounted at %q", h.Command, h.Path)
	}
	return fmt.Sprintf("it is mounted at %q", h.Path)
}

// Holders returns whoever can reach dirs by anything but their present paths: the
// processes of all mount namespaces that have a file below one of dirs open for
// writing or mapped, or a directory there open (O_PATH too), or as their working or
// root directory; the mounts, in any mount namespace, of one of dirs or of something
// below it, or by which an overlay uses it; and the loop devices that write to a file
// there. It leaves out this process, and processes that end during the scan. A file
// that is open for reading changes nothing and is not reported.
//
// Without root it sees only the caller's own processes. Even root cannot see, and
// Holders does not report: a file descriptor on its way through a socket or
// registered with io_uring, a mount that was detached while it was busy (umount -l),
// clients of the kernel's own NFS server, and a mount namespace that has no process
// and that only an open file, or a bind mount in another namespace, keeps alive.
func Holders(dirs []*Dir) ([]Holder, error) {
	s, err := newScan(dirs)
	if err != nil {
		return nil, err
	}
	processes, err := s.survey()
	if err != nil {
		return nil, err
	}
	var found []Holder
	for _, p := range processes {
		found = append(found, s.process(p)...)
	}
	return append(append(found, s.mounts()...), s.loops()...), nil
}

type scan struct {
	places     []place
	devices    []uint64     // st_dev of each place (stat(2))
	namespaces []*namespace // each once, that of this process first
	waiting    []int        // the processes that wait for this one: its ancestors
	maps       []byte       // of the process that is looked at
}

func newScan(dirs []*Dir) (*scan, error) {
	own, err := ReadMounts()
	if err != nil {
		return nil, err
	}
	id, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, err
	}
	s := &scan{waiting: ancestors()}
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
	ns := &namespace{id: id, proc: "/proc/self", own: true}
	ns.add(own, s.places)
	s.namespaces = []*namespace{ns}
	return s, nil
}

// process is one that may hold something.
type process struct {
	pid  int
	proc string
	ns   *namespace
	root string // its root directory, from the root of its namespace
}

// holder is a Holder of this process.
func (p process) holder(path, how string) Holder {
	h := Holder{PID: p.pid, Path: path, How: how}
	comm, _ := os.ReadFile(p.proc + "/comm")
	h.Command = strings.TrimSpace(string(comm))
	if !p.ns.own {
		cgroups, _ := os.ReadFile(p.proc + "/cgroup")
		h.Namespace, h.Cgroups = p.ns.id, string(cgroups)
	}
	return h
}

func (s *scan) process(p process) []Holder {
	if len(p.ns.seen) == 0 {
		return nil
	}
	found := s.directories(p)
	if open := append(s.opened(p), s.mapped(p)...); len(open) > 0 {
		return append(found, open...)
	}
	if idle := !slices.ContainsFunc(found, func(h Holder) bool { return h.How != WorksIn }); idle && len(found) > 0 && s.idle(p) {
		for i := range found {
			found[i].Idle = true
		}
	}
	return found
}

func (s *scan) within(p place) bool {
	return slices.ContainsFunc(s.places, func(root place) bool { return p.dev == root.dev && under(p.path, root.path) })
}

// directories returns the working and the root directory of a process, where they
// are in a volume. A thread may have a working directory of its own (unshare(2),
// CLONE_FS): Samba's do.
func (s *scan) directories(p process) []Holder {
	var found []Holder
	seen := map[string]bool{}
	look := func(link, how string) {
		path, err := os.Readlink(link)
		if err != nil || seen[how+path] || !p.ns.shows(path) || removed(path, link) {
			return
		}
		if mount, ok := p.ns.mounts.covering(path, ""); ok && s.within(mount.place(path)) {
			seen[how+path] = true
			found = append(found, p.holder(path, how))
		}
	}
	look(p.proc+"/cwd", WorksIn)
	look(p.proc+"/root", RootIn)
	var task unix.Stat_t // it has a link for each thread, and two more
	if unix.Stat(p.proc+"/task", &task) == nil && task.Nlink == 3 {
		return found
	}
	dir, threads := names(p.proc + "/task")
	unix.Close(dir)
	for _, thread := range threads {
		look(p.proc+"/task/"+thread+"/cwd", WorksIn)
		look(p.proc+"/task/"+thread+"/root", RootIn)
	}
	return found
}

// names lists a directory of /proc, and leaves it open. There are many of them, and
// the app is down: so this makes no more system calls than it needs.
func names(dir string) (fd int, list []string) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, nil
	}
	var buf [16 << 10]byte
	for {
		n, err := RetryValue(func() (int, error) { return unix.ReadDirent(fd, buf[:]) })
		if err != nil || n <= 0 {
			return fd, list
		}
		_, _, list = unix.ParseDirent(buf[:n], -1, list)
	}
}

// opened returns the files of the volumes that a process has open for writing, and
// the directories that it has open.
func (s *scan) opened(p process) []Holder {
	dir, fds := names(p.proc + "/fd")
	defer unix.Close(dir)
	var found []Holder
	var buf [unix.PathMax]byte
	for _, fd := range fds {
		n, err := unix.Readlinkat(dir, fd, buf[:])
		if err != nil || buf[0] != '/' {
			continue
		}
		path, link := string(buf[:n]), p.proc+"/fd/"+fd
		if !p.ns.shows(path) || removed(path, link) {
			continue
		}
		flags, id, ok := fdinfo(p.proc + "/fdinfo/" + fd)
		i := slices.IndexFunc(p.ns.mounts, func(m Mount) bool { return m.ID == id })
		if !ok || i < 0 || !s.within(p.ns.mounts[i].place(path)) {
			continue
		}
		switch {
		case flags&unix.O_PATH == 0 && flags&unix.O_ACCMODE != unix.O_RDONLY:
			found = append(found, p.holder(path, OpenForWriting))
		case isDirectory(link):
			found = append(found, p.holder(path, OpenDirectory))
		}
	}
	return found
}

func isDirectory(link string) bool {
	var st unix.Stat_t
	return Retry(func() error { return unix.Stat(link, &st) }) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
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
func (s *scan) mapped(p process) []Holder {
	if !s.readMaps(p) {
		return nil
	}
	var found []Holder
	last := ""
	for line := range strings.Lines(string(s.maps)) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 6)
		if len(fields) < 6 {
			continue
		}
		path := strings.ReplaceAll(strings.TrimLeft(fields[5], " "), `\012`, "\n")
		from, to, _ := strings.Cut(fields[0], "-")
		link := p.proc + "/map_files/" + strings.TrimLeft(from, "0") + "-" + strings.TrimLeft(to, "0")
		if path == last || !p.ns.shows(path) || removed(path, link) {
			continue
		}
		last = path
		dev, ok := decimalDev(fields[3])
		if !ok {
			continue
		}
		if mount, ok := p.ns.mounts.covering(path, dev); ok && s.within(mount.place(path)) {
			found = append(found, p.holder(path, Mapped))
		}
	}
	return found
}

// readMaps reads the mappings of a process, and reports whether one of them may be
// of a volume. Most processes map nothing of it, and their lines need no parsing.
func (s *scan) readMaps(p process) bool {
	fd, err := unix.Open(p.proc+"/maps", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	for s.maps = s.maps[:0]; ; {
		s.maps = slices.Grow(s.maps, 64<<10)
		n, err := RetryValue(func() (int, error) { return unix.Read(fd, s.maps[len(s.maps):cap(s.maps)]) })
		if err != nil { // it has ended
			return false
		}
		if n == 0 {
			break
		}
		s.maps = s.maps[:len(s.maps)+n]
	}
	return slices.ContainsFunc(p.ns.seen, func(path string) bool {
		return bytes.Contains(s.maps, []byte(strings.ReplaceAll(path, "\n", `\012`)))
	})
}

// decimalDev turns a device as maps writes it, "fe:01", into the form of
// mountinfo, "254:1".
func decimalDev(hex string) (string, bool) {
	major, minor, ok := strings.Cut(hex, ":")
	a, err1 := strconv.ParseUint(major, 16, 32)
	b, err2 := strconv.ParseUint(minor, 16, 32)
	return fmt.Sprintf("%d:%d", a, b), ok && err1 == nil && err2 == nil
}
