package store_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/store"
)

func reseal(data []byte) []byte {
	const prefix = `"checksum": "sha256:`
	data = bytes.Clone(data)
	at := bytes.Index(data, []byte(prefix)) + len(prefix)
	copy(data[at:], strings.Repeat("0", 64))
	sum := sha256.Sum256(data)
	hex.Encode(data[at:], sum[:])
	return data
}

func golden(t testing.TB, name string, data []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, want) {
		t.Errorf("%s is written as\n%s\nexpected\n%s", name, data, want)
	}
	return want
}

func sealedManifest(t testing.TB) []byte {
	t.Helper()
	m := manifest("blog", sid, archive.Member{ID: strings.Repeat("0123456789abcdef", 4), Tar: 8192, Stored: 300})
	data, err := disk.MarshalSealed(m, "snap-manifest", 1)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What version 1 wrote, every later version must read: the golden files never
// change, and a new version adds its own beside them.
func TestAManifestOfVersion1IsWrittenAndReadAsEver(t *testing.T) {
	want := golden(t, "manifest.v1.json", sealedManifest(t))
	path := t.TempDir()
	disktest.Write(t, path, map[string]string{"snapshots/blog/" + sid + "/manifest.json": string(want)})
	m, err := storeAt(t, path).Load("blog", sid)
	if err != nil {
		t.Fatal(err)
	}
	files, size, stored := m.Totals()
	if m.Note != "a note\x1b[2J" || m.Volume("content", "stage", "content") == nil || m.Images[0].Digest != "ghost@sha256:bb" || files != 2 || size != 1000 || stored != 300 {
		t.Errorf("it is read as %+v", m)
	}
	for _, other := range [][3]string{{"content", "stage", "x"}, {"content", "project", "content"}, {"x", "stage", "content"}, {"", "", ""}} {
		if m.Volume(other[0], other[1], other[2]) != nil {
			t.Errorf("%v was found", other)
		}
	}
}

var goldenOrigin = store.Origin{Machine: "0123456789abcdef0123456789abcdef", Boot: "01234567-89ab-cdef-0123-456789abcdef"}

// readsBack compares what is read from the index with what was written.
func readsBack(t *testing.T, d *disk.Dir, lines []*archive.Line) {
	t.Helper()
	r, err := store.ReadPlaces(d, "index.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if !r.Of(goldenOrigin) {
		t.Error("it is of another origin")
	}
	v, err := r.Volume()
	if err != nil || v.Name != "content\twith a tab" || v.FSID != "ext4-0123" || v.Since != (archive.Timespec{Sec: 1700000000, Nsec: 5}) {
		t.Errorf("the volume is read as %+v: %v", v, err)
	}
	for _, want := range lines {
		if got, err := r.Next(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("read %+v, written %+v: %v", got, want, err)
		}
	}
	if l, err := r.Next(); err != io.EOF {
		t.Errorf("after the volume's last line: %+v, %v", l, err)
	}
	if v, err := r.Volume(); err != nil || v.Name != "second" {
		t.Errorf("the second volume: %+v, %v", v, err)
	}
	if v, err := r.Volume(); err != io.EOF {
		t.Errorf("after the last volume: %+v, %v", v, err)
	}
}

func zstdManifest(t testing.TB) []byte {
	t.Helper()
	m := manifest("blog", sid, archive.Member{ID: strings.Repeat("0123456789abcdef", 4), Tar: 8192, Stored: 300})
	two(m)
	m.Volumes[1].Compression = archive.Zstd
	data, err := disk.MarshalSealed(m, "snap-manifest", 2)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func loaded(t *testing.T, data []byte) (*store.Manifest, error) {
	t.Helper()
	path := t.TempDir()
	disktest.Write(t, path, map[string]string{"snapshots/blog/" + sid + "/manifest.json": string(data)})
	return storeAt(t, path).Load("blog", sid)
}

func TestAManifestOfVersion2IsWrittenAndReadAsEver(t *testing.T) {
	want := golden(t, "manifest.v2.json", zstdManifest(t))
	m, err := loaded(t, want)
	if err != nil {
		t.Fatal(err)
	}
	for i, codec := range []archive.Codec{archive.Gzip, archive.Zstd} {
		if v := &m.Volumes[i]; v.Compression != codec || v.Members[0].Codec != codec {
			t.Errorf("volume %d is %s, its member %s", i, v.Compression, v.Members[0].Codec)
		}
	}
	// A program that knows version 1 alone takes it for what it is.
	if err := disk.UnmarshalSealed(want, &store.Manifest{}, "snap-manifest", 1); !errors.Is(err, disk.ErrTooNew) || errors.Is(err, disk.ErrDamaged) {
		t.Errorf("to an older program it is: %v", err)
	}
	for name, forge := range map[string][2]string{
		"in version 1":              {`"version": 2`, `"version": 1`},
		"of an unknown name":        {`"zstd"`, `"lz4"`},
		"that is a number":          {`"zstd"`, `1`},
		"of a name in capitals":     {`"zstd"`, `"ZSTD"`},
		"that is empty":             {`"zstd"`, `""`},
		"under a name of one's own": {`"compression"`, `"compressor"`},
	} {
		data := reseal(bytes.Replace(want, []byte(forge[0]), []byte(forge[1]), 1))
		if _, err := loaded(t, data); !errors.Is(err, disk.ErrDamaged) {
			t.Errorf("a compression %s: %v", name, err)
		}
	}
}

func TestAManifestOfVersion3IsWrittenAndReadAsEver(t *testing.T) {
	m := manifest("blog", sid, archive.Member{ID: strings.Repeat("0123456789abcdef", 4), Tar: 8192, Stored: 300})
	m.Volumes[0].Specials = 2
	data, err := disk.MarshalSealed(m, "snap-manifest", 3)
	if err != nil {
		t.Fatal(err)
	}
	want := golden(t, "manifest.v3.json", data)
	m, err = loaded(t, want)
	if err != nil || m.Volumes[0].Specials != 2 {
		t.Fatalf("%+v: %v", m, err)
	}
	if err := disk.UnmarshalSealed(want, &store.Manifest{}, "snap-manifest", 2); !errors.Is(err, disk.ErrTooNew) || errors.Is(err, disk.ErrDamaged) {
		t.Errorf("to an older program it is: %v", err)
	}
	for name, forge := range map[string][2]string{
		"in version 1":                  {`"version": 3`, `"version": 1`},
		"in version 2":                  {`"version": 3`, `"version": 2`},
		"less than none":                {`"specials": 2`, `"specials": -2`},
		"more than the stream can hold": {`"specials": 2`, `"specials": 17`},
	} {
		data := reseal(bytes.Replace(want, []byte(forge[0]), []byte(forge[1]), 1))
		if _, err := loaded(t, data); !errors.Is(err, disk.ErrDamaged) {
			t.Errorf("fifos and devices %s: %v", name, err)
		}
	}
}

func TestAManifestOfVersion4IsWrittenAndReadAsEver(t *testing.T) {
	m := manifest("blog", sid, archive.Member{ID: strings.Repeat("0123456789abcdef", 4), Tar: 8192, Stored: 300})
	v := &m.Volumes[0]
	v.Source, v.Kind, v.Stats, v.Sockets = "app.db", store.File, archive.Stats{Files: 1, Dirs: 1, Bytes: 1000, DataBytes: 1000, Depth: 1}, 0
	data, err := disk.MarshalSealed(m, "snap-manifest", 4)
	if err != nil {
		t.Fatal(err)
	}
	want := golden(t, "manifest.v4.json", data)
	m, err = loaded(t, want)
	if err != nil || m.Volumes[0].Kind != store.File {
		t.Fatalf("%+v: %v", m, err)
	}
	if err := disk.UnmarshalSealed(want, &store.Manifest{}, "snap-manifest", 3); !errors.Is(err, disk.ErrTooNew) || errors.Is(err, disk.ErrDamaged) {
		t.Errorf("to an older program it is: %v", err)
	}
	for name, forge := range map[string][2]string{
		"in version 3":             {`"version": 4`, `"version": 3`},
		"of an unknown kind":       {`"kind": "file"`, `"kind": "socket"`},
		"of a kind in capitals":    {`"kind": "file"`, `"kind": "FILE"`},
		"with two files":           {`"files": 1`, `"files": 2`},
		"without a file":           {`"files": 1`, `"files": 0`},
		"with another directory":   {`"dirs": 1`, `"dirs": 2`},
		"with a symlink":           {`"symlinks": 0`, `"symlinks": 1`},
		"with a second name":       {`"hardlinks": 0`, `"hardlinks": 1`},
		"in a directory deep down": {`"depth": 1`, `"depth": 2`},
	} {
		forged := bytes.Replace(want, []byte(forge[0]), []byte(forge[1]), 1)
		if bytes.Equal(forged, want) {
			t.Fatalf("%s: nothing is forged", name)
		}
		if _, err := loaded(t, reseal(forged)); !errors.Is(err, disk.ErrDamaged) {
			t.Errorf("a file %s: %v", name, err)
		}
	}
}

func TestAnIndexOfVersion2IsWrittenAndReadAsEver(t *testing.T) {
	dir := t.TempDir()
	d, err := disk.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	x, err := store.NewIndex(d, "index.gz", goldenOrigin)
	if err != nil {
		t.Fatal(err)
	}
	at := archive.Timespec{Sec: 1700000000, Nsec: 5}
	lines := []*archive.Line{
		{Entry: archive.Entry{Name: ".", Type: archive.Directory, Mode: 0o2755, Mtime: at}, Ctime: at, Inode: 2, Handle: "1.0200000000000000"},
		{Entry: archive.Entry{Name: "a\nb\x1b\xff ü\"", Type: archive.Regular, Mode: 0o4644, UID: 4294967294, GID: 1, Size: 1 << 40, Mtime: archive.Timespec{Sec: -1, Nsec: 5e8}},
			Ctime: at, Inode: math.MaxUint64, Member: 7, Span: 3, Data: 1 << 21, Handle: "81.0c"},
		{Entry: archive.Entry{Name: "s", Type: archive.Symlink, Mode: 0o777}, Member: 11},
		{Entry: archive.Entry{Name: "h", Type: archive.Hardlink, Link: "a\ttab"}, Member: 12},
	}
	errs := []error{x.Volume("content\twith a tab", "ext4-0123", at)}
	for _, l := range lines {
		errs = append(errs, x.Add(l))
	}
	errs = append(errs, x.Volume("second", "xfs-4567", archive.Timespec{}), x.Close())
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	readsBack(t, d, lines)
	f, err := os.Open(filepath.Join(dir, "index.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(zr)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "index.v2.txt", text)
	if bytes.ContainsAny(text, "\x1b\xff") || bytes.Count(text, []byte("\n")) != 7 {
		t.Errorf("a name broke the lines of the index:\n%q", text)
	}
}

// What version 1 said of files does not prove that they are unchanged: it had no
// handles.
func TestAnIndexOfVersion1ServesForNothing(t *testing.T) {
	text, err := os.ReadFile("testdata/index.v1.txt")
	if err != nil {
		t.Fatal(err)
	}
	var data bytes.Buffer
	zw := gzip.NewWriter(&data)
	if _, err := zw.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	disktest.Write(t, dir, map[string]string{"index.gz": data.String()})
	d, err := disk.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := store.ReadPlaces(d, "index.gz"); !errors.Is(err, store.ErrIndex) {
		t.Errorf("it is opened: %v", err)
	}
}

func TestAForgedManifestWithATrueChecksumIsDamaged(t *testing.T) {
	id := func(i int) string { return fmt.Sprintf("%064x", i) }
	for name, forge := range map[string]func(m *store.Manifest){
		"another workload":                 func(m *store.Manifest) { m.Workload = "shop" },
		"a workload that leads out":        func(m *store.Manifest) { m.Workload = "../blog" },
		"another sid":                      func(m *store.Manifest) { m.SID = "20260102T030405Z-000000" },
		"a sid that leads out":             func(m *store.Manifest) { m.SID = "../" + sid },
		"an unknown reason":                func(m *store.Manifest) { m.Reason = "evil" },
		"a volume without a name":          func(m *store.Manifest) { m.Volumes[0].Name = "" },
		"the same volume twice":            func(m *store.Manifest) { m.Volumes = append(m.Volumes, m.Volumes[0]) },
		"no members":                       func(m *store.Manifest) { m.Volumes[0].Members = nil },
		"a member that leads out":          func(m *store.Manifest) { m.Volumes[0].Members[0].ID = "../../../../etc/passwd" },
		"a member in capitals":             func(m *store.Manifest) { m.Volumes[0].Members[0].ID = strings.Repeat("A", 64) },
		"a member without an id":           func(m *store.Manifest) { m.Volumes[0].Members[0].ID = "" },
		"a member of 0 bytes":              func(m *store.Manifest) { m.Volumes[0].Members[0].Tar = 0 },
		"a member of -1 bytes":             func(m *store.Manifest) { m.Volumes[0].Members[0].Tar = -1 },
		"a member over the cap":            func(m *store.Manifest) { m.Volumes[0].Members[0].Tar = archive.MaxMember + 1 },
		"a member stored in 0 bytes":       func(m *store.Manifest) { m.Volumes[0].Members[0].Stored = 0 },
		"a member stored in 2^63-1 bytes":  func(m *store.Manifest) { m.Volumes[0].Members[0].Stored = math.MaxInt64 },
		"a negative number of files":       func(m *store.Manifest) { m.Volumes[0].Files = -1 },
		"a negative number of directories": func(m *store.Manifest) { m.Volumes[0].Dirs = -1 },
		"a negative number of symlinks":    func(m *store.Manifest) { m.Volumes[0].Symlinks = -1 },
		"a negative number of hardlinks":   func(m *store.Manifest) { m.Volumes[0].Hardlinks = -1 },
		"negative bytes":                   func(m *store.Manifest) { m.Volumes[0].Bytes = -1 },
		"negative bytes of data":           func(m *store.Manifest) { m.Volumes[0].DataBytes = -1 },
		"a negative number of sockets":     func(m *store.Manifest) { m.Volumes[0].Sockets = -1 },
		"a negative number of changed":     func(m *store.Manifest) { m.Volumes[0].Changed = -1 },
		"a negative depth":                 func(m *store.Manifest) { m.Volumes[0].Depth = -1 },
		"a depth over the cap":             func(m *store.Manifest) { m.Volumes[0].Depth = archive.MaxDepth + 1 },
		"no directory":                     func(m *store.Manifest) { m.Volumes[0].Dirs = 0 },
		"more entries than bytes allow":    func(m *store.Manifest) { m.Volumes[0].Files = 17 },
		"counts whose sum overflows": func(m *store.Manifest) {
			v := &m.Volumes[0]
			v.Files, v.Dirs, v.Symlinks, v.Hardlinks = math.MaxInt64, math.MaxInt64, 1, 1
		},
		"more data than bytes":       func(m *store.Manifest) { m.Volumes[0].DataBytes = 1001 },
		"more data than the members": func(m *store.Manifest) { m.Volumes[0].Bytes, m.Volumes[0].DataBytes = 1<<40, 1<<39 },
		"bytes whose sum overflows":  func(m *store.Manifest) { two(m); m.Volumes[0].Bytes, m.Volumes[1].Bytes = math.MaxInt64, math.MaxInt64 },
		"more volumes than a workload has": func(m *store.Manifest) {
			for i := range 1000 {
				v := m.Volumes[0]
				v.Name, v.Members = fmt.Sprint(i), []archive.Member{{ID: id(i), Tar: 8192, Stored: 1}}
				m.Volumes = append(m.Volumes, v)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := manifest("blog", sid, archive.Member{ID: id(1), Tar: 8192, Stored: 300})
			forge(m)
			data, err := disk.MarshalSealed(m, "snap-manifest", 1)
			if err != nil {
				t.Fatal(err)
			}
			path := t.TempDir()
			disktest.Write(t, path, map[string]string{"snapshots/blog/" + sid + "/manifest.json": string(data)})
			if _, err := storeAt(t, path).Load("blog", sid); !errors.Is(err, disk.ErrDamaged) || errors.Is(err, disk.ErrTooNew) {
				t.Errorf("the answer is %v", err)
			}
		})
	}
}

func two(m *store.Manifest) {
	v := m.Volumes[0]
	v.Name = "second"
	m.Volumes = append(m.Volumes, v)
}

func TestAManifestThatCannotBeRestoredIsNotPublished(t *testing.T) {
	path := t.TempDir()
	s := storeAt(t, path)
	dir := scratch(t, s)
	b := s.NewBatch(t.Context(), dir, false, archive.Gzip)
	m := manifest("blog", sid, put(t, b, piece("a")))
	m.Volumes[0].Files = -1
	if err := b.Publish(m, index(t, dir)); err == nil {
		t.Error("published")
	}
	if len(members(t, path)) != 0 {
		t.Error("its members were published")
	}
}

// What version 1 wrote, every later version must read.
func TestTheIdentityOfVersion1IsWrittenAndReadAsEver(t *testing.T) {
	data, err := disk.MarshalSealed(&store.Identity{ID: sid, Created: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)}, "snap-store", 1)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("testdata/store.v1.json", data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/store.v1.json")
	if err != nil || !bytes.Equal(data, want) {
		t.Errorf("it is written as\n%s\nexpected\n%s: %v", data, want, err)
	}
	path := t.TempDir()
	disktest.Write(t, path, map[string]string{"store.json": string(want)})
	if s := storeAt(t, path); s.ID() != sid {
		t.Errorf("it is read as %q", s.ID())
	}
	for damage, want := range map[string]error{
		"": disk.ErrDamaged, string(data[:40]): disk.ErrDamaged, string(reseal(bytes.Replace(data, []byte(`"version": 1`), []byte(`"version": 2`), 1))): disk.ErrTooNew,
		string(reseal(bytes.Replace(data, []byte(sid), []byte("x"), 1))): disk.ErrDamaged,
	} {
		disktest.Write(t, path, map[string]string{"store.json": damage})
		for _, open := range []func(string) (*store.Store, error){store.Open, store.OpenExisting} {
			if _, err := open(path); !errors.Is(err, want) {
				t.Errorf("%q: the answer is %v", damage, err)
			}
		}
		if now, err := os.ReadFile(path + "/store.json"); err != nil || string(now) != damage {
			t.Errorf("it was written anew: %q, %v", now, err)
		}
	}
}

func TestAStoreIsTheUsersAlone(t *testing.T) {
	disktest.NeedRoot(t)
	unusable := func(t *testing.T, path, want string) {
		t.Helper()
		s, err := store.Open(path)
		if err == nil {
			s.Close()
		}
		var u *disk.Unusable
		if !errors.As(err, &u) || u.What != "store" || !strings.Contains(u.Reason, want) || u.Hint == "" {
			t.Errorf("the answer is %v; expected one that says %q and a hint", err, want)
		}
	}
	mode := func(t *testing.T, path string) os.FileMode {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode() & (os.ModePerm | os.ModeSetgid)
	}
	t.Run("a new one", func(t *testing.T) {
		defer unix.Umask(unix.Umask(0))
		path := t.TempDir() + "/a/b"
		storeAt(t, path)
		if got := mode(t, path); got != 0o700 {
			t.Errorf("mode %v", got)
		}
	})
	for _, m := range []uint32{0o755, 0o750, 0o2700, 0o500} {
		t.Run(fmt.Sprintf("%o", m), func(t *testing.T) {
			path := t.TempDir()
			disktest.Write(t, path, map[string]string{"members/": ""})
			if err := unix.Chmod(path, m); err != nil {
				t.Fatal(err)
			}
			want := mode(t, path)
			storeAt(t, path)
			if got := mode(t, path); got != want {
				t.Errorf("mode %v has become %v", want, got)
			}
		})
	}
	for _, m := range []uint32{0o777, 0o770, 0o720, 0o702, 0o1777} {
		t.Run(fmt.Sprintf("%o", m), func(t *testing.T) {
			path := t.TempDir()
			if err := unix.Chmod(path, m); err != nil {
				t.Fatal(err)
			}
			want := mode(t, path)
			unusable(t, path, "others may write it")
			if got := mode(t, path); got != want {
				t.Errorf("mode %v has become %v", want, got)
			}
		})
	}
	t.Run("another's", func(t *testing.T) {
		path := t.TempDir()
		if err := os.Chown(path, 1000, 0); err != nil {
			t.Fatal(err)
		}
		unusable(t, path, "user 1000")
	})
	t.Run("tmpfs", func(t *testing.T) { unusable(t, disktest.Tmpfs(t), "reboot") })
	t.Run("a file", func(t *testing.T) {
		path := t.TempDir() + "/file"
		disktest.Write(t, filepath.Dir(path), map[string]string{"file": "x"})
		if _, err := store.Open(path); err == nil {
			t.Error("a file was opened as a store")
		}
	})
	t.Run("a relative path", func(t *testing.T) {
		t.Chdir(t.TempDir())
		if _, err := store.Open("store"); err == nil {
			t.Error("opened")
		}
	})
	t.Run("a symlink for its folder of members", func(t *testing.T) {
		path, elsewhere := t.TempDir(), t.TempDir()
		if err := os.Symlink(elsewhere, path+"/members"); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Open(path); err == nil {
			t.Error("opened")
		}
	})
}

// FuzzManifest gives any document a true checksum: what Load takes is within
// the bounds that the rest relies on.
func FuzzManifest(f *testing.F) {
	f.Add(sealedManifest(f))
	f.Add(bytes.Replace(sealedManifest(f), []byte(`"files": 2`), []byte(`"files": 9223372036854775807`), 1))
	f.Add(bytes.Replace(sealedManifest(f), []byte(`"version": 1`), []byte(`"version": 99`), 1))
	f.Add(zstdManifest(f))
	f.Add(sealedAs(f, summed(3), "snap-manifest", 5))
	f.Add([]byte(`{"checksum": "sha256:`))
	path := f.TempDir()
	s := storeAt(f, path)
	file := filepath.Join(path, "snapshots/blog", sid, "manifest.json")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Contains(data, []byte(`"checksum": "sha256:`)) {
			data = reseal(append(bytes.Clone(data), strings.Repeat(" ", 64)...))
		}
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := s.Load("blog", sid)
		if err != nil {
			if !errors.Is(err, disk.ErrDamaged) && !errors.Is(err, disk.ErrTooNew) {
				t.Errorf("%v", err)
			}
			return
		}
		if files, size, stored := m.Totals(); files < 0 || size < 0 || stored < 0 || m.SID != sid || m.Workload != "blog" {
			t.Errorf("%+v", m)
		}
		for i := range m.Volumes {
			for j := range m.Volumes[i].Members {
				member := &m.Volumes[i].Members[j]
				if !archive.ValidMemberID(member.ID) {
					t.Errorf("%q", member.ID)
				}
				member.Codec = 0 // not in the document
			}
		}
		// Members that are taken out line by line are those that any decoder of JSON finds.
		whole := &store.Manifest{}
		if err := disk.UnmarshalSealed(data, whole, "snap-manifest", 5); err != nil || !reflect.DeepEqual(whole, m) {
			t.Errorf("%+v in parts is %+v as a whole: %v", m, whole, err)
		}
		sum, err := s.Summary("blog", sid)
		if err != nil {
			t.Fatal(err)
		}
		same(t, sum, m)
	})
}
