//go:build linux && amd64

package crash

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// call is a system call on a file of the world, which a traced process is about to
// make.
type call struct {
	name    string
	path    string // of the file, below the world's directory
	path2   string // the second name of a rename or a link
	flags   uint64 // of renameat2
	changes bool   // whether the call changes a file or a directory
	syncs   bool   // whether the call makes something durable
}

func (c *call) String() string {
	s := c.name + " " + c.path
	if c.path2 != "" {
		s += " → " + c.path2
	}
	return s
}

// answer decides what happens to a call. The zero answer allows it.
type answer struct {
	kill  bool          // the process dies before the call
	errno syscall.Errno // the call is not made and fails with this error
	skip  bool          // the call is not made and succeeds
}

// exited is how a traced process ended.
type exited struct {
	code   int  // -1 if a signal ended the process
	killed bool // by an answer
	hung   bool // killed after tooLong
	out    string
	err    string
}

// shape says which arguments of a system call name files; -1 for none.
type shape struct {
	name           string
	fd, path       int
	fd2, path2     int
	changes, syncs bool
}

func onFD(name string) shape { return shape{name: name, fd: 0, path: -1, fd2: -1, path2: -1} }
func onPath(name string, fd int) shape {
	return shape{name: name, fd: fd, path: fd + 1, fd2: -1, path2: -1}
}
func onTwo(name string) shape { return shape{name: name, fd: 0, path: 1, fd2: 2, path2: 3} }

func changing(s shape) shape { s.changes = true; return s }
func syncing(s shape) shape  { s.changes, s.syncs = true, true; return s }

// shapes are the traced system calls. A call on a file outside the world is allowed
// and not counted. close is not traced: kernels differ in whether a failed close
// leaves the descriptor open (close(2)), and the syncs have already reported any
// failed write-back.
var shapes = map[uint64]shape{
	unix.SYS_OPENAT:            onPath("openat", 0),
	unix.SYS_OPENAT2:           onPath("openat2", 0),
	unix.SYS_NEWFSTATAT:        onPath("newfstatat", 0),
	unix.SYS_STATX:             onPath("statx", 0),
	unix.SYS_NAME_TO_HANDLE_AT: onPath("name_to_handle_at", 0),
	unix.SYS_READLINKAT:        onPath("readlinkat", 0),
	unix.SYS_FSTAT:             onFD("fstat"),
	unix.SYS_FSTATFS:           onFD("fstatfs"),
	unix.SYS_READ:              onFD("read"),
	unix.SYS_PREAD64:           onFD("pread64"),
	unix.SYS_GETDENTS64:        onFD("getdents64"),
	unix.SYS_LSEEK:             onFD("lseek"),
	unix.SYS_IOCTL:             onFD("ioctl"),
	unix.SYS_FLOCK:             onFD("flock"),
	unix.SYS_FGETXATTR:         onFD("fgetxattr"),
	unix.SYS_FLISTXATTR:        onFD("flistxattr"),

	unix.SYS_MKDIRAT:         changing(onPath("mkdirat", 0)),
	unix.SYS_UNLINKAT:        changing(onPath("unlinkat", 0)),
	unix.SYS_SYMLINKAT:       changing(onPath("symlinkat", 1)),
	unix.SYS_FCHMODAT:        changing(onPath("fchmodat", 0)),
	unix.SYS_FCHOWNAT:        changing(onPath("fchownat", 0)),
	unix.SYS_UTIMENSAT:       changing(onPath("utimensat", 0)),
	unix.SYS_RENAMEAT:        changing(onTwo("renameat")),
	unix.SYS_RENAMEAT2:       changing(onTwo("renameat2")),
	unix.SYS_LINKAT:          changing(onTwo("linkat")),
	unix.SYS_WRITE:           changing(onFD("write")),
	unix.SYS_PWRITE64:        changing(onFD("pwrite64")),
	unix.SYS_WRITEV:          changing(onFD("writev")),
	unix.SYS_FTRUNCATE:       changing(onFD("ftruncate")),
	unix.SYS_FALLOCATE:       changing(onFD("fallocate")),
	unix.SYS_FCHMOD:          changing(onFD("fchmod")),
	unix.SYS_FCHOWN:          changing(onFD("fchown")),
	unix.SYS_FSETXATTR:       changing(onFD("fsetxattr")),
	unix.SYS_FREMOVEXATTR:    changing(onFD("fremovexattr")),
	unix.SYS_COPY_FILE_RANGE: changing(shape{name: "copy_file_range", fd: 2, path: -1, fd2: -1, path2: -1}),
	unix.SYS_FSYNC:           syncing(onFD("fsync")),
	unix.SYS_FDATASYNC:       syncing(onFD("fdatasync")),
	unix.SYS_SYNCFS:          syncing(onFD("syncfs")),
}

