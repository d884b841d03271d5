package archive_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/archivetest"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// foreignTar is the archive of another program: entries that archive/tar writes, and
// bytes that the test appends.
type foreignTar struct {
	t   *testing.T
	buf bytes.Buffer
	*tar.Writer
}

func (f *foreignTar) put(typ byte, name, link, content string) {
	f.t.Helper()
	h := &tar.Header{Typeflag: typ, Name: name, Linkname: link, Size: int64(len(content)), Mode: 0o644, ModTime: time.Unix(1e9, 0), Devmajor: 1, Devminor: 3}
	if typ != tar.TypeChar && typ != tar.TypeBlock {
		h.Devmajor, h.Devminor = 0, 0
	}
	f.header(h, content)
}

func (f *foreignTar) header(h *tar.Header, content string) {
	f.t.Helper()
	if err := f.WriteHeader(h); err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.Write([]byte(content)); err != nil {
		f.t.Fatal(err)
	}
}

func packed(data []byte) []byte {
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	_, _ = zw.Write(data)
	_ = zw.Close()
	return out.Bytes()
}

func importing(t *testing.T, gz []byte, stage string) (*archive.Foreign, error) {
	t.Helper()
	opt := archivetest.Limits()
	opt.Default = archive.Entry{Mode: 0o755}
	return archive.ExtractForeign(context.Background(), bytes.NewReader(gz), open(t, stage), opt)
}

func TestAForeignArchiveIsHeldToTheSameRules(t *testing.T) {
	for name, make := range map[string]func(f *foreignTar, outside string){
		"an absolute name":             func(f *foreignTar, out string) { f.put('0', out+"/evil", "", "x") },
		".. in front":                  func(f *foreignTar, _ string) { f.put('0', "../x", "", "x") },
		".. after ./":                  func(f *foreignTar, _ string) { f.put('0', "./../x", "", "x") },
		".. in the middle":             func(f *foreignTar, _ string) { f.put('0', "a/../../x", "", "x") },
		"an empty component":           func(f *foreignTar, _ string) { f.put('0', "a//x", "", "x") },
		"./ and an absolute name":      func(f *foreignTar, _ string) { f.put('0', ".//x", "", "x") },
		"a name of blanks and dots":    func(f *foreignTar, _ string) { f.put('0', "a/.", "", "x") },
		"the same file twice":          func(f *foreignTar, _ string) { f.put('0', "a", "", "1"); f.put('0', "a", "", "2") },
		"the same file as ./a":         func(f *foreignTar, _ string) { f.put('0', "a", "", "1"); f.put('0', "./a", "", "2") },
		"a file as the root":           func(f *foreignTar, _ string) { f.put('2', ".", "x", "") },
		"a file where a directory is":  func(f *foreignTar, _ string) { f.put('0', "a/b", "", "1"); f.put('0', "a", "", "2") },
		"a directory where a file is":  func(f *foreignTar, _ string) { f.put('0', "a", "", "1"); f.put('0', "a/b", "", "2") },
		"a file below a symlink":       func(f *foreignTar, out string) { f.put('2', "d", out, ""); f.put('0', "d/evil", "", "x") },
		"a symlink below a symlink":    func(f *foreignTar, out string) { f.put('2', "d", out, ""); f.put('2', "d/evil", "x", "") },
		"a directory over a symlink":   func(f *foreignTar, out string) { f.put('2', "d", out, ""); f.put('5', "d/", "", "") },
		"a hardlink outside":           func(f *foreignTar, out string) { f.put('1', "h", out+"/passwd", "") },
		"a hardlink outside by ..":     func(f *foreignTar, _ string) { f.put('1', "h", "../etc/passwd", "") },
		"a hardlink through a symlink": func(f *foreignTar, out string) { f.put('2', "d", out, ""); f.put('1', "h", "d/passwd", "") },
		"a file through a hardlinked symlink": func(f *foreignTar, out string) {
			f.put('2', "s", out, "")
			f.put('1', "h", "s", "")
			f.put('0', "h/evil", "", "x")
		},
		"a hardlink to a symlink twice": func(f *foreignTar, out string) {
			f.put('2', "s", out, "")
			f.put('1', "h", "s", "")
			f.put('1', "h", "s", "")
		},
		"a hardlink to a directory":     func(f *foreignTar, _ string) { f.put('5', "d/", "", ""); f.put('1', "h", "d", "") },
		"a hardlink to what comes next": func(f *foreignTar, _ string) { f.put('1', "h", "a", ""); f.put('0', "a", "", "1") },
		"a character device":            func(f *foreignTar, _ string) { f.put('3', "null", "", "") },
		"a block device":                func(f *foreignTar, _ string) { f.put('4', "disk", "", "") },
		"a fifo":                        func(f *foreignTar, _ string) { f.put('6', "pipe", "", "") },
		"too many bytes":                func(f *foreignTar, _ string) { f.put('0', "a", "", strings.Repeat("x", 1<<20+1)) },
		"too many entries": func(f *foreignTar, _ string) {
			for i := range 101 {
				f.put('0', strings.Repeat("n", i+1), "", "")
			}
		},
		"directories that are only implied count": func(f *foreignTar, _ string) {
			for i := range 60 {
				n := strings.Repeat("n", i+1)
				f.put('0', n+"/"+n, "", "")
			}
		},
		"too deep": func(f *foreignTar, _ string) { f.put('0', strings.Repeat("d/", 30)+"x", "", "") },
		"an owner below 0": func(f *foreignTar, _ string) {
			f.header(&tar.Header{Typeflag: '0', Name: "a", Uid: -1, Format: tar.FormatGNU}, "")
		},
		"an owner too large": func(f *foreignTar, _ string) { f.header(&tar.Header{Typeflag: '0', Name: "a", Uid: 1 << 32}, "") },
		"headers for all": func(f *foreignTar, _ string) {
			f.header(&tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "g", PAXRecords: map[string]string{"path": "../x"}}, "")
			f.put('0', "a", "", "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			stage, outside, untouched := sandbox(t)
			f := &foreignTar{t: t}
			f.Writer = tar.NewWriter(&f.buf)
			make(f, outside)
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := importing(t, packed(f.buf.Bytes()), stage); !errors.Is(err, archive.ErrRefused) {
				t.Errorf("the answer is %v", err)
			}
			untouched()
		})
	}
}

