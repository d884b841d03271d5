package restore

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// daemon is the tests' own container engine, whose dockerd may be stopped, killed
// and restarted. All tests that need one share it; the machine's own engine is
// never touched. It runs in its own network namespace: when a dockerd with its own
// address pools restarts, it removes the bridge docker0, even that of another
// engine (moby, initNetworkController).
type daemon struct {
	dir     string // made by testdata/engine.sh
	host    string
	network string // the file of the network namespace
}

// private is the shared daemon. It ends with the test binary, even with one that
// is killed: the script that runs it waits for the end of its standard input.
var private struct {
	sync.Once
	*daemon
	err  error
	stop func()
}

// privateEngine returns the tests' own engine, running, and points DOCKER_HOST at
// it for the rest of the test.
func privateEngine(t *testing.T) *daemon {
	t.Helper()
	privateTools(t)
	private.Do(func() { private.daemon, private.stop, private.err = startPrivate("") })
	if private.err != nil {
		t.Fatalf("start a private container engine: %v", private.err)
	}
	private.up(t)
	t.Setenv("DOCKER_HOST", private.host)
	t.Cleanup(func() { private.up(t) })
	return private.daemon
}

// privateTools skips a test where no private engine can be started.
func privateTools(t *testing.T) {
	t.Helper()
	disktest.NeedRoot(t)
	for _, tool := range []string{"dockerd", "containerd", "docker", "ip", "unshare", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("SNAP_TEST_DOCKER") == "require" {
				t.Fatalf("a private container engine is needed: %v", err)
			}
			t.Skipf("no private container engine: %v", err)
		}
	}
}

// startPrivate starts an engine that keeps its volumes in this directory, through
// symbolic links; "" is where engines keep them.
func startPrivate(volumes string) (*daemon, func(), error) {
	base := os.Getenv("TMPDIR")
	if base == "" {
		base = "/var/tmp" // like engine.sh: not every engine works on a tmpfs
	}
	dir, err := os.MkdirTemp(base, "snap-engine.")
	if err != nil {
		return nil, nil, err
	}
	if volumes != "" {
		err := errors.Join(os.Mkdir(filepath.Join(dir, "disk"), 0o710), os.Symlink("disk", filepath.Join(dir, "data")), os.Symlink(volumes, filepath.Join(dir, "disk", "volumes")))
		if err != nil {
			return nil, nil, err
		}
	}
	keep := exec.Command("unshare", "--net", "sh", "-c",
		`ip link set lo up && ../../testdata/engine.sh start "$0" || exit; cat >/dev/null; ../../testdata/engine.sh stop "$0"`, dir)
	keep.Stderr = os.Stderr
	keep.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // an interrupt must not end the engine before the tests
	hold, err := keep.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := keep.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := keep.Start(); err != nil {
		return nil, nil, err
	}
	stop := func() {
		hold.Close()
		_, _ = io.Copy(io.Discard, out)
		_ = keep.Wait()
	}
	host, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return nil, nil, errors.New("the engine did not start")
	}
	return &daemon{dir: dir, host: strings.TrimSpace(host), network: fmt.Sprintf("/proc/%d/ns/net", keep.Process.Pid)}, stop, nil
}

// pid returns the process of dockerd, or 0 when dockerd does not run. The command
// line is compared too, because the number may have been reused.
func (d *daemon) pid() int {
	text, err := os.ReadFile(filepath.Join(d.dir, "dockerd.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil || !strings.Contains(string(cmdline), d.dir+"/") {
		return 0
	}
	return pid
}

// down ends dockerd: SIGTERM stops its containers first, SIGKILL leaves them
// running without it.
func (d *daemon) down(t *testing.T, sig syscall.Signal) {
	t.Helper()
	pid := d.pid()
	if pid == 0 {
		return
	}
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatalf("end dockerd: %v", err)
	}
	for deadline := time.Now().Add(time.Minute); d.pid() != 0; {
		if time.Now().After(deadline) {
			t.Fatal("dockerd does not end")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// up starts dockerd unless it runs, and waits until it answers.
func (d *daemon) up(t *testing.T) {
	t.Helper()
	if d.pid() != 0 {
		return
	}
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	// dockerd refuses to start while the process in this file exists, even as a
	// zombie that init has not yet reaped.
	if err := os.Remove(filepath.Join(d.dir, "dockerd-own.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	cmd := exec.Command("nsenter", "--net="+d.network, "dockerd", "--config-file", filepath.Join(d.dir, "daemon.json"))
	cmd.Env = append(os.Environ(), "DOCKER_HOST=") // dockerd would listen there too
	// nsenter looks for dockerd as engine.sh does.
	if dir := os.Getenv("SNAP_ENGINE_DIR"); dir != "" {
		cmd.Env = append(cmd.Env, "PATH="+dir+":"+os.Getenv("PATH"))
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := os.WriteFile(filepath.Join(d.dir, "dockerd.pid"), []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for deadline := time.After(time.Minute); ; {
		ask := exec.Command("docker", "version")
		ask.Env = append(os.Environ(), "DOCKER_HOST="+d.host)
		if ask.Run() == nil {
			return
		}
		select {
		case err := <-ended:
			t.Fatalf("dockerd does not start again: %v: …%s", err, d.said())
		case <-deadline:
			t.Fatalf("dockerd does not answer: …%s", d.said())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// said returns the end of the engine's log.
func (d *daemon) said() []byte {
	text, err := os.ReadFile(filepath.Join(d.dir, "log"))
	if err != nil {
		return []byte(err.Error())
	}
	return text[max(0, len(text)-2000):]
}

// stopPrivate ends the private engine, if there is one.
func stopPrivate() {
	if private.stop != nil {
		private.stop()
	}
}
