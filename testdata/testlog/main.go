// Command testlog makes a report of what "go test -json" prints on its standard
// input: the failed and the skipped tests with their output, and go test's line
// for each package. While the tests run, it says every twenty seconds on standard
// error which of them runs.
//
// It exits with 1 when a test failed, and with 3 when one was skipped and
// SNAP_TEST_SKIPS is "fail".
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

func main() {
	// go test ends on an interrupt, and what it has printed is still reported.
	signal.Ignore(os.Interrupt)
	module := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		module = info.Main.Path + "/"
	}
	tick := time.NewTicker(20 * time.Second)
	r := &report{out: os.Stdout, progress: os.Stderr, module: module, begun: time.Now(), running: map[name]*test{}}
	if err := r.read(os.Stdin, tick.C); err != nil {
		fmt.Fprintln(os.Stderr, "testlog:", err)
		os.Exit(1)
	}
	os.Exit(r.exit(os.Getenv("SNAP_TEST_SKIPS") == "fail"))
}

// columns is how wide a line of progress may be.
const columns = 80

// event is a line of go test -json ("go doc test2json").
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64
}

// name is a test, or a package when test is empty.
type name struct{ pkg, test string }

// test is a test or a package without an outcome.
type test struct {
	begun  time.Time
	paused bool // it waits for its turn (testing.T.Parallel)
	output strings.Builder
}

type report struct {
	out, progress           io.Writer
	module                  string // the module's path and a slash
	begun                   time.Time
	running                 map[name]*test
	passed, failed, skipped int
	broken                  int // packages that failed, tests that never ended
}

// read reports the events of in and, at each tick, on what runs.
func (r *report) read(in io.Reader, tick <-chan time.Time) error {
	lines, end := make(chan string), make(chan error, 1)
	go func() {
		defer close(lines)
		in := bufio.NewReader(in)
		for {
			line, err := in.ReadString('\n')
			if line != "" {
				lines <- line
			}
			if err != nil {
				end <- err
				return
			}
		}
	}()
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				r.abandoned(func(name) bool { return true })
				if err := <-end; !errors.Is(err, io.EOF) {
					return err
				}
				return nil
			}
			r.line(line)
		case now := <-tick:
			fmt.Fprintln(r.progress, r.status(now))
		}
	}
}

// line reports a line. What is not an event comes from go itself, or from a
// program that a test left behind, and is printed as it is.
func (r *report) line(line string) {
	var e event
	if err := json.Unmarshal([]byte(line), &e); err != nil || e.Action == "" {
		fmt.Fprint(r.out, line)
		return
	}
	n := name{e.Package, e.Test}
	switch e.Action {
	case "start", "run":
		r.test(n)
	case "pause", "cont":
		t := r.test(n)
		t.paused, t.begun = e.Action == "pause", time.Now()
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "output":
		r.output(n, e.Output)
	case "pass", "fail", "skip":
		r.outcome(n, e)
	}
}

func (r *report) test(n name) *test {
	if r.running[n] == nil {
		r.running[n] = &test{begun: time.Now()}
	}
	return r.running[n]
}

func (r *report) output(n name, text string) {
	switch {
	case strings.HasPrefix(text, "=== "), text == "PASS\n", text == "FAIL\n":
	case n.test == "":
		if !strings.HasPrefix(text, "exit status ") {
			fmt.Fprint(r.out, text)
		}
	case strings.HasPrefix(text, "--- ") && strings.Contains(text, ": "+n.test+" ("): // outcome says it
	default:
		r.test(n).output.WriteString(text)
	}
}

func (r *report) outcome(n name, e event) {
	if n.test == "" {
		delete(r.running, n)
		if e.Action == "fail" {
			r.broken++
			r.abandoned(func(left name) bool { return left.pkg == n.pkg })
		}
		maps.DeleteFunc(r.running, func(left name, _ *test) bool { return left.pkg == n.pkg })
		return
	}
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		r.show("FAIL", n, e.Elapsed)
	case "skip":
		r.skipped++
		r.show("SKIP", n, e.Elapsed)
	}
	delete(r.running, n)
}

// abandoned shows the tests that have no outcome and never will: one of them
// panicked, or ran out of time, or ended the process.
func (r *report) abandoned(which func(name) bool) {
	left := slices.SortedFunc(maps.Keys(r.running), func(a, b name) int {
		return cmp.Or(cmp.Compare(a.pkg, b.pkg), cmp.Compare(a.test, b.test))
	})
	for _, n := range left {
		if which(n) {
			r.broken++
			r.show("NOT ENDED", n, time.Since(r.running[n].begun).Seconds())
			delete(r.running, n)
		}
	}
}

func (r *report) show(outcome string, n name, seconds float64) {
	fmt.Fprintf(r.out, "--- %s: %s (%.2fs)\n%s", outcome, r.short(n), seconds, r.test(n).output.String())
}

// short names a test without the module's path.
func (r *report) short(n name) string {
	return strings.TrimSpace(strings.TrimPrefix(n.pkg, r.module) + " " + n.test)
}

// status is the line of progress: of the tests that run, it names the one that
// has run longest. A test waits while its subtests run.
func (r *report) status(now time.Time) string {
	what, since := "building", r.begun
	depth := -1
	for n, t := range r.running {
		parent := func(other name) bool {
			return other.pkg == n.pkg && other != n && (n.test == "" || strings.HasPrefix(other.test, n.test+"/"))
		}
		if t.paused || slices.ContainsFunc(slices.Collect(maps.Keys(r.running)), parent) {
			continue
		}
		// A package without a test waits for its turn or is being linked.
		level := min(len(n.test), 1)
		if level > depth || level == depth && t.begun.Before(since) {
			what, since, depth = r.short(n), t.begun, level
		}
	}
	failed := ""
	if r.failed+r.broken > 0 {
		failed = fmt.Sprintf(", %d failed", max(r.failed, 1))
	}
	line := fmt.Sprintf("%7s  %d passed%s; %4s %s", round(now.Sub(r.begun)), r.passed, failed, round(now.Sub(since)), what)
	if runes := []rune(line); len(runes) > columns {
		line = string(runes[:columns-3]) + "..."
	}
	return line
}

func round(d time.Duration) string { return d.Round(time.Second).String() }

// exit returns the exit code.
func (r *report) exit(skipsFail bool) int {
	if r.failed+r.broken > 0 {
		return 1
	}
	if r.skipped > 0 && skipsFail {
		fmt.Fprintf(r.out, "test: %d skipped, and SNAP_TEST_SKIPS=fail\n", r.skipped)
		return 3
	}
	return 0
}
