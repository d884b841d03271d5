package disktest

import (
	"bufio"
	"os/exec"
	"sync"
	"testing"
)

// Process starts a program that prints "ready" and then runs until the end of its standard
// input. It returns when the program is ready. end brings the program to its end and waits
// for that; the end of the test calls it too.
func Process(t testing.TB, cmd *exec.Cmd) (end func()) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() { in.Close(); _ = cmd.Wait() })
	t.Cleanup(end)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the process printed %q: %v", line, err)
	}
	return end
}
