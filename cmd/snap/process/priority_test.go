package process

import (
	"os"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAllThreadsAreGentleAndComeBack(t *testing.T) {
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 0); err != nil {
		t.Skip("no CAP_SYS_NICE:", err)
	}
	setPriority(0, 0) // wherever the tests were started with another
	stop := make(chan struct{})
	defer close(stop)
	for range 8 { // threads besides the runtime's own
		up := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(up)
			<-stop
		}()
		<-up
	}
	before, io, err := priority(0)
	if err != nil {
		t.Fatal(err)
	}
	back := gently()
	wantAll(t, gentleNice, gentleIO)
	back()
	wantAll(t, before, io)
	back()
	wantAll(t, before, io)
}

func wantAll(t *testing.T, nice, io int) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, task := range tasks {
		id, err := strconv.Atoi(task.Name())
		if err != nil {
			t.Fatal(err)
		}
		n, class, err := priority(id)
		if err != nil { // it has ended
			continue
		}
		seen++
		if n != nice || class != io {
			t.Errorf("thread %d has nice %d and I/O priority %#x, not %d and %#x", id, n, class, nice, io)
		}
	}
	if seen < 9 {
		t.Errorf("%d threads were looked at", seen)
	}
}
