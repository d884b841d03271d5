// Command measure runs a command and writes to descriptor 3 the most memory
// that it had, in KiB. It stands between a test and the command because what
// the kernel counts begins with what the parent has at the fork.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

func main() {
	syscall.CloseOnExec(3)
	c := exec.Command(os.Args[1], os.Args[2:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	_ = c.Run() // its exit code is passed on
	if c.ProcessState == nil {
		os.Exit(127)
	}
	if used, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
		_, _ = fmt.Fprint(os.NewFile(3, "measure"), used.Maxrss) // the test misses it
	}
	os.Exit(c.ProcessState.ExitCode())
}
