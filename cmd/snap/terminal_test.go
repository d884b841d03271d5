package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// pty is a pseudo-terminal with one process on it. See pts(4).
type pty struct {
	*testing.T
	master, slave *os.File
	cmd           *exec.Cmd

	mu    sync.Mutex
	said  bytes.Buffer
	heard *sync.Cond // something was said, or the process has ended
	ended bool
	code  int
}

// onTerminal starts snap on a terminal of its own, in the foreground of a new session.
func onTerminal(t *testing.T, args ...string) *pty {
	t.Helper()
	p := &pty{T: t}
	p.heard = sync.NewCond(&p.mu)
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no pseudo-terminal: %v", err)
	}
	p.master = os.NewFile(uintptr(master), "/dev/ptmx")
	t.Cleanup(func() { p.master.Close() })
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		p.slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.slave.Close() })
	p.cmd = exec.Command("snap", args...)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = p.slave, p.slave, p.slave
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	p.cmd.Env = append(os.Environ(), "DOCKER_HOST=unix:///nonexistent/docker.sock")
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := p.master.Read(buf)
			p.mu.Lock()
			p.said.Write(buf[:n])
			p.heard.Broadcast()
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() {
		_ = p.cmd.Wait() // the exit code is looked at
		p.mu.Lock()
		p.ended, p.code = true, p.cmd.ProcessState.ExitCode()
		p.heard.Broadcast()
		p.mu.Unlock()
	}()
	return p
}

// until waits until the terminal shows a text, and returns all that it shows.
func (p *pty) until(text string) string {
	p.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for !strings.Contains(p.said.String(), text) {
		if p.ended {
			p.Fatalf("it ended with %d and without %q: %s", p.code, text, p.said.String())
		}
		p.heard.Wait()
	}
	return p.said.String()
}

// typed types.
func (p *pty) typed(keys string) {
	p.Helper()
	if _, err := p.master.WriteString(keys); err != nil {
		p.Fatal(err)
	}
}

// exits waits for the end, which must come with the code.
func (p *pty) exits(code int) string {
	p.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.ended {
		p.heard.Wait()
	}
	const mark = "[ended]" // comes after all that the process has said
	if _, err := p.slave.WriteString(mark); err != nil {
		p.Fatal(err)
	}
	for !strings.Contains(p.said.String(), mark) {
		p.heard.Wait()
	}
	if p.code != code {
		p.Errorf("it ended with %d, expected %d: %s", p.code, code, p.said.String())
	}
	return p.said.String()
}

// settings of the terminal.
func (p *pty) settings() unix.Termios {
	p.Helper()
	t, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	if err != nil {
		p.Fatal(err)
	}
	return *t
}

// left returns the next line that a shell would read.
func (p *pty) left() string {
	p.Helper()
	p.typed("next\n")
	buf := make([]byte, 100)
	n, err := p.slave.Read(buf)
	if err != nil {
		p.Fatal(err)
	}
	return string(buf[:n])
}

const (
	ctrlC         = "\x03"
	ctrlD         = "\x04"
	ctrlBackslash = "\x1c"
)

// A question at a terminal ends at once, whatever ends it: nothing has changed, the
// terminal is as it was, and the shell gets nothing of what was typed.
func TestAQuestionAtATerminalEndsAtOnce(t *testing.T) {
	dir, config, sid := fileHost(t)
	page := filepath.Join(dir, "srv/files/page")
	var other string
	for what, c := range map[string]struct {
		end  func(p *pty)
		code int
		says string
	}{
		"Ctrl-C":              {func(p *pty) { p.typed(ctrlC) }, 130, "interrupted by SIGINT"},
		"half an id, Ctrl-C":  {func(p *pty) { p.typed(sid[:9] + ctrlC) }, 130, "interrupted by SIGINT"},
		"Ctrl-\\":             {func(p *pty) { p.typed(ctrlBackslash) }, 131, "interrupted by SIGQUIT"},
		"SIGTERM":             {func(p *pty) { p.typed(sid[:9]); _ = p.cmd.Process.Signal(syscall.SIGTERM) }, 143, "interrupted by SIGTERM"},
		"the end of input":    {func(p *pty) { p.typed(ctrlD) }, 3, "must be confirmed"},
		"half an id, and end": {func(p *pty) { p.typed(sid[:9] + ctrlD + ctrlD) }, 3, "must be confirmed"},
		"an empty line":       {func(p *pty) { p.typed("\n") }, 3, "must be confirmed"},
		"another word":        {func(p *pty) { p.typed("latest\n") }, 3, "but the snapshot is " + sid},
	} {
		t.Run(what, func(t *testing.T) {
			for _, args := range [][]string{{"restore", "files", "latest"}, {"undo", "files"}} {
				p := onTerminal(t, append([]string{config}, args...)...)
				before := p.settings()
				p.until("to confirm:")
				c.end(p)
				says := c.says
				if args[0] == "undo" {
					says = strings.ReplaceAll(strings.ReplaceAll(says, "but the snapshot is "+sid, "must be confirmed"), sid, other)
				}
				if said := p.exits(c.code); !strings.Contains(said, says) {
					t.Errorf("it does not say %q: %s", says, said)
				}
				if after := p.settings(); after != before {
					t.Errorf("the terminal's settings were %+v and are %+v", before, after)
				}
				if line := p.left(); line != "next\n" {
					t.Errorf("a shell would read %q", line)
				}
				if text, err := os.ReadFile(page); err != nil || string(text) != "live" {
					t.Errorf("the data is %q (%v)", text, err)
				}
				nothingLeft(t, dir)
			}
		})
	}
}

