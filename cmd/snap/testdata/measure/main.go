// Command measure runs a command and writes to descriptor 3 the most memory
// that it had, in KiB, and how many bytes it has read. It stands between a test and the command because what
// the kernel counts begins with what the parent has at the fork.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	syscall.CloseOnExec(3)
	c := exec.Command(os.Args[1], os.Args[2:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	if c.Start() != nil {
		os.Exit(127)
	}
	// The kernel keeps the counts until the command is waited for.
	_ = unix.Waitid(unix.P_PID, c.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
	var read int64
	counts, _ := os.ReadFile(fmt.Sprintf("/proc/%d/io", c.Process.Pid))
	_, _ = fmt.Sscanf(string(counts), "rchar: %d", &read)
	_ = c.Wait() // its exit code is passed on
	if used, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
		_, _ = fmt.Fprint(os.NewFile(3, "measure"), used.Maxrss, read) // the test misses it
	}
	os.Exit(c.ProcessState.ExitCode())
}