// sieveList returns the numbers of the calls at which a process is stopped. Calls
// that only read are included if reads is set.
func sieveList(reads bool) string {
	var list []string
	for nr, s := range shapes {
		if reads || s.changes || strings.HasPrefix(s.name, "openat") { // openat may create a file
			list = append(list, strconv.FormatUint(nr, 10))
		}
	}
	return strings.Join(list, ",")
}

// run runs snap and asks judge before each changing call on a file of the world,
// and with w.reads before each reading call too. Meanwhile no other traced call can
// begin, so judge sees the calls of all threads in the order in which they are made.
func (w *world) run(judge func(*call) answer, args ...string) exited {
	out, err := os.CreateTemp(w.scratch, "out")
	w.must(err)
	defer out.Close()
	errOut, err := os.CreateTemp(w.scratch, "err")
	w.must(err)
	defer errOut.Close()
	command := append([]string{programs.snap, "--config", w.config}, args...)
	var e exited
	if judge == nil {
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Stdout, cmd.Stderr, cmd.Dir = out, errOut, w.scratch
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			w.must(err)
		}
		e.code = cmd.ProcessState.ExitCode()
	} else {
		cmd := exec.Command(programs.sieve, append([]string{sieveList(w.reads)}, command...)...)
		cmd.Stdout, cmd.Stderr, cmd.Dir = out, errOut, w.scratch
		t := &tracer{places: w.places(), judge: judge}
		w.must(t.run(cmd))
		e = t.end
	}
	e.out, e.err = slurp(out), slurp(errOut)
	w.must(errors.Join(os.Remove(out.Name()), os.Remove(errOut.Name())))
	return e
}

// place is a directory of the world, and the name that calls in it have.
type place struct{ dir, name string }

// places are where the calls of snap are judged: the world's directory, and the volumes
// that lie elsewhere.
func (w *world) places() []place {
	list := []place{{w.dir, ""}}
	for _, m := range w.volumes() {
		if !strings.HasPrefix(m.point, w.dir+"/") {
			list = append(list, place{m.point, m.name})
		}
	}
	return list
}

func slurp(f *os.File) string {
	data, _ := os.ReadFile(f.Name())
	return string(data)
}

// tracer follows one process, its threads and its children.
type tracer struct {
	places []place // only calls on files in them are judged
	judge  func(*call) answer
	pid    int
	procs  map[int]bool // the living thread groups
	known  map[int]bool // threads whose first stop was seen
	end    exited
}

// tracing takes the functions that must run on a thread of their own.
var tracing = make(chan func())

// startTracing starts threads that take functions from tracing, and run nothing else.
// Only the thread that forked a process can trace it and wait for it, and a thread that
// had forked for others would take the ends of their children for those of its own.
func startTracing(threads int) {
	for range threads {
		locked := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(locked)
			for do := range tracing {
				do()
			}
		}()
		<-locked
	}
}

// tooLong is the time after which a process counts as hung.
const tooLong = time.Minute

func (t *tracer) run(cmd *exec.Cmd) (err error) {
	done := make(chan struct{})
	tracing <- func() {
		defer close(done) // also where the judge fails the test, which ends the thread
		err = t.trace(cmd)
	}
	<-done
	return err
}

func (t *tracer) trace(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { _ = cmd.Process.Release() }()
	t.pid = cmd.Process.Pid
	t.procs, t.known = map[int]bool{t.pid: true}, map[int]bool{}
	var hung atomic.Bool
	alarm := time.AfterFunc(tooLong, func() { hung.Store(true); _ = unix.Kill(t.pid, unix.SIGKILL) })
	defer alarm.Stop()
	err := t.follow()
	t.end.hung = hung.Load()
	return err
}

func (t *tracer) follow() error {
	for {
		var ws unix.WaitStatus
		// WNOTHREAD leaves the tracees of other threads to those. The watchdog and docker
		// compose have process groups of their own.
		tid, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil:
			return fmt.Errorf("wait4: %w", err)
		}
		if ws.Exited() || ws.Signaled() {
			delete(t.known, tid)
			delete(t.procs, tid)
			if tid == t.pid {
				t.end.code = ws.ExitStatus()
			}
			continue
		}
		sig, err := t.stopped(tid, ws)
		// ESRCH: the thread was killed while it was stopped.
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return errors.Join(err, unix.Kill(t.pid, unix.SIGKILL))
		}
		if err := unix.PtraceCont(tid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("continue: %w", err)
		}
	}
}

