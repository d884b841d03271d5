package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/archivetest"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// lanes runs attack for each of n cases, on a few hosts at a time.
func lanes(t *testing.T, n int, attack func(h *host, i int)) {
	t.Helper()
	disktest.NeedRoot(t)
	snap := installedSnap(t)
	t.Run("lanes", func(t *testing.T) {
		const count = 4
		for lane := range count {
			t.Run(fmt.Sprint(lane), func(t *testing.T) {
				t.Parallel()
				h := newHost(t, snap, t.TempDir())
				for i := lane; i < n; i += count {
					attack(h, i)
				}
			})
		}
	})
}

// named runs a part of the test with its own verdict.
func (h *host) named(name string, part func(h *host)) {
	h.Helper()
	whole := h.T
	defer func() { h.T = whole }()
	whole.Run(name, func(t *testing.T) {
		h.T = t
		part(h)
	})
}

// Each forged archive is a snapshot with correct checksums. The restore refuses it
// while the app runs, and changes nothing.
func TestARestoreRefusesEachForgedArchive(t *testing.T) {
	attacks := archivetest.Attacks()
	lanes(t, len(attacks), func(h *host, i int) {
		a := attacks[i]
		h.named(a.Name, func(h *host) {
			limits := a.Limits()
			tar, want := a.Tar(h.outside()), a.Want
			if len(tar) == 0 {
				want = "0 members" // the manifest is refused before
			}
			f := h.forge(tar, func(f *forged) {
				f.volume["files"] = max(min(limits.MaxEntries, int64(len(tar)/512))-1, 0)
				f.volume["bytes"], f.volume["depth"] = limits.MaxBytes, min(limits.MaxDepth, 1000)
				if limits.RejectSymlinks {
					f.workload, f.doc["workload"] = "strict", "strict"
				}
				if limits.Special == archive.KeepSpecial {
					f.workload, f.doc["workload"] = "special", "special"
				}
			})
			var o outcome
			if i%2 == 0 {
				o = h.restore(f, "--json")
				if o.code() != "snapshot_damaged" {
					h.Errorf("the code is %q", o.code())
				}
			} else if o = h.restore(f); !strings.Contains(o.stderr, "error: ") || !strings.Contains(o.stderr, "hint: ") {
				h.Errorf("it says %q", o.stderr)
			}
			if text := o.stdout + o.stderr; o.exit != 3 || !strings.Contains(text, jsonless(want)) {
				h.Errorf("exit code %d, %q; expected 3 and a refusal that says %q", o.exit, text, want)
			}
			h.modest(o, 96)
			h.untouched()
		})
	})
}

// jsonless is the part of a text that stands in JSON as it stands here.
func jsonless(s string) string {
	s, _, _ = strings.Cut(s, `"`)
	return s
}

// other are archives in dialects that only an import knows.
var other = []struct {
	name string
	make func(f *archivetest.Forge)
}{
	{"a long name of GNU that leads out", func(f *archivetest.Forge) { gnuLong(f, 'L', "../../x\x00"); f.File("a", "evil") }},
	{"a long name of GNU that is absolute", func(f *archivetest.Forge) { gnuLong(f, 'L', f.Outside+"/x\x00"); f.File("a", "evil") }},
	{"a long name of GNU of 2 MiB", func(f *archivetest.Forge) { gnuLong(f, 'L', strings.Repeat("n", 2<<20)); f.File("a", "evil") }},
	{"a long name of GNU and nothing behind it", func(f *archivetest.Forge) { gnuLong(f, 'L', "a\x00") }},
	{"a long link of GNU to the outside", func(f *archivetest.Forge) { gnuLong(f, 'K', f.Outside+"/passwd\x00"); f.Link("h", "x") }},
	{"a long symlink of GNU, then a file through it", func(f *archivetest.Forge) {
		gnuLong(f, 'K', f.Outside+strings.Repeat("/.", 200)+"\x00")
		f.Soft("s", "x")
		f.File("s/evil", "evil")
	}},
	{"a negative size in base 256", func(f *archivetest.Forge) {
		f.Block(archivetest.Header{Name: "a", Type: '0', Size: strings.Repeat("\xff", 12)})
	}},
	{"a size of 2^62 in base 256", func(f *archivetest.Forge) {
		f.Block(archivetest.Header{Name: "a", Type: '0', Size: "\x80\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00"})
	}},
	{"a size of 2^90 in base 256", func(f *archivetest.Forge) {
		f.Block(archivetest.Header{Name: "a", Type: '0', Size: "\x80\x04" + strings.Repeat("\x00", 10)})
	}},
	{"a global path", func(f *archivetest.Forge) { global(f, archivetest.Record("path", "../x")); f.File("a", "evil") }},
	{"a global link", func(f *archivetest.Forge) {
		global(f, archivetest.Record("linkpath", f.Outside+"/passwd"))
		f.Link("h", "a")
	}},
	{"a global size", func(f *archivetest.Forge) { global(f, archivetest.Record("size", "0")); f.File("a", "evil") }},
	{"a global comment beside a path", func(f *archivetest.Forge) {
		global(f, archivetest.Record("comment", "x"), archivetest.Record("path", "../x"))
		f.File("a", "evil")
	}},
	{"an old sparse file of GNU whose map never ends", func(f *archivetest.Forge) {
		b := archivetest.Header{Name: "a", Type: 'S', Magic: "ustar  \x00", Size: archivetest.Octal(512)}
		f.Block(b)
		f.Content(kib)
	}},
	{"a sparse map of pax 0.1 that overlaps", func(f *archivetest.Forge) {
		f.Pax(archivetest.Record("GNU.sparse.major", "0"), archivetest.Record("GNU.sparse.minor", "1"), archivetest.Record("GNU.sparse.size", "4096"),
			archivetest.Record("GNU.sparse.numblocks", "2"), archivetest.Record("GNU.sparse.map", "0,1024,512,512"))
		f.File("a", kib+kib[:512])
	}},
	{"a sparse file of 2^62 bytes", func(f *archivetest.Forge) { f.Sparse("a", "4611686018427387904", "1\n4611686018427387904\n0\n", "") }},
	{"a prefix that leads out", func(f *archivetest.Forge) {
		f.Block(archivetest.Header{Name: "x", Type: '0', Prefix: "../.."})
	}},
	{"a thousand names of a million letters", func(f *archivetest.Forge) {
		f.Pax(archivetest.Record("path", strings.Repeat("d/", 400_000)+"x"))
		f.File("a", "evil")
	}},
}

