package restore

import (
	"os"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// While the app runs, snap reads and writes as if it had been started with
// `nice` and `ionice -c best-effort -n 7`: the app comes first. While the app is
// down, snap is what it waits for.
//
// Both priorities belong to a thread, and a new one has those of the thread that
// made it (sched(7), ioprio_set(2)).
const (
	gentleNice = 10
	gentleIO   = 2<<13 | 7 // IOPRIO_CLASS_BE, its lowest level
)

// gently lowers the priority of all threads and returns what gives them back
// the one they had, once or more than once. A process that may not raise its
// priority again keeps it.
func gently(fullSpeed bool) (back func()) {
	if fullSpeed {
		return func() {}
	}
	nice, io, err := priority(0)
	if err != nil || nice >= gentleNice || !mayReturn(nice) {
		return func() {}
	}
	pace(gentleNice, gentleIO)
	return sync.OnceFunc(func() { pace(nice, io) })
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

// pace gives all threads a priority. One that is made meanwhile may have the old
// one, so it looks again until there is none.
func pace(nice, io int) {
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
			// What cannot be had is left: it is a courtesy.
			_ = unix.Setpriority(unix.PRIO_PROCESS, id, nice)
			_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, 1, uintptr(id), uintptr(io))
		}
		if !changed {
			return
		}
	}
}

// moreThreads lets the runtime have as many threads again as there are cores,
// and returns what ends that. Those that make files wait in the kernel for a
// directory or the journal, too briefly for the runtime to give their core to
// another: with as many threads as cores a sixth of the time is lost. What
// compresses loses by more.
func moreThreads() (end func()) {
	n := runtime.GOMAXPROCS(0)
	if n == 1 { // whoever wants the calls in an order gets them so
		return func() {}
	}
	runtime.GOMAXPROCS(2 * n)
	return func() { runtime.GOMAXPROCS(n) }
}
