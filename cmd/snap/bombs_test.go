package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive/archivetest"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// large is a snapshot whose archive begins with head and goes on with the same
// member of 16 MiB, n times: a few KiB of store.
func large(h *host, head, member []byte, n int, fields map[string]any) *forged {
	h.Helper()
	return h.forge(head, set(fields), func(f *forged) {
		f.add(h, member, pack(member))
		many(n - 1)(f)
	})
}

func headOf(size int) []byte {
	f := &archivetest.Forge{}
	f.Root()
	f.Block(archivetest.Header{Name: "a", Type: '0', Size: archivetest.Octal(size)})
	return f.Bytes()
}

// A forgery of a few KiB does not make snap use gigabytes of memory, whatever the
// number of cores.
func TestAFewForgedKilobytesTakeNoGigabytesOfMemory(t *testing.T) {
	disktest.NeedRoot(t)
	h := newHost(t, installedSnap(t), t.TempDir())
	const member = 16 << 20
	h.named("members of the largest size on 64 cores", func(h *host) {
		h.env = []string{"GOMAXPROCS=64"}
		defer func() { h.env = nil }()
		f := large(h, headOf(36*member), make([]byte, member), 36, map[string]any{"files": 1, "bytes": 36 * member})
		o := h.restore(f, "--json") // the end is missing
		if o.exit != 3 || o.code() != "snapshot_damaged" {
			h.Errorf("exit code %d, %s", o.exit, o.stdout)
		}
		h.modest(o, 400)
		h.untouched()
	})
	h.named("the same in zstd", func(h *host) {
		h.env = []string{"GOMAXPROCS=64"}
		defer func() { h.env = nil }()
		zstd := archivetest.PackZstd(make([]byte, member))
		f := h.forge(nil, set(map[string]any{"files": 1, "bytes": 36 * member}), zstdInName, func(f *forged) {
			f.ext = ".zst"
			f.add(h, headOf(36*member), archivetest.PackZstd(headOf(36*member)))
			f.add(h, make([]byte, member), zstd)
			many(35)(f)
		})
		o := h.restore(f, "--json")
		if o.exit != 3 || o.code() != "snapshot_damaged" {
			h.Errorf("exit code %d, %s", o.exit, o.stdout)
		}
		h.modest(o, 400)
		h.untouched()
	})
	h.named("the same symlinks a hundred times", func(h *host) {
		links := &archivetest.Forge{}
		for i := range member / 512 {
			links.Soft(fmt.Sprint(i), h.outside())
		}
		f := large(h, headOf(0), links.Bytes(), 100, map[string]any{"files": 1, "symlinks": 100 * member / 512})
		o := h.restore(f, "--json")
		if o.exit != 3 || !strings.Contains(o.stdout, "file exists") {
			h.Errorf("exit code %d, %s", o.exit, o.stdout)
		}
		h.modest(o, 300)
		h.untouched()
	})
	h.named("a foreign file of 2^40 zeros", func(h *host) {
		f := &archivetest.Forge{}
		f.Root()
		f.Block(archivetest.Header{Name: "a", Type: '0', Magic: "ustar  \x00", Size: "\x80\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00"})
		h.put("in/bomb.tar.gz", append(pack(f.Bytes()), zeros(64)...))
		o := h.run("import", "files", "--volume", "files", h.dir+"/in/bomb.tar.gz", "--json")
		if o.exit != 3 || o.code() != "archive_refused" {
			h.Errorf("exit code %d, %s", o.exit, o.stdout)
		}
		h.modest(o, 96)
		h.untouched()
	})
	for name, entry := range map[string]func(f *archivetest.Forge, i int){
		"directories with attributes": func(f *archivetest.Forge, i int) {
			f.Pax(archivetest.Record("SCHILY.xattr.user.a", strings.Repeat("v", 60_000)))
			f.Dir(fmt.Sprint(i))
		},
		"files with attributes": func(f *archivetest.Forge, i int) {
			var records []string
			for j := range 60 {
				records = append(records, archivetest.Record(fmt.Sprint("SCHILY.xattr.user.", j), strings.Repeat("v", 60_000)))
			}
			f.Pax(records...)
			f.File(fmt.Sprint(i), "")
		},
		"records for all": func(f *archivetest.Forge, i int) {
			var records []string
			for j := range 3000 {
				records = append(records, archivetest.Record(fmt.Sprint("VENDOR.", j), ""))
			}
			f.Global(records...)
			f.Dir(fmt.Sprint(i))
		},
		"records of libarchive": func(f *archivetest.Forge, i int) {
			var records []string
			for j := range 100_000 {
				records = append(records, archivetest.Record(fmt.Sprint("LIBARCHIVE.xattr.", j), "x"))
			}
			f.Pax(records...)
			f.Dir(fmt.Sprint(i))
		},
	} {
		h.named("a foreign archive of many "+name, func(h *host) {
			f, sizes := &archivetest.Forge{}, 0
			file := &bytes.Buffer{}
			for i := 0; sizes < 600<<20; i++ { // more than may be kept
				entry(f, i)
				if f.Len() > 8<<20 {
					sizes += f.Len()
					file.Write(pack(f.Bytes()))
					f.Reset()
				}
				if name != "directories with attributes" && sizes > 30<<20 {
					break
				}
			}
			f.End()
			file.Write(pack(f.Bytes()))
			h.put("store/bomb.tar.gz", file.Bytes())
			o := h.run("import", "files", "--volume", "files", h.dir+"/store/bomb.tar.gz", "--json")
			bounded := name != "directories with attributes" || strings.Contains(o.stdout, "names, targets and attributes")
			if o.exit != 0 && (o.exit != 3 || o.code() != "archive_refused") || !bounded {
				h.Errorf("exit code %d, %s", o.exit, o.stdout)
			}
			h.modest(o, 1100)
			h.untouched()
		})
	}
	h.named("a foreign frame with the largest window", func(h *host) {
		block := archivetest.ZstdBlock(archivetest.ZstdRepeated, 128<<10, false, []byte{'x'})
		h.put("in/bomb.tar.zst", archivetest.ZstdFrame(0, []byte{17 << 3}, bytes.Repeat(block, 4096))) // 128 MiB
		o := h.run("import", "files", "--volume", "files", h.dir+"/in/bomb.tar.zst", "--json")
		if o.exit != 3 || o.code() != "archive_refused" {
			h.Errorf("exit code %d, %s", o.exit, o.stdout)
		}
		h.modest(o, 250)
		h.untouched()
	})
}

