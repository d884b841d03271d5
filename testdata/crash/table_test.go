//go:build linux && amd64

package crash

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// programs are the paths of the programs that the tests run, built once.
var programs struct{ snap, sieve string }

// all is set by `make crash`; otherwise the tests run a sample.
var all = os.Getenv("SNAP_CRASH") == "all"

// TestMain builds the programs once, in an isolated process, and prints the table.
func TestMain(m *testing.M) {
	if os.Geteuid() == 0 && os.Getenv(isolated) == "" {
		os.Exit(runIsolated())
	}
	os.Exit(main(m))
}

// isolated is set in the process that runs the tests.
const isolated = "SNAP_CRASH_ALONE"

// runIsolated runs the tests in their own mount namespace. A container that starts
// at the wrong moment then cannot keep a test filesystem mounted, and all mounts
// end with the tests, even if those are killed.
func runIsolated() int {
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), isolated+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Println(err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// forget unmounts, in the tests' own mount namespace alone, the volumes of containers
// that run beside the tests: a copy of such a mount would count as somebody who holds
// the volume.
func forget() error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); strings.HasSuffix(fields[4], "/_data") {
			if err := unix.Unmount(fields[4], unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("umount %s: %w", fields[4], err)
			}
		}
	}
	return nil
}

func main(m *testing.M) int {
	if os.Getenv(isolated) != "" {
		if err := forget(); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	startTracing(8) // first, while no thread has forked
	dir, err := os.MkdirTemp("", "snap-crash")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(dir)
	programs.snap, programs.sieve = filepath.Join(dir, "snap"), filepath.Join(dir, "sieve")
	for path, pkg := range map[string]string{programs.snap: "../../cmd/snap", programs.sieve: "./sieve"} {
		build := exec.Command("go", "build", "-o", path, pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Printf("build %s: %v\n%s", pkg, err, out)
			return 1
		}
	}
	code := m.Run()
	printTable()
	return code
}

func sh(script string, args ...string) (string, error) {
	out, err := exec.Command("bash", append([]string{"-o", "pipefail", "-c", script}, args...)...).CombinedOutput()
	return string(out), err
}

// tally counts the points that a test has tried and the promises that were broken.
type tally struct {
	mu                         sync.Mutex
	name                       string
	points, mixed, lost, stuck int
	wrong                      int // another broken promise
	begun, ended               time.Time
}

var table struct {
	sync.Mutex
	rows []*tally
}

func newTally(name string) *tally {
	c := &tally{name: name, begun: time.Now()}
	table.Lock()
	defer table.Unlock()
	table.rows = append(table.rows, c)
	return c
}

// count counts a point, and fails the test if anything was found there.
func (c *tally) count(t *testing.T, what string, found []finding) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.points++
	c.ended = time.Now()
	kinds := map[string]*int{"mixed": &c.mixed, "lost": &c.lost, "stuck": &c.stuck, "wrong": &c.wrong}
	seen := map[string]bool{}
	for _, f := range found {
		if !seen[f.kind] {
			seen[f.kind] = true
			*kinds[f.kind]++
		}
		t.Errorf("%s: %s: %s", what, f.kind, f.text)
	}
}

func printTable() {
	if len(table.rows) == 0 {
		return
	}
	tw := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "CRASH PROOF\tPOINTS\tMIXED\tLOST\tSTUCK\tWRONG\tSECONDS")
	sum := &tally{name: "in all", begun: table.rows[0].begun}
	for _, c := range table.rows {
		sum.ended = c.ended
		c.row(tw)
		sum.points, sum.mixed, sum.lost, sum.stuck, sum.wrong = sum.points+c.points, sum.mixed+c.mixed, sum.lost+c.lost, sum.stuck+c.stuck, sum.wrong+c.wrong
	}
	sum.row(tw)
	tw.Flush()
}

func (c *tally) row(tw *tabwriter.Writer) {
	fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%d\t%d\t%.0f\n", c.name, c.points, c.mixed, c.lost, c.stuck, c.wrong, c.ended.Sub(c.begun).Seconds())
}

// workers runs several workers in parallel, each with its own world, and waits for
// them. They split the work by their numbers. There is one worker more than there
// are cores, because each waits for disks now and then.
func workers(t *testing.T, work func(w *world, worker, of int)) { workersOn(t, "ext4", work) }

// workersOn is like workers, with the stores on this kind of filesystem.
func workersOn(t *testing.T, store string, work func(w *world, worker, of int)) {
	workersIn(t, "store on "+store, func(t *testing.T) *world { return newWorld(t, store) }, work)
}

// workersIn is like workers, each in a world that make returns.
func workersIn(t *testing.T, name string, make func(t *testing.T) *world, work func(w *world, worker, of int)) {
	n := 1
	if all {
		n = min(runtime.NumCPU()+1, 4)
	}
	t.Run(name, func(t *testing.T) { // waits for its parallel subtests
		for i := range n {
			t.Run(fmt.Sprint("world", i), func(t *testing.T) {
				t.Parallel()
				work(make(t), i, n)
			})
		}
	})
}