// fileHost is a host with a workload of two files, whose data was restored once.
func fileHost(t *testing.T) (dir, config, sid string) {
	t.Helper()
	disktest.NeedRoot(t)
	dir = t.TempDir()
	disktest.Write(t, dir, map[string]string{"srv/files/page": "first", "snap.yaml": fmt.Sprintf(
		"version: 1\nstate: %[1]s/state\nstore: %[1]s/store\nabsolute_roots: [%[1]s/srv]\nworkloads:\n  files: {volumes: [{name: data, scope: absolute, source: %[1]s/srv/files}]}\n", dir)})
	config = "--config=" + filepath.Join(dir, "snap.yaml")
	run := func(args ...string) string {
		out, err := exec.Command("snap", append([]string{config}, args...)...).Output()
		if err != nil {
			t.Fatal(args, err)
		}
		return strings.TrimSpace(string(out))
	}
	sid = run("capture", "files", "--note", "before the change")
	disktest.Write(t, dir, map[string]string{"srv/files/page": "second"})
	run("restore", "files", sid, "--confirm", sid)
	disktest.Write(t, dir, map[string]string{"srv/files/page": "live"})
	return dir, config, sid
}

func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	for _, pattern := range []string{"srv/.snap-*", "state/tx/*", "store/scratch/*"} {
		if left, _ := filepath.Glob(filepath.Join(dir, pattern)); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	}
}

// What is about to happen is shown before the question, also with --quiet, and what was
// shown is what is done: if the world changes while somebody reads, nothing is.
func TestWhatIsConfirmedIsWhatWasShown(t *testing.T) {
	dir, config, sid := fileHost(t)
	live := filepath.Join(dir, "srv/files")
	p := onTerminal(t, config, "-q", "restore", "files", "latest")
	shown := p.until("to confirm:")
	for _, want := range []string{"snapshot " + sid + " of files, of ", " ago, \"before the change\"", "data    " + live, "4B", "5B", "This replaces the live data of files"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not shown before the question: %s", want, shown)
		}
	}
	if strings.Contains(shown, "downtime") {
		t.Errorf("of an app that does not run it tells a downtime: %s", shown)
	}
	// Somebody exchanges the directory meanwhile.
	for _, move := range [][2]string{{live, live + ".was"}, {live + ".new", live}} {
		disktest.Write(t, live+".new", map[string]string{"page": "theirs"})
		if err := os.Rename(move[0], move[1]); err != nil {
			t.Fatal(err)
		}
	}
	p.typed(sid + "\n")
	if said := p.exits(3); !strings.Contains(said, "because a volume has changed since") || !strings.Contains(said, "restore files "+sid+" --plan") {
		t.Errorf("it says %s", said)
	}
	if text, err := os.ReadFile(live + "/page"); err != nil || string(text) != "theirs" {
		t.Errorf("the data is %q (%v)", text, err)
	}
	nothingLeft(t, dir)

	p = onTerminal(t, config, "restore", "files", sid[:len(sid)-1])
	p.until("to confirm:")
	p.typed(sid + "\n")
	p.exits(0)
	if text, err := os.ReadFile(live + "/page"); err != nil || string(text) != "first" {
		t.Errorf("the data is %q (%v)", text, err)
	}
	p = onTerminal(t, config, "undo", "files")
	shown = p.until("to confirm:")
	_, rest, _ := strings.Cut(shown, "snapshot ")
	p.typed(rest[:len(sid)] + "\n")
	p.exits(0)
	if text, err := os.ReadFile(live + "/page"); err != nil || string(text) != "theirs" {
		t.Errorf("after the undo the data is %q (%v)", text, err)
	}
}

// Where nobody can see the question, it is not asked.
func TestNobodyIsAskedBlindly(t *testing.T) {
	_, config, sid := fileHost(t)
	p := onTerminal(t, config, "status") // for its terminal
	p.exits(0)
	blind := exec.Command("snap", config, "restore", "files", sid)
	blind.Stdin = p.slave
	var said bytes.Buffer
	blind.Stderr = &said
	done := make(chan error, 1)
	if err := blind.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { done <- blind.Wait() }()
	select {
	case <-done:
	case <-time.After(30 * time.Second): // it waits for an answer
		_ = blind.Process.Kill()
		<-done
	}
	if code := blind.ProcessState.ExitCode(); code != 3 || !strings.Contains(said.String(), "must be confirmed") {
		t.Errorf("it ended with %d: %s", code, said.String())
	}
}
