package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive/archivetest"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// Whoever chooses a name must not write a line that looks like one of snap's: names come
// from live data, from archives, from the config and from the command line.
func TestANameWritesNoLineOfOurs(t *testing.T) {
	disktest.NeedRoot(t)
	const evil = "x\nhint: forged\t\x1b[2J"
	snap := installedSnap(t)
	archiveOf := func(h *host, forge func(f *archivetest.Forge)) string {
		f := &archivetest.Forge{}
		f.Root()
		forge(f)
		f.End()
		path := filepath.Join(t.TempDir(), "in.tar")
		if err := os.WriteFile(path, f.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, attempt := range map[string]func(h *host) []string{
		"a fifo in the data": func(h *host) []string {
			must(unix.Mkfifo(filepath.Join(h.liveDir(), evil), 0o600))
			return []string{"capture", "files"}
		},
		"a fifo in a directory of the data": func(h *host) []string {
			must(os.MkdirAll(filepath.Join(h.liveDir(), evil, "x"), 0o700))
			must(unix.Mkfifo(filepath.Join(h.liveDir(), evil, "x", evil), 0o600))
			return []string{"capture", "files"}
		},
		"an entry that is refused": func(h *host) []string {
			return []string{"import", "files", "--volume", "files", archiveOf(h, func(f *archivetest.Forge) { f.Link(evil, "/etc/passwd") })}
		},
		"an entry with a hostile target": func(h *host) []string {
			return []string{"import", "files", "--volume", "files", archiveOf(h, func(f *archivetest.Forge) { f.Pax(archivetest.Record("path", "../"+evil)); f.File("y", "") })}
		},
		"an archive's own name": func(h *host) []string {
			return []string{"import", "files", "--volume", "files", filepath.Join(t.TempDir(), evil)}
		},
		"a workload":  func(h *host) []string { return []string{"capture", evil} },
		"a sid":       func(h *host) []string { return []string{"show", "files", evil} },
		"a volume":    func(h *host) []string { return []string{"export", "files", "latest", "--volume", evil, "-o", "-"} },
		"a flag":      func(h *host) []string { return []string{"capture", "files", "--quiesce", evil} },
		"a command":   func(h *host) []string { return []string{evil} },
		"a directory": func(h *host) []string { return []string{"restore", "files", "x", "--to", "/nowhere/" + evil} },
		"a source": func(h *host) []string {
			text, err := os.ReadFile(filepath.Join(h.dir, "snap.yaml"))
			must(err)
			must(os.WriteFile(filepath.Join(h.dir, "snap.yaml"), append(text, []byte("  bad: {volumes: [{scope: absolute, source: \"/nowhere/x\\nhint: forged\"}]}\n")...), 0o600))
			return []string{"status"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, snap, t.TempDir())
			o := h.run(attempt(h)...)
			if o.exit == 0 {
				t.Errorf("it succeeded: %s", o.stdout)
			}
			for line := range strings.Lines(o.stdout + o.stderr) {
				if strings.HasPrefix(line, "hint: forged") {
					t.Errorf("the name wrote the line %q in %q", line, o.stderr)
				}
			}
		})
	}
}