// Each frame of a foreign archive may have a larger window than the one before. The
// decoder then allocates another window while the last is still in use: two windows
// of up to 128 MiB. Earlier windows are garbage. At most one of them may remain at
// that moment; without a limit the collector would leave more.
func TestFramesWithRisingWindowsDoNotPileThemUp(t *testing.T) {
	disktest.NeedRoot(t)
	h := newHost(t, installedSnap(t), t.TempDir())
	f := &archivetest.Forge{}
	f.Root()
	file := archivetest.ZstdFrame(0, []byte{13 << 3}, archivetest.ZstdBlock(archivetest.ZstdRaw, len(f.Bytes()), true, f.Bytes()))
	block := func(last bool) []byte {
		return archivetest.ZstdBlock(archivetest.ZstdRepeated, 128<<10, last, []byte{0})
	}
	for _, window := range []byte{16 << 3, 16<<3 | 2, 16<<3 | 4, 16<<3 | 5, 16<<3 | 6, 16<<3 | 7, 17 << 3} { // 64 MiB, and up to 128
		// 2400 blocks of zeros are more than any window.
		file = append(file, archivetest.ZstdFrame(0, []byte{window}, bytes.Repeat(block(false), 2399), block(true))...)
	}
	h.put("in/bomb.tar.zst", file)
	o := h.run("import", "files", "--volume", "files", h.dir+"/in/bomb.tar.zst")
	if o.exit != 0 { // zeros are what may follow an archive
		h.Errorf("exit code %d: %s", o.exit, o.stderr)
	}
	h.modest(o, 425)
	h.untouched()
}

