package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// command is a program of a pipeline.
type command struct {
	argv []string
	dir  string   // where it runs; empty: here
	env  []string // beside this process's own
}

func cmd(argv ...string) command { return command{argv: argv} }

func (c command) in(dir string) command      { c.dir = dir; return c }
func (c command) with(env ...string) command { c.env = append(c.env, env...); return c }
func (c command) String() string             { return strings.Join(c.argv, " ") }
func (c command) plus(args ...string) command {
	c.argv = append(c.argv[:len(c.argv):len(c.argv)], args...)
	return c
}

// cost is what a run took.
type cost struct {
	seconds float64
	// peak is the memory in MiB: the sum over a pipeline, and of each program
	// that of its largest process. A program that needs less than this one
	// does is charged with as much: the kernel carries the number over an exec.
	peak   float64
	phases map[string]float64 // of those who tell
}

// then is the cost of one after the other.
func (c cost) then(next cost) cost {
	return cost{seconds: c.seconds + next.seconds, peak: max(c.peak, next.peak), phases: c.phases}
}

// pipe runs programs, each with its output as input of the next, until all have
// ended. The last one's output goes to out, or nowhere where that is nil. An error
// names the program that failed, and says what it had to say.
func pipe(ctx context.Context, out io.Writer, commands ...command) (cost, error) {
	var running []*exec.Cmd
	var complaints []*bytes.Buffer
	var closers []io.Closer
	shut := func() {
		for _, c := range closers {
			c.Close()
		}
		closers = nil
	}
	defer shut()
	var input *os.File
	for i, c := range commands {
		x := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
		x.Dir = c.dir
		x.Env = append(os.Environ(), c.env...)
		if input != nil {
			x.Stdin = input
		}
		said := new(bytes.Buffer)
		x.Stderr = said
		if i == len(commands)-1 {
			x.Stdout = out
		} else {
			r, w, err := os.Pipe()
			if err != nil {
				return cost{}, err
			}
			closers = append(closers, r, w)
			x.Stdout, input = w, r
		}
		running, complaints = append(running, x), append(complaints, said)
	}
	start := time.Now()
	var failed error
	for i, x := range running {
		if err := x.Start(); err != nil {
			failed = fmt.Errorf("%s: %w", commands[i], err)
			running = running[:i]
			break
		}
	}
	shut() // the programs have their own ends
	var c cost
	for i, x := range running {
		err := x.Wait()
		if err != nil && failed == nil {
			failed = fmt.Errorf("%s: %w: %s", commands[i], err, tail(complaints[i].String()))
		}
		if usage, ok := x.ProcessState.SysUsage().(*syscall.Rusage); ok {
			c.peak += float64(usage.Maxrss) / 1024 // KiB, by getrusage(2)
		}
	}
	c.seconds = time.Since(start).Seconds()
	return c, failed
}

// run runs one program and throws its output away.
func run(ctx context.Context, c command) (cost, error) {
	var said bytes.Buffer
	used, err := pipe(ctx, &said, c)
	if err != nil && said.Len() > 0 {
		err = fmt.Errorf("%w\n%s", err, tail(said.String()))
	}
	return used, err
}

// output runs one program and returns what it printed, without the last newline.
func output(ctx context.Context, c command) (string, error) {
	var said bytes.Buffer
	_, err := pipe(ctx, &said, c)
	return strings.TrimRight(said.String(), "\n"), err
}

// firstLine is what a program says of itself; "" when it cannot be run.
func firstLine(ctx context.Context, argv ...string) string {
	text, err := output(ctx, cmd(argv...))
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(text, "\n")
	return strings.TrimSpace(line)
}

func tail(text string) string {
	text = strings.TrimSpace(text)
	if len(text) > 2000 {
		text = "… " + text[len(text)-2000:]
	}
	return text
}

func have(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// timed is the cost of what this process does itself.
func timed(do func() error) (cost, error) {
	start := time.Now()
	err := do()
	return cost{seconds: time.Since(start).Seconds()}, err
}
