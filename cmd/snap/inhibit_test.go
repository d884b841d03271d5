package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// logind stands for systemd-logind, which wants to be the machine's: it answers
// the one method on a bus of the test's own, and sees when a lock is given
// back, as logind does: the pipe's other end closes.
type logind struct {
	delay time.Duration

	mu    sync.Mutex
	asked []string // the arguments of each call
	held  int
	seen  chan struct{} // closed when the first lock is given back
}

func (l *logind) Inhibit(what, who, why, mode string) (dbus.UnixFD, *dbus.Error) {
	time.Sleep(l.delay)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return -1, dbus.MakeFailedError(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, strings.Join([]string{what, who, why, mode}, " "))
	l.held++
	go func() {
		// Ours goes once it is sent; then the caller alone holds the lock.
		time.Sleep(20 * time.Millisecond)
		unix.Close(pipe[1])
		watch := os.NewFile(uintptr(pipe[0]), "lock")
		_, _ = io.Copy(io.Discard, watch)
		watch.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.held--; l.held == 0 {
			close(l.seen)
		}
	}()
	return dbus.UnixFD(pipe[1]), nil
}

func (l *logind) calls() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string{}, l.asked...)
}

// bus starts a system bus of the test's own.
func bus(t *testing.T) {
	t.Helper()
	disktest.Need(t, "dbus-daemon")
	dir := t.TempDir()
	config := filepath.Join(dir, "bus.conf")
	text := fmt.Sprintf(`<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>`, dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--print-address=1")
	out, err := daemon.StdoutPipe()
	if err == nil {
		err = daemon.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("dbus-daemon does not start: %v", err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", strings.TrimSpace(address))
}

// serve puts a logind on the bus.
func (l *logind) serve(t *testing.T) {
	t.Helper()
	l.seen = make(chan struct{})
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.Export(l, "/org/freedesktop/login1", "org.freedesktop.login1.Manager"); err != nil {
		t.Fatal(err)
	}
	if reply, err := conn.RequestName("org.freedesktop.login1", dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("the name is not ours: %v, %v", reply, err)
	}
}

func TestAShutdownIsInhibitedUntilItIsReleased(t *testing.T) {
	bus(t)
	l := &logind{}
	l.serve(t)
	before := openFiles(t)
	release := inhibit("restoring blog")
	if got := l.calls(); len(got) != 1 || got[0] != "shutdown:sleep snap restoring blog block" {
		t.Fatalf("logind was asked for %q", got)
	}
	for fd := range openFiles(t) {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); !before[fd] && (err != nil || flags&unix.FD_CLOEXEC == 0) && err != unix.EBADF {
			t.Errorf("descriptor %d would go to a child: %v", fd, err)
		}
	}
	select {
	case <-l.seen:
		t.Fatal("the lock was given back at once")
	case <-time.After(500 * time.Millisecond):
	}
	release()
	select {
	case <-l.seen:
	case <-time.After(10 * time.Second):
		t.Fatal("the lock was not given back")
	}
}

func openFiles(t *testing.T) map[int]bool {
	t.Helper()
	out := map[int]bool{}
	for fd := range descriptors(os.Getpid()) {
		out[fd] = true
	}
	return out
}

// TestWithoutLogindNothingIsInhibitedAndNothingHangs: no bus, no logind on it,
// one that does not answer, and a bus that does not.
func TestWithoutLogindNothingIsInhibitedAndNothingHangs(t *testing.T) {
	inTime := func(t *testing.T) {
		t.Helper()
		start := time.Now()
		inhibit("restoring blog")()
		if took := time.Since(start); took > 4*inhibitPatience {
			t.Errorf("it took %s", took)
		}
	}
	t.Run("no bus", func(t *testing.T) {
		t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+t.TempDir()+"/none")
		inTime(t)
	})
	t.Run("a bus that does not answer", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "bus")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+path)
		inTime(t)
	})
	t.Run("no logind", func(t *testing.T) {
		bus(t)
		inTime(t)
	})
	t.Run("a logind that answers too late", func(t *testing.T) {
		bus(t)
		l := &logind{delay: inhibitPatience + time.Second}
		l.serve(t)
		inTime(t)
		select {
		case <-l.seen: // the answer came, and was not kept
		case <-time.After(10 * time.Second):
			t.Error("the lock that came too late is held")
		}
	})
}

// TestARestoreInhibitsUntilItsCommit watches a restore from logind's side.
func TestARestoreInhibitsUntilItsCommit(t *testing.T) {
	bus(t)
	l := &logind{}
	l.serve(t)
	h := newAppHost(t)
	sid := h.captured()
	if got := l.calls(); len(got) > 0 {
		t.Errorf("a deploy or a capture asked for %q", got)
	}
	p := h.start("restore", h.name, sid, "--confirm", sid)
	<-l.seen
	if !h.recorded("commit") && len(h.pending()) > 0 {
		t.Error("the lock was given back before the commit")
	}
	if _, code := h.ended(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if got := l.calls(); len(got) != 1 || got[0] != "shutdown:sleep snap restoring "+h.name+" block" {
		t.Errorf("logind was asked for %q", got)
	}
	h.settled()
}
