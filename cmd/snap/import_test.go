package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/archivetest"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// waiting starts an import that has read all of data and waits for more. Where name is
// "-" it reads stdin, else a fifo of that name, which nobody has opened if data is nil.
func (h *host) waiting(name string, data []byte) (p *exec.Cmd, said *bytes.Buffer) {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), hangs)
	h.Cleanup(cancel)
	p = exec.CommandContext(ctx, h.snap+"/snap", "--config="+h.dir+"/snap.yaml", "import", "files", "--volume", "files", name)
	said = &bytes.Buffer{}
	p.Stderr = said
	var r, w *os.File
	var err error
	switch {
	case name == "-":
		if r, w, err = os.Pipe(); err == nil {
			p.Stdin = r
		}
	case data != nil:
		if w, err = os.OpenFile(name, os.O_RDWR, 0); err == nil {
			r = w
		}
	}
	if err != nil {
		h.Fatal(err)
	}
	if err := p.Start(); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { w.Close(); r.Close() })
	if _, err := w.Write(data); data != nil && err != nil {
		h.Fatal(err)
	}
	stopsWhen(h.T, p.Process, "it waits", func() bool {
		staged, _ := filepath.Glob(h.dir + "/srv/.snap-*/scratch")
		left := 0
		if data != nil {
			left, err = unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ)
		}
		return len(staged) == 1 && left == 0 && err == nil
	})
	return p, said
}

// An import that waits for its archive ends at a signal, whatever it waits for, and leaves
// nothing.
func TestAnImportThatWaitsHearsSignals(t *testing.T) {
	h := newHost(t, installedSnap(t), t.TempDir())
	fifo := h.dir + "/in/fifo"
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	tar := archivetest.EveryKind()
	n := 0
	for _, name := range []string{"-", fifo} {
		for what, data := range map[string][]byte{
			"nothing": nil, "two bytes": tar[:2], "half": tar[:len(tar)/2], "all but the end": tar[:len(tar)-700],
			"half of a gzip": archive.Gzip.Deflate(nil, tar)[:300], "half of a zstd": archive.Zstd.Deflate(nil, tar)[:200], "all of a gzip": archive.Gzip.Deflate(nil, tar),
		} {
			for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT} {
				if n++; data != nil && n%3 != 0 { // each kind of input with one or two of them
					continue
				}
				h.named(fmt.Sprint(filepath.Base(name), " with ", what, ", ", sig), func(h *host) {
					p, said := h.waiting(name, data)
					for _, sig := range []syscall.Signal{sig, syscall.SIGCONT} {
						if err := p.Process.Signal(sig); err != nil {
							h.Fatal(err)
						}
					}
					_ = p.Wait() // the exit code is looked at
					if got := p.ProcessState.ExitCode(); got != 128+int(sig) || !strings.Contains(said.String(), "interrupted") {
						h.Errorf("exit code %d: %s", got, said)
					}
					if len(h.snapshots("files")) > 0 {
						h.Errorf("there is a snapshot")
					}
					h.untouched()
				})
			}
		}
	}
}

// An import that was killed leaves a tree beside the volume. A recovery deletes it, and so
// does the next import or capture, be it refused or not.
func TestAKilledImportIsClearedAway(t *testing.T) {
	h := newHost(t, installedSnap(t), t.TempDir())
	tar := archivetest.EveryKind()
	for _, clearing := range []struct {
		exit int
		args []string
	}{
		{0, []string{"recover"}}, {3, []string{"import", "files", "--volume", "files", h.dir + "/snap.yaml"}}, {0, []string{"capture", "files"}},
	} {
		p, _ := h.waiting("-", tar[:len(tar)-700])
		_ = p.Process.Kill()
		_ = p.Wait()
		if o := h.run("status"); o.exit != 0 || !strings.Contains(o.stdout, "was interrupted") {
			t.Errorf("exit code %d: %s", o.exit, o.stdout)
		}
		if o := h.run(clearing.args...); o.exit != clearing.exit {
			t.Errorf("%q: exit code %d: %s", clearing.args, o.exit, o.stderr)
		}
		h.untouched()
	}
	h.put("in/honest.tar", tar)
	if o := h.run("import", "files", "--volume", "files", h.dir+"/in/honest.tar"); o.exit != 0 {
		t.Errorf("exit code %d: %s", o.exit, o.stderr)
	}
	h.untouched()
}

