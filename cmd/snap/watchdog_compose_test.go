package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// composeHost is a host whose app is one of two services of a Compose file; the
// app waits for the other's health.
func composeHost(t *testing.T) *appHost {
	t.Helper()
	h := bareHost(t)
	image := dockertest.Image(t, testApp)
	dockertest.NeedCompose(t)
	file := filepath.Join(h.dir, "compose.yaml")
	h.must(os.WriteFile(file, []byte(fmt.Sprintf(`name: %[1]s
services:
  first:
    image: %[2]s
    restart: unless-stopped
    tmpfs: [/data]
    healthcheck: {test: [CMD, /app, healthcheck], interval: 2s, timeout: 30s, retries: 5}
  app:
    image: %[2]s
    restart: unless-stopped
    environment: {META: /meta}
    ports: ["%[3]s:8080"]
    depends_on: {first: {condition: service_healthy}}
    volumes: ["%[4]s:/data", "%[5]s:/meta"]
`, h.name, image, strings.TrimPrefix(h.url, "http://"), h.posts, h.meta)), 0o600))
	h.lines("compose: " + file)
	t.Cleanup(func() { disktest.Run(t, "docker", "compose", "-f", file, "down", "-t", "1") })
	h.snap("deploy", h.name)
	return h
}

// TestARestoreKilledUnderDockerComposeIsFinished kills snap while docker compose
// brings the new app up. It also looks at the open files of docker compose: if one
// were a lock or the pipe, the watchdog would have to wait for it.
func TestARestoreKilledUnderDockerComposeIsFinished(t *testing.T) {
	h := composeHost(t)
	sid := h.captured()
	// Unchanged containers start again without docker compose.
	file := filepath.Join(h.dir, "compose.yaml")
	text, err := os.ReadFile(file)
	h.must(err)
	h.must(os.WriteFile(file, bytes.ReplaceAll(text, []byte("restart: unless-stopped\n"), []byte("restart: unless-stopped\n    labels: {edited: 'yes'}\n")), 0o600))
	p := h.start("restore", h.name, sid, "--confirm", sid)
	h.until("the restore is committed", func() bool { return h.recorded("commit") })
	mark := runtime.Mark + "=" + h.pending()[0]
	var seen []int
	stopsWhen(h.T, p.Process, "docker and its plugin are at work", func() bool { seen = commands(mark); return len(seen) >= 2 })
	watchdogs := h.watchdogs()
	if len(watchdogs) != 1 {
		t.Fatalf("the watchdogs are %v", watchdogs)
	}
	pipe := descriptors(watchdogs[0])[0]
	for _, pid := range seen {
		for fd, what := range descriptors(pid) {
			if what == pipe || strings.HasPrefix(what, h.dir) && (strings.Contains(what, "/store/") || strings.Contains(what, "/state/")) {
				t.Errorf("a docker compose of snap's has descriptor %d open: %s", fd, what)
			}
		}
	}
	when := h.kill(p)
	h.until("the watchdog has ended", func() bool { return len(h.watchdogs()) == 0 })
	h.until("the app answers", func() bool { return h.answer() != "" })
	h.Logf("all was done %.1f s after the kill", time.Since(when).Seconds())
	if state := h.state(); state != "new" {
		t.Errorf("the data is %s", state)
	}
	h.nothingLeft()
	if line := h.audit(); line.Verb != "watchdog" || line.Action != "rolled_forward" || line.Result != "ok" {
		t.Errorf("the audit log says %+v", line)
	}
}

// commands returns the processes that have the mark in their environment.
func commands(mark string) (pids []int) {
	for _, p := range runtime.Marked("/proc", mark) {
		pids = append(pids, p.Pid)
		_ = p.Release()
	}
	return pids
}

// TestCommandsOfADeadSnapAreWaitedFor lets a command outlive a killed snap.
func TestCommandsOfADeadSnapAreWaitedFor(t *testing.T) {
	mark := runtime.Mark + "=" + "20261123T140501Z-" + fmt.Sprintf("%06x", os.Getpid())
	command := exec.Command("sleep", "1")
	command.Env = append(os.Environ(), mark)
	other := exec.Command("sleep", "60")
	other.Env = append(os.Environ(), mark+"0", "X"+mark)
	for _, cmd := range []*exec.Cmd{command, other} {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() })
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	endCommands("/proc", mark)
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it was not let be: %v", err)
		}
	case <-time.After(time.Second):
		t.Error("it was not waited for")
	}
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("another process is gone: %v", err)
	}
}