// plain is an honest archive. Its last file ends in zeros, which look like the end of
// an archive.
func plain(t *testing.T) []byte {
	f := &foreignTar{t: t}
	f.Writer = tar.NewWriter(&f.buf)
	f.put('5', "./", "", "")
	f.put('0', "./a", "", "a")
	f.put('0', "./zeros", "", strings.Repeat("\x00", 4096))
	f.put('0', "./z", "", "z")
	f.put('0', "./last", "", strings.Repeat("\x00", 700))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return f.buf.Bytes()
}

func TestATruncatedForeignArchiveIsRefusedWhereverItEnds(t *testing.T) {
	whole := plain(t)
	for at := 0; at < len(whole); at += 256 {
		if _, err := importing(t, packed(whole[:at]), t.TempDir()); !errors.Is(err, archive.ErrRefused) {
			t.Errorf("cut at byte %d of %d: %v", at, len(whole), err)
		}
	}
	gz := packed(whole)
	for at := range gz {
		if _, err := importing(t, gz[:at], t.TempDir()); !errors.Is(err, archive.ErrRefused) {
			t.Errorf("gzip cut at byte %d of %d: %v", at, len(gz), err)
		}
	}
}

func TestOnlyZerosMayFollowAForeignArchive(t *testing.T) {
	whole := plain(t)
	record := append(bytes.Clone(whole), make([]byte, 9216)...) // tar(1) fills up its last record
	for name, c := range map[string]struct {
		gz []byte
		ok bool
	}{
		"nothing":                        {packed(whole), true},
		"the rest of a record":           {packed(record), true},
		"zeros after gzip":               {append(packed(whole), make([]byte, 10240)...), true},
		"zeros and a byte after gzip":    {append(append(packed(whole), make([]byte, 10240)...), 'x'), false},
		"zeros, then gzip again":         {append(append(packed(whole), make([]byte, 512)...), packed(nil)...), false},
		"several gzip members":           {append(packed(whole[:1000]), packed(whole[1000:])...), true},
		"a gzip member of zeros":         {append(packed(whole), packed(make([]byte, 512))...), true},
		"an empty gzip member":           {append(packed(whole), packed(nil)...), true},
		"a byte":                         {packed(append(bytes.Clone(whole), 'x')), false},
		"a byte far after the end":       {packed(append(bytes.Clone(record), 'x')), false},
		"a second archive":               {packed(append(bytes.Clone(whole), whole...)), false},
		"a second archive, gzipped":      {append(packed(whole), packed(whole)...), false},
		"bytes that are no gzip":         {append(packed(whole), "trailing garbage that is no gzip"...), false},
		"a gzip member cut in its head":  {append(packed(whole), packed(whole)[:5]...), false},
		"a wrong checksum of the gzip":   {flipped(packed(whole), -6), false},
		"no gzip at all, a plain tar":    {whole, true},
		"a plain tar, cut":               {whole[:len(whole)-512], false},
		"gzip after a plain tar":         {append(bytes.Clone(whole), packed(make([]byte, 512))...), false},
		"neither":                        {[]byte(strings.Repeat("no archive\n", 1000)), false},
		"a lone byte":                    {[]byte{0x1f}, false},
		"an empty file":                  {nil, false},
		"a gzip of nothing":              {packed(nil), false},
		"only the end of an archive":     {packed(make([]byte, 1024)), false},
		"a record of zeros":              {make([]byte, 10240), false},
		"reserved flags of gzip":         {flagged(packed(whole)), false},
		"reserved flags, second member":  {append(packed(whole), flagged(packed(nil))...), false},
		"a lone zero block in the midst": {packed(bytes.Replace(whole, whole[512:1024], make([]byte, 512), 1)), false},
	} {
		t.Run(name, func(t *testing.T) {
			stage, _, untouched := sandbox(t)
			_, err := importing(t, c.gz, stage)
			if c.ok && err != nil || !c.ok && !errors.Is(err, archive.ErrRefused) {
				t.Errorf("the answer is %v", err)
			}
			untouched()
		})
	}
}