// snap reads what it writes, on the filesystem where the data was: XFS keeps attributes
// that ext4 has no room for, and a sparse file may be larger than the disk.
func TestAnExportIsImportedWhereTheVolumeLies(t *testing.T) {
	disktest.Need(t, "mkfs.xfs")
	h := newHost(t, installedSnap(t), t.TempDir()) // its store is not on XFS
	point := disktest.Mount(t, "xfs", 320)
	live := point + "/live"
	disktest.Write(t, live, map[string]string{"attributes": "x"})
	value := bytes.Repeat([]byte("v"), 60_000)
	for i := range 20 {
		if err := unix.Setxattr(live+"/attributes", fmt.Sprintf("user.a%d", i), value, 0); err != nil {
			t.Fatal(err)
		}
	}
	disktest.Sparse(t, live+"/sparse", 1<<40, 4096, 1<<39)
	h.put("snap.yaml", fmt.Appendf(nil, "version: 1\nstate: %[1]s/state\nstore: %[1]s/store\nabsolute_roots: [%[2]s]\nworkloads:\n  files: {volumes: [{name: files, scope: absolute, source: %[2]s/live}]}\n", h.dir, point))
	run := func(args ...string) string {
		t.Helper()
		o := h.run(args...)
		if o.exit != 0 {
			t.Fatalf("snap %q: exit code %d: %s", args, o.exit, o.stderr)
		}
		return strings.TrimSpace(o.stdout)
	}
	for _, name := range []string{"export.tar.gz", "export.tar.zst"} {
		file := h.dir + "/store/" + name
		run("export", "files", run("capture", "files"), "-o", file)
		sid := run("import", "files", "--volume", "files", file)
		run("restore", "files", sid, "--confirm", sid)
		for i := range 20 {
			got := make([]byte, 1<<16)
			n, err := unix.Getxattr(live+"/attributes", fmt.Sprintf("user.a%d", i), got)
			if err != nil || !bytes.Equal(got[:n], value) {
				t.Errorf("attribute %d has %d bytes: %v", i, n, err)
			}
		}
		var st unix.Stat_t
		if err := unix.Stat(live+"/sparse", &st); err != nil || st.Size != 1<<40 || st.Blocks*512 > 1<<20 {
			t.Errorf("the sparse file has %d bytes in %d blocks: %v", st.Size, st.Blocks, err)
		}
	}
	if left, _ := filepath.Glob(point + "/.snap-*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// The same attributes on ext4 are refused for what they are, and not as a full disk.
func TestAttributesForWhichThereIsNoRoomAreRefused(t *testing.T) {
	h := newHost(t, installedSnap(t), filepath.Join(disktest.Mount(t, "ext4", 64), "host"))
	f := &archivetest.Forge{}
	f.Root()
	f.Pax(archivetest.Record("SCHILY.xattr.user.big", strings.Repeat("v", 60_000)))
	f.File("a", "1")
	f.End()
	h.put("in/x.tar", f.Bytes())
	o := h.run("import", "files", "--volume", "files", h.dir+"/in/x.tar", "--json")
	if o.exit != 3 || o.code() != "archive_refused" || !strings.Contains(o.stdout, "no room") || !strings.Contains(o.stdout, "byte 512") {
		t.Errorf("exit code %d: %s", o.exit, o.stdout)
	}
	h.untouched()
}

// An import stages beside the app's data. It leaves a tenth of what is free.
func TestAnImportDoesNotFillTheDiskOfTheApp(t *testing.T) {
	h := newHost(t, installedSnap(t), filepath.Join(disktest.Mount(t, "ext4", 64), "host"))
	many, large := &archivetest.Forge{}, &archivetest.Forge{}
	for i := range 20_000 { // a block each, 80 MB in all
		many.File(fmt.Sprintf("d%d/%d", i%10, i), "1")
	}
	many.End()
	large.File("a", strings.Repeat("\x00\x01", 30<<20))
	large.End()
	for name, tar := range map[string][]byte{"many": many.Bytes(), "large": large.Bytes()} {
		h.put("in/x.tar.gz", pack(tar))
		o := h.run("import", "files", "--volume", "files", h.dir+"/in/x.tar.gz", "--json")
		if o.exit != 3 || o.code() != "archive_refused" || !strings.Contains(o.stdout, "may be used") && !strings.Contains(o.stdout, "entries") {
			t.Errorf("%s: exit code %d: %s", name, o.exit, o.stdout)
		}
		h.untouched()
	}
}
