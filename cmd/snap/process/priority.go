package process

import (
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/restore"
)

// While the app runs, snap reads and writes as if it had been started with
// `nice` and `ionice -c best-effort -n 7`. Both priorities belong to a thread, and a
// new one has those of the thread that made it (sched(7), ioprio_set(2)).
const (
	gentleNice = 10
	gentleIO   = 2<<13 | 7 // IOPRIO_CLASS_BE, its lowest level
)

// Pacer gives the process the priority and the threads that a phase deserves. The zero
// Pacer is ready.
type Pacer struct {
	FullSpeed bool   // do not lower the priority
	hasten    func() // gives back the priority that snap had first; nil: it has it
	fewer     func() // gives back the number of threads; nil: it has it
}

// Follow is told of each phase when it begins.
func (p *Pacer) Follow(phase restore.Phase) {
	switch phase {
	case restore.Begin, restore.Stage, restore.Guard: // the app runs
		if p.hasten == nil && !p.FullSpeed {
			p.hasten = gently()
		}
	case restore.Fence, restore.Quiesce, restore.Settle: // the app waits for snap, or snap has nothing to read
		p.end()
	}
	if p.fewer != nil {
		p.fewer()
		p.fewer = nil
	}
	if phase == restore.Stage {
		p.fewer = moreThreads()
	}
}

func (p *Pacer) end() {
	if p.hasten != nil {
		p.hasten()
		p.hasten = nil
	}
}

// gently lowers the priority of all threads and returns what gives them back the
// one they had. A process that may not raise its priority again keeps it.
func gently() (back func()) {
	nice, io, err := priority(0)
	if err != nil || nice >= gentleNice || !mayReturn(nice) {
		return func() {}
	}
	setPriority(gentleNice, gentleIO)
	return func() { setPriority(nice, io) }
}

// priority returns what a thread has; 0 is the caller's.
func priority(thread int) (nice, io int, err error) {
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, thread)
	if err != nil {
		return 0, 0, err
	}
	class, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(thread), 0)
	if errno != 0 {
		return 0, 0, errno
	}
	return 20 - raw, int(class), nil // getpriority(2), "C library/kernel differences"
}

// mayReturn tries on a thread of its own whether a lowered priority can be
// raised again, which takes CAP_SYS_NICE. The thread ends with that.
func mayReturn(nice int) bool {
	may := make(chan bool)
	go func() {
		runtime.LockOSThread() // and never unlocked
		err := unix.Setpriority(unix.PRIO_PROCESS, 0, nice+1)
		if err == nil {
			err = unix.Setpriority(unix.PRIO_PROCESS, 0, nice)
		}
		may <- err == nil
	}()
	return <-may
}

// setPriority gives all threads a priority. A thread that is made meanwhile may
// have the old one, so it looks again until no thread has.
func setPriority(nice, io int) {
	for range 10 {
		changed := false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return
		}
		for _, task := range tasks {
			id, err := strconv.Atoi(task.Name())
			if err != nil {
				continue
			}
			now, class, err := priority(id)
			if err != nil || now == nice && class == io {
				continue
			}
			changed = true
			// A priority that cannot be had is left: it is a courtesy.
			_ = unix.Setpriority(unix.PRIO_PROCESS, id, nice)
			_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, 1, uintptr(id), uintptr(io))
		}
		if !changed {
			return
		}
	}
}

// moreThreads lets the runtime have as many threads again as there are cores,
// and returns what ends that. Those that make files wait in the kernel, too briefly
// for the runtime to give their core to another: a sixth of the time would be lost.
// What compresses loses by more threads.
func moreThreads() (end func()) {
	n := runtime.GOMAXPROCS(0)
	if n == 1 { // whoever wants the calls in an order gets them so
		return func() {}
	}
	runtime.GOMAXPROCS(2 * n)
	return func() { runtime.GOMAXPROCS(n) }
}