// flagged sets the flag of a gzip header that RFC 1952 reserves.
func flagged(gz []byte) []byte {
	gz = bytes.Clone(gz)
	gz[3] |= 0x20
	return gz
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[len(b)+at] ^= 1
	return b
}

func TestTheDialectsOfOtherTarsAreUnderstood(t *testing.T) {
	long := strings.Repeat("long/", 40) + strings.Repeat("n", 120)
	for _, format := range []string{"gnu", "oldgnu", "posix", "ustar", "v7"} {
		t.Run(format, func(t *testing.T) {
			dir := t.TempDir()
			live, out := mkdir(t, dir+"/live"), mkdir(t, dir+"/out")
			files := map[string]string{"a": "a", "d/e/f": "f", "void/": ""}
			if format != "v7" && format != "ustar" {
				files[long] = "long"
			}
			disktest.Write(t, live, files)
			if err := os.Symlink(strings.Repeat("t", 90), live+"/soft"); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "x.tar.gz")
			disktest.Run(t, "tar", "czf", file, "--format="+format, "-C", live, ".")
			gz, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			opt := archivetest.Limits()
			opt.MaxDepth = 100
			foreign, err := archive.ExtractForeign(context.Background(), bytes.NewReader(gz), open(t, out), opt)
			if err != nil {
				t.Fatal(err)
			}
			disktest.Same(t, "imported", coarse(disktest.Tree(t, live)), coarse(disktest.Tree(t, out)))
			if _, now := capture(t, out, archive.WriteOptions{}); foreign.Stats != now.Stats {
				t.Errorf("the import counted %+v, there is %+v", foreign.Stats, now.Stats)
			}
		})
	}
}

func TestMetadataThatAVolumeDoesNotKeepIsDroppedAndCounted(t *testing.T) {
	f := &foreignTar{t: t}
	f.Writer = tar.NewWriter(&f.buf)
	f.header(&tar.Header{Typeflag: '0', Name: "a", Mode: 0o4755, PAXRecords: map[string]string{
		"SCHILY.xattr.security.selinux": "label", "SCHILY.xattr.user.kept": "v", "SCHILY.acl.access": "user::rwx",
		"SCHILY.fflags": "nodump", "RHT.security.selinux": "label", "creator": "me", "atime": "1",
	}}, "")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	foreign, err := importing(t, packed(f.buf.Bytes()), dir)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{"extended attribute security.selinux": 2, "ACL in text form, which is malformed": 1, "inode flags (SCHILY.fflags)": 1, "pax record creator": 1}
	if !maps.Equal(foreign.Dropped, want) {
		t.Errorf("dropped: %v, expected %v", foreign.Dropped, want)
	}
	tree := strings.Join(disktest.Tree(t, dir), "\n")
	if !strings.Contains(tree, "user.kept=") || strings.Contains(tree, "mode=104") {
		t.Errorf("the tree is\n%s", tree)
	}
}
