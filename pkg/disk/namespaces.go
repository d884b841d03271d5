package disk

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// namespace is a mount namespace: of some processes, or one that only a bind mount of
// its file keeps alive (mount_namespaces(7)).
type namespace struct {
	id     string
	own    bool   // it is that of this process
	pid    int    // of a process in it; 0 for this process's, and where there is none
	proc   string // the /proc directory of a process in it, not a chrooted one if there is another; "" where there is none
	kept   string // the file that keeps it, where there is no process
	mounts Mounts // with mount points as seen from its root
	seen   []string
	roots  []string // the root directories of processes whose mounts were read
}

// add adds the mounts that one process sees. A chrooted one sees a part of them.
func (ns *namespace) add(mounts Mounts, places []place) {
	for _, m := range mounts {
		if slices.ContainsFunc(ns.mounts, func(known Mount) bool { return known.ID == m.ID }) {
			continue
		}
		ns.mounts = append(ns.mounts, m)
		for _, p := range places {
			if path, ok := m.seen(p); ok && !slices.Contains(ns.seen, path) {
				ns.seen = append(ns.seen, path)
			}
		}
	}
}

// seen returns where a mount shows a place, or the part of it that it shows.
func (mount Mount) seen(p place) (string, bool) {
	switch {
	case mount.Dev != p.dev:
	case under(mount.Root, p.path): // the place itself, or a part
		return mount.Point, true
	case under(p.path, mount.Root):
		return strings.TrimSuffix(mount.Point, "/") + strings.TrimPrefix(p.path, strings.TrimSuffix(mount.Root, "/")), true
	}
	return "", false
}

// shows reports whether a path in the namespace may lead into a volume. It is cheap
// and never false for one that does.
func (ns *namespace) shows(path string) bool {
	return slices.ContainsFunc(ns.seen, func(seen string) bool { return under(path, seen) })
}

// survey lists the processes, and reads the mounts of each namespace once for each
// root directory that its processes have.
func (s *scan) survey() ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var list []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		p := process{pid: pid, proc: "/proc/" + e.Name()}
		id, err := os.Readlink(p.proc + "/ns/mnt")
		if err != nil { // it has ended
			continue
		}
		if p.root, err = os.Readlink(p.proc + "/root"); err != nil {
			continue
		}
		if p.ns = s.namespace(id); p.ns == nil {
			p.ns = &namespace{id: id}
		}
		if !p.ns.own && !s.learn(p) {
			continue
		}
		list = append(list, p)
	}
	for _, m := range s.namespaces[0].mounts {
		if strings.HasPrefix(m.Root, "mnt:[") && s.namespace(m.Root) == nil {
			s.keep(m)
		}
	}
	return list, nil
}

func (s *scan) namespace(id string) *namespace {
	if i := slices.IndexFunc(s.namespaces, func(ns *namespace) bool { return ns.id == id }); i >= 0 {
		return s.namespaces[i]
	}
	return nil
}

// learn reads the mounts that a process sees, unless one with the same root has been
// seen in its namespace. It reports false for a process that has ended.
func (s *scan) learn(p process) bool {
	if slices.Contains(p.ns.roots, p.root) {
		return true
	}
	mounts, err := readMounts(p.proc + "/mountinfo")
	if err != nil {
		return false
	}
	for i := range mounts { // a chrooted process sees mount points from its own root
		mounts[i].Point = strings.TrimSuffix(strings.TrimSuffix(p.root, "/")+mounts[i].Point, "/")
		if mounts[i].Point == "" {
			mounts[i].Point = "/"
		}
	}
	if p.ns.roots == nil {
		s.namespaces = append(s.namespaces, p.ns)
	}
	if p.ns.proc == "" || p.root == "/" {
		p.ns.proc, p.ns.pid = p.proc, p.pid
	}
	p.ns.roots = append(p.ns.roots, p.root)
	p.ns.add(mounts, s.places)
	return true
}

// keep reads the mounts of a namespace that a bind mount of its file keeps alive. One
// that cannot be entered is left out: Holders says what it does not see.
func (s *scan) keep(m Mount) {
	ns := &namespace{id: m.Root, kept: m.Point}
	mounts, err := enter(m.Point)
	if err != nil {
		return
	}
	ns.add(mounts, s.places)
	s.namespaces = append(s.namespaces, ns)
}