// stopped handles a stop and returns the signal to continue with.
func (t *tracer) stopped(tid int, ws unix.WaitStatus) (int, error) {
	if !t.known[tid] {
		t.known[tid] = true
		if tid == t.pid { // stopped by its exec
			return 0, unix.PtraceSetOptions(tid, unix.PTRACE_O_TRACESECCOMP|unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_TRACEFORK|
				unix.PTRACE_O_TRACEVFORK|unix.PTRACE_O_TRACEEXEC|unix.PTRACE_O_EXITKILL)
		}
		if ws.StopSignal() == unix.SIGSTOP { // a new thread begins with this stop
			return 0, nil
		}
	}
	if ws.StopSignal() != unix.SIGTRAP {
		return int(ws.StopSignal()), nil
	}
	switch ws.TrapCause() {
	case unix.PTRACE_EVENT_FORK, unix.PTRACE_EVENT_VFORK:
		child, err := unix.PtraceGetEventMsg(tid)
		t.procs[int(child)] = true
		return 0, err
	case unix.PTRACE_EVENT_SECCOMP:
		return 0, t.entered(tid)
	case -1:
		return int(unix.SIGTRAP), nil
	}
	return 0, nil
}

// entered asks the judge about a call, and carries out the answer.
func (t *tracer) entered(tid int) error {
	if t.end.killed {
		return nil
	}
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &regs); err != nil {
		return err
	}
	c := t.describe(tid, &regs)
	if c == nil {
		return nil
	}
	a := t.judge(c)
	switch {
	case a.kill:
		t.end.killed = true
		for pid := range t.procs {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
		return nil
	case a.errno != 0 || a.skip:
		// seccomp(2), SECCOMP_RET_TRACE: the call number -1 skips the call, and the
		// register already holds its result.
		regs.Orig_rax, regs.Rax = ^uint64(0), uint64(-int64(a.errno))
		return unix.PtraceSetRegs(tid, &regs)
	}
	return nil
}

// describe returns a description of the call, or nil if it is not on a file of the
// world.
func (t *tracer) describe(tid int, regs *unix.PtraceRegs) *call {
	s, ok := shapes[regs.Orig_rax]
	if !ok {
		return nil
	}
	args := [6]uint64{regs.Rdi, regs.Rsi, regs.Rdx, regs.R10, regs.R8, regs.R9}
	c := &call{name: s.name, changes: s.changes, syncs: s.syncs}
	if c.path, ok = t.resolve(tid, s.fd, s.path, args); !ok {
		return nil
	}
	if s.fd2 >= 0 {
		if c.path2, ok = t.resolve(tid, s.fd2, s.path2, args); !ok {
			return nil
		}
	}
	switch s.name {
	case "openat":
		c.changes = args[2]&unix.O_CREAT != 0
	case "openat2":
		var how [8]byte
		if read(tid, args[2], how[:]) == len(how) {
			c.changes = binary.LittleEndian.Uint64(how[:])&unix.O_CREAT != 0
		}
	case "renameat2":
		c.flags = args[4]
	}
	return c
}

func (t *tracer) resolve(tid, fd, path int, args [6]uint64) (string, bool) {
	name := ""
	if path >= 0 && args[path] != 0 {
		var buf [4096]byte
		n := read(tid, args[path], buf[:])
		text, _, _ := bytes.Cut(buf[:n], []byte{0})
		name = string(text)
	}
	if !strings.HasPrefix(name, "/") {
		dir, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, int32(args[fd])))
		if err != nil {
			return "", false
		}
		name = filepath.Join(dir, name)
	}
	for _, p := range t.places {
		if rest, ok := strings.CutPrefix(name, p.dir); ok && (strings.HasPrefix(rest, "/") || rest == "" && p.name != "") {
			return strings.TrimPrefix(p.name+rest, "/"), true
		}
	}
	return "", false
}

// read reads memory of a stopped thread and returns the number of bytes.
func read(tid int, at uint64, buf []byte) int {
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", tid))
	if err != nil {
		return 0
	}
	defer mem.Close()
	n, _ := mem.ReadAt(buf, int64(at)) // stops at the end of the mapping
	return n
}
