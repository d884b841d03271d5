package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// TestSignals sends a signal to a restore when it begins to stage: a hang-up
// ends nothing, the others leave all as it was.
func TestSignals(t *testing.T) {
	for sig, want := range map[syscall.Signal]struct {
		exit int
		page string
	}{
		syscall.SIGHUP:  {0, "new"},
		syscall.SIGINT:  {130, "old"},
		syscall.SIGTERM: {143, "old"},
	} {
		t.Run(sig.String(), func(t *testing.T) {
			disktest.NeedRoot(t)
			dir := t.TempDir()
			files := map[string]string{"page": "new"}
			for i := range 1000 {
				files[fmt.Sprintf("d/%d", i)] = "content"
			}
			disktest.Write(t, filepath.Join(dir, "srv/files"), files)
			disktest.Write(t, dir, map[string]string{"snap.yaml": fmt.Sprintf(
				"version: 1\nstore: %[1]s/store\nabsolute_roots: [%[1]s/srv]\nworkloads:\n  files: {volumes: [{scope: absolute, source: %[1]s/srv/files}]}\n", dir)})
			config := "--config=" + filepath.Join(dir, "snap.yaml")
			out, err := exec.Command("snap", config, "capture", "files").Output()
			if err != nil {
				t.Fatal(err)
			}
			sid := strings.TrimSpace(string(out))
			disktest.Write(t, filepath.Join(dir, "srv/files"), map[string]string{"page": "old"})

			restore := exec.Command("snap", config, "restore", "files", sid, "--confirm", sid)
			stderr, err := restore.StderrPipe()
			if err == nil {
				err = restore.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(stderr)
			if line, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, "staging") {
				t.Fatalf("the restore says %q, %v", line, err)
			}
			if err := restore.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			rest, _ := io.ReadAll(lines) // ends with the process
			_ = restore.Wait()           // the exit code is looked at below
			if got := restore.ProcessState.ExitCode(); got != want.exit {
				t.Errorf("exit code %d, expected %d: %s", got, want.exit, rest)
			}
			if page, err := os.ReadFile(filepath.Join(dir, "srv/files/page")); err != nil || string(page) != want.page {
				t.Errorf("the data is %q (%v), expected %q", page, err, want.page)
			}
			for _, pattern := range []string{"srv/.snap-*", "store/tx/*"} {
				if left, _ := filepath.Glob(filepath.Join(dir, pattern)); len(left) > 0 {
					t.Errorf("left behind: %q", left)
				}
			}
		})
	}
}