// enter reads the mounts of a namespace from inside. It does so on a thread of its
// own, which ends with it: a thread that goes on would see other files. The first
// thread of a process never ends, and /proc/self shows what that one sees.
func enter(file string) (mounts Mounts, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread() // held meanwhile, so that the other goroutine gets another thread
			mounts, err = enter(file)
			return
		}
		mounts, err = readInside(file) // never unlocked, so the thread ends here
	}()
	<-done
	return mounts, err
}

// readInside moves the calling thread to a mount namespace and reads its mounts.
func readInside(file string) (Mounts, error) {
	ns, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(ns)
	task, err := unix.Open("/proc/thread-self", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(task)
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return nil, err
	}
	if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
		return nil, err
	}
	table, err := unix.Openat(task, "mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(table), file)
	defer f.Close()
	return parseMounts(f)
}

// mounts returns the mounts that show a volume or something in it, and the overlays
// that use it. They go on showing the directory wherever it is moved to.
func (s *scan) mounts() []Holder {
	var found []Holder
	for _, ns := range s.namespaces {
		for _, m := range ns.mounts {
			if !slices.ContainsFunc(s.places, func(p place) bool { return m.Dev == p.dev && under(m.Root, p.path) }) && !s.overlays(ns, m) {
				continue
			}
			h := Holder{PID: ns.pid, Command: ns.kept, Path: m.Point, How: Mounted}
			if ns.proc != "" && !ns.own {
				h = process{pid: ns.pid, proc: ns.proc, ns: ns}.holder(m.Point, Mounted)
			}
			if !ns.own {
				h.Namespace = ns.id
			}
			found = append(found, h)
		}
	}
	return found
}

// overlays reports whether a mount is an overlay with a layer in a volume.
func (s *scan) overlays(ns *namespace, m Mount) bool {
	return slices.ContainsFunc(m.Layers, func(layer string) bool {
		mount, ok := ns.mounts.covering(layer, "")
		return ok && ns.shows(layer) && s.within(mount.place(layer))
	})
}

// ancestors returns the parent of this process, its parent, and so on.
func ancestors() (list []int) {
	for pid := os.Getppid(); pid > 1; {
		list = append(list, pid)
		st, ok := readStat(fmt.Sprintf("/proc/%d", pid))
		if !ok || slices.Contains(list, st.parent) {
			break
		}
		pid = st.parent
	}
	return list
}

// processStat is what is of use in /proc/<pid>/stat (proc_pid_stat(5)).
type processStat struct {
	state              string
	parent, tty, flags int
}

func readStat(proc string) (st processStat, ok bool) {
	text, err := os.ReadFile(proc + "/stat")
	if err != nil {
		return st, false
	}
	var group, session, foreground int
	rest := string(text[strings.LastIndexByte(string(text), ')')+1:])
	n, _ := fmt.Sscan(rest, &st.state, &st.parent, &group, &session, &st.tty, &foreground, &st.flags)
	return st, n == 7
}

// shells are the programs that sit in a directory and wait for a person.
var shells = []string{"sh", "bash", "dash", "ash", "zsh", "fish", "ksh", "ksh93", "mksh", "csh", "tcsh", "nu", "busybox"}

// forkNoExec is set for a process that was forked and runs no program of its own
// (PF_FORKNOEXEC in the kernel's include/linux/sched.h): of a shell, a job.
const forkNoExec = 0x40

// idle reports whether a process with nothing but its working directory in a volume
// is a shell at its prompt, or waits for this process. A script is neither, nor is a
// job of a shell: both go on by themselves.
func (s *scan) idle(p process) bool {
	if slices.Contains(s.waiting, p.pid) {
		return true
	}
	comm, _ := os.ReadFile(p.proc + "/comm")
	if !slices.Contains(shells, strings.TrimSpace(string(comm))) {
		return false
	}
	command, err := os.ReadFile(p.proc + "/cmdline")
	if err != nil {
		return false
	}
	for _, arg := range strings.Split(strings.TrimSuffix(string(command), "\x00"), "\x00")[1:] {
		if !strings.HasPrefix(arg, "-") || !strings.HasPrefix(arg, "--") && strings.Contains(arg, "c") { // a script, or -c
			return false
		}
	}
	st, ok := readStat(p.proc)
	if !ok || st.state != "S" || st.flags&forkNoExec != 0 {
		return false
	}
	var in unix.Stat_t
	err = Retry(func() error { return unix.Stat(p.proc+"/fd/0", &in) })
	terminal := unix.Mkdev(uint32(st.tty>>8&0xfff), uint32(st.tty&0xff|st.tty>>12&0xfff00))
	return err == nil && st.tty != 0 && in.Mode&unix.S_IFMT == unix.S_IFCHR && in.Rdev == terminal
}