// A manifest may claim that a terabyte is all holes. snap limits the data by the
// archive's length before it writes a byte beside the app's data.
func TestAForgedSnapshotDoesNotFillTheDiskOfTheApp(t *testing.T) {
	h := newHost(t, installedSnap(t), filepath.Join(disktest.Mount(t, "ext4", 64), "host"))
	const member = 16 << 20
	f := large(h, headOf(20*member), make([]byte, member), 20, map[string]any{"files": 1, "bytes": 1 << 40, "data_bytes": 0})
	o := h.restore(f, "--json")
	if o.exit != 3 || o.code() != "no_space" {
		h.Errorf("exit code %d, %s", o.exit, o.stdout)
	}
	h.untouched()
}

// What an archive may hold and be none the less dangerous.
func TestWhatIsTakenIsTakenAsWhatItIs(t *testing.T) {
	disktest.NeedRoot(t)
	snap := installedSnap(t)
	taken := func(t *testing.T, h *host, f *archivetest.Forge, fields map[string]any) {
		t.Helper()
		f.End()
		fields["depth"] = 1
		o := h.restore(h.forge(f.Bytes(), set(fields)))
		if o.exit != 0 {
			t.Fatalf("exit code %d: %s", o.exit, o.stderr)
		}
		h.outsideUntouched()
	}
	t.Run("setuid and capabilities and trusted attributes", func(t *testing.T) {
		h, f := newHost(t, snap, t.TempDir()), &archivetest.Forge{}
		f.Root()
		f.Pax(archivetest.Record("SCHILY.xattr.security.capability", "\x01\x00\x00\x02\x00\x04"+strings.Repeat("\x00", 14)), archivetest.Record("SCHILY.xattr.trusted.x", "y"))
		f.Block(archivetest.Header{Name: "sh", Type: '0', Mode: "0006777\x00"})
		taken(t, h, f, map[string]any{"files": 1, "bytes": 0})
		info, err := os.Stat(h.liveDir() + "/sh")
		if err != nil || info.Mode() != 0o777 {
			t.Errorf("the file has mode %v: %v", info.Mode(), err)
		}
		if n, err := unix.Llistxattr(h.liveDir()+"/sh", make([]byte, 1000)); n != 0 || err != nil {
			t.Errorf("the file has %d bytes of attributes: %v", n, err)
		}
	})
	names := []string{
		"\u00e9", "e\u0301", "\u212b", "\u00c5", "A\u030a", "stra\u00dfe", "strasse", "STRASSE", "a", "A", "\u0131", "i", "I", "\u0130", "a\u200b", "\ufb01", "fi",
		"\x1b[2J\x07", "\xc2\x9b1m", "\x9b1m", "\xff\xfe", "\r", "line\nbreak", "\u202egpj.exe", "\ufffd", "con", "a.", "a ", "-rf", "~", "$(reboot)",
	}
	t.Run("names that look the same or that a terminal obeys", func(t *testing.T) {
		h, f := newHost(t, snap, t.TempDir()), &archivetest.Forge{}
		f.Root()
		for i, name := range names {
			f.File(name, fmt.Sprintf("%02d", i))
		}
		taken(t, h, f, map[string]any{"files": len(names), "bytes": 2 * len(names), "data_bytes": 2 * len(names)})
		for i, name := range names {
			if data, err := os.ReadFile(filepath.Join(h.liveDir(), name)); string(data) != fmt.Sprintf("%02d", i) {
				t.Errorf("%q holds %q: %v", name, data, err)
			}
		}
		for _, args := range [][]string{{"capture", "files"}, {"capture", "files", "--json"}, {"list"}, {"status"}} {
			if o := h.run(args...); o.exit != 0 {
				t.Errorf("snap %q: exit code %d: %s", args, o.exit, o.stderr)
			}
		}
	})
	t.Run("each that a terminal obeys in a refusal", func(t *testing.T) {
		h := newHost(t, snap, t.TempDir())
		obeyed := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return unprintable(name, false) < 0 })
		if len(obeyed) < 7 {
			t.Fatalf("only %q", obeyed)
		}
		for i, name := range obeyed {
			f := &archivetest.Forge{}
			f.Root()
			f.File(name, "1")
			f.File(name, "2")
			f.End()
			args := [][]string{nil, {"--json"}}[i%2]
			if o := h.restore(h.forge(f.Bytes()), args...); o.exit != 3 {
				t.Errorf("%q twice: exit code %d: %s", name, o.exit, o.stderr)
			}
		}
		h.untouched()
	})
}