var kib = strings.Repeat("x", 1024)

func gnuLong(f *archivetest.Forge, typ byte, name string) {
	f.Block(archivetest.Header{Name: "././@LongLink", Type: typ, Magic: "ustar  \x00", Size: archivetest.Octal(len(name))})
	f.Content(name)
}

func global(f *archivetest.Forge, records ...string) {
	data := strings.Join(records, "")
	f.Block(archivetest.Header{Name: "g", Type: 'g', Size: archivetest.Octal(len(data))})
	f.Content(data)
}

// taken are the attacks that are none to an import: other tars write their
// archives so, and what they mean is inside the volume.
var taken = []string{
	// Its limits are those of the disk, and the config allows symlinks.
	"one byte too many", "one entry too many", "one directory too deep", "holes count as bytes", "symlinks count", "hardlinks count",
	"a symlink under symlinks: reject",
	// Directories may be left out, and the root; names may begin with ./; a slash makes a directory.
	"the root not first", "a leading ./", "an entry whose directory is missing", "a directory without its slash",
	"a file with a slash", "a directory called /",
	// Directories may come twice; a hardlink to a symlink is another such symlink.
	"the same directory twice", "the root twice", "a hardlink to a symlink",
	// Labels, contiguous files, what was in a directory, headers for all and those of Solaris.
	"type V", "type 7", "type D", "type g", "type X",
	// Old and GNU headers; numbers in base 256; what pads is not looked at.
	"the magic of GNU tar", "the magic of no tar", "another version of ustar", "type \x00", "an owner in base 256", "a time in base 256",
	"a blank size", "a mode with a file's type in it", "padding that is not zero", "a file with a link", "a directory with a link",
	"a byte after the end",
	// Long names and records that no entry follows have no effect.
	"type K", "type L", "a long name of GNU and nothing behind it", "records and then the end", "no records",
	// Pax records: of two the last counts, a size before the header's, and what snap does not know is passed over.
	"a charset record", "a device record", "a map with leading zeros", "a size of zero on a directory that has one",
	"a size record that agrees", "a size record that shows content as an entry", "a symlink with attributes", "a time finer than nanoseconds",
	"an attribute of a security module", "an attribute of the system", "an attribute without a name", "an attribute written in two ways",
	"an empty path record", "an empty size", "an owner's name", "an unknown record", "records after records",
	"something after the map in its block", "the same record twice",
}

// The same archives come as files to import. Each is refused, or it becomes a
// snapshot that a restore puts back, and nothing outside is different.
func TestAnImportRefusesEachForgedArchiveOrMakesItHarmless(t *testing.T) {
	type file struct {
		name string
		tar  func(outside string) []byte
	}
	var list []file
	for _, a := range archivetest.Attacks() {
		list = append(list, file{a.Name, a.Tar})
	}
	for _, a := range other {
		list = append(list, file{a.name, func(outside string) []byte {
			f := &archivetest.Forge{Outside: outside}
			f.Root()
			a.make(f)
			f.End()
			return f.Bytes()
		}})
	}
	takes := slices.Clone(taken)
	for _, d := range archivetest.Dialects() {
		name := "dialect: " + d.Name
		list = append(list, file{name, func(string) []byte { return d.Tar }})
		takes = append(takes, name)
	}
	lanes(t, len(list), func(h *host, i int) {
		h.named(list[i].name, func(h *host) {
			before := len(h.snapshots("files"))
			h.put("in/forged.tar.gz", pack(list[i].tar(h.outside())))
			o := h.run("import", "files", "--volume", "files", h.dir+"/in/forged.tar.gz", "--json")
			h.modest(o, 96)
			h.untouched()
			switch {
			case o.exit == 0:
				if !slices.Contains(takes, list[i].name) {
					h.Errorf("it was taken")
				}
				var result struct{ SID string }
				if err := json.Unmarshal([]byte(o.stdout), &result); err != nil {
					h.Fatal(err)
				}
				h.harmless(result.SID)
			case o.exit != 3 || o.code() != "archive_refused" || slices.Contains(takes, list[i].name):
				h.Errorf("exit code %d, %s", o.exit, o.stdout)
			case len(h.snapshots("files")) != before:
				h.Errorf("a snapshot was made of it")
			}
		})
	})
}

// harmless restores the snapshot sid and checks that only the live directory has
// changed.
func (h *host) harmless(sid string) {
	h.Helper()
	f := &forged{workload: "files", sid: sid}
	o := h.restore(f, "--json")
	if o.exit != 0 {
		h.Errorf("what was imported cannot be restored: exit code %d, %s", o.exit, o.stdout)
		return
	}
	h.outsideUntouched()
	h.remember() // it is what is live now
}
