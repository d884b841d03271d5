package diff_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/diff"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// world is a live directory, and a store with snapshots of it.
type world struct {
	*testing.T
	dir, live string
	store     *store.Store
	volume    *workload.Volume
}

func newWorld(t *testing.T) *world {
	t.Helper()
	disktest.NeedRoot(t)
	w := &world{T: t, dir: t.TempDir()}
	w.live = filepath.Join(w.dir, "live")
	w.must(os.Chmod(w.dir, 0o755))
	w.must(os.Mkdir(w.live, 0o755))
	st, err := store.Open(filepath.Join(w.dir, "store"))
	w.must(err)
	t.Cleanup(func() { st.Close() })
	w.store = st
	w.volume = &workload.Volume{Name: "v", Scope: workload.Absolute, Source: w.live, Special: workload.KeepSpecial, Setuid: workload.KeepSetuid}
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) open() *disk.Dir {
	w.Helper()
	d, err := disk.OpenRoot(w.live)
	w.must(err)
	w.Cleanup(func() { d.Close() })
	return d
}

func (w *world) at(name string) string { return filepath.Join(w.live, name) }

// capture makes a snapshot of the live directory.
func (w *world) capture() *store.Manifest {
	w.Helper()
	scratch, err := w.store.Scratch(disk.NewID(time.Now()))
	w.must(err)
	capture, err := snapshot.Start(w.Context(), w.store, scratch, []snapshot.Source{{Volume: w.volume, Live: w.open()}}, snapshot.Options{Workload: "app"})
	w.must(err)
	defer capture.Close()
	w.must(capture.PassTwo(w.Context()))
	m := &store.Manifest{SID: disk.NewID(time.Now()), Reason: store.Manual, Quiesce: "none", Images: []store.Image{}}
	w.must(capture.Publish(m))
	m, err = w.store.Load("app", m.SID)
	w.must(err)
	return m
}

func side(m *store.Manifest) diff.Side { return diff.Side{Manifest: m, Volume: &m.Volumes[0]} }

func (w *world) now() diff.Side {
	return diff.Side{Live: w.open(), Options: snapshot.WriteOptions(w.volume)}
}

// compare returns the changes, a line each.
func (w *world) compare(from, to diff.Side, content bool) (list []string, totals *diff.Totals) {
	w.Helper()
	totals, err := diff.Compare(w.Context(), diff.Request{
		Store: w.store, From: from, To: to, Content: content,
		See: func(c *diff.Change) error {
			list = append(list, fmt.Sprintf("%s %q", c.Kind, c.Name))
			return nil
		},
	})
	w.must(err)
	return list, totals
}

// thing is a name, as a plain look finds it.
type thing struct {
	mode     uint32
	uid, gid uint32
	mtime    unix.Timespec
	content  string // or the target, or the device
	first    string // the first name of the file
}

// look is the plain way to see a tree.
func (w *world) look() map[string]thing {
	w.Helper()
	all, first := map[string]thing{}, map[uint64]string{}
	var names []string
	w.must(filepath.WalkDir(w.live, func(path string, _ fs.DirEntry, err error) error {
		names = append(names, path)
		return err
	}))
	order := func(path string) string { return strings.ReplaceAll(path, "/", "\x00") } // as a walk goes
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(order(a), order(b)) })
	for _, path := range names {
		var st unix.Stat_t
		w.must(unix.Lstat(path, &st))
		rel, err := filepath.Rel(w.live, path)
		w.must(err)
		x := thing{mode: st.Mode, uid: st.Uid, gid: st.Gid, mtime: st.Mtim}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			w.must(err)
			x.content = string(data)
			if first[st.Ino] == "" {
				first[st.Ino] = rel
			}
			x.first = first[st.Ino]
		case unix.S_IFLNK:
			x.content, err = os.Readlink(path)
			w.must(err)
		case unix.S_IFDIR:
			x.mtime = unix.Timespec{}
		default:
			x.content = fmt.Sprint(st.Rdev)
		}
		all[rel] = x
	}
	return all
}

// differ says what has changed between two looks.
func differ(a, b map[string]thing, content bool) (list []string) {
	for name, x := range a {
		y, there := b[name]
		kind := ""
		stat := x.mode == y.mode && x.uid == y.uid && x.gid == y.gid && x.first == y.first
		file := x.mode&unix.S_IFMT == unix.S_IFREG
		timed := file || x.mode&unix.S_IFMT == unix.S_IFLNK
		switch {
		case !there:
			kind = "-"
		case x.mode&unix.S_IFMT != y.mode&unix.S_IFMT:
			kind = "T"
		case content && x.content != y.content, file && len(x.content) != len(y.content), !content && timed && x.mtime != y.mtime:
			kind = "M"
		case x.mtime != y.mtime || !stat:
			kind = "U"
		default:
			continue
		}
		list = append(list, fmt.Sprintf("%s %q", kind, name))
	}
	for name := range b {
		if _, there := a[name]; !there {
			list = append(list, fmt.Sprintf("+ %q", name))
		}
	}
	slices.Sort(list)
	return list
}

// grow makes names at random, and changes those that are there.
func (w *world) grow(r *rand.Rand, steps int) {
	w.Helper()
	var dirs, files, all []string
	for name, x := range w.look() {
		switch x.mode & unix.S_IFMT {
		case unix.S_IFDIR:
			dirs = append(dirs, name)
		case unix.S_IFREG:
			files = append(files, name)
		}
		if name != "." {
			all = append(all, name)
		}
	}
	for _, list := range [][]string{dirs, files, all} {
		slices.Sort(list)
	}
	pick := func(list []string) string { return w.at(list[r.IntN(len(list))]) }
	noise := func() []byte {
		data := make([]byte, []int{0, 1, 511, 512, 5000, 60_000, 300_000, 1 << 20, 2_200_001}[r.IntN(9)])
		_, _ = rand.NewChaCha8([32]byte{byte(r.Uint32()), byte(r.Uint32())}).Read(data)
		return data
	}
	parts := []string{"a", "b", "a.b", "a b", "a-", "ab", "é", "\xff", "z\n"}
	for range steps {
		fresh := filepath.Join(pick(dirs), parts[r.IntN(len(parts))]+fmt.Sprint(r.IntN(4)))
		if info, err := os.Lstat(filepath.Dir(fresh)); err != nil || !info.IsDir() {
			continue // something else has taken its place
		}
		var err error
		switch kind := r.IntN(19); {
		case kind < 3:
			if err = os.Mkdir(fresh, 0o755); err == nil {
				rel, _ := filepath.Rel(w.live, fresh)
				dirs = append(dirs, rel)
			}
		case kind < 7:
			if _, missing := os.Lstat(fresh); missing != nil {
				err = os.WriteFile(fresh, noise(), 0o600)
			}
		case kind == 7:
			err = os.Symlink([]string{"/etc/passwd", "..", "gone"}[r.IntN(3)], fresh)
		case kind == 8:
			err = unix.Mkfifo(fresh, 0o600)
		case kind == 9:
			if _, missing := os.Lstat(fresh); missing != nil {
				disktest.Sparse(w.T, fresh, 1<<20+int64(r.IntN(3<<20)), int64(r.IntN(200))*4096)
			}
		case kind == 10 && len(files) > 0:
			err = os.Link(pick(files), fresh)
		case kind == 11 && len(all) > 0:
			err = os.RemoveAll(pick(all))
		case kind == 12 && len(all) > 0:
			err = os.Rename(pick(all), fresh)
		case kind == 13 && len(all) > 0:
			err = os.Lchown(pick(all), r.IntN(3), r.IntN(3))
		case kind == 14 && len(files) > 0:
			err = os.Chmod(pick(files), fs.FileMode(r.IntN(0o1000)))
		case kind == 15 && len(files) > 0: // a time alone
			now := time.Now().Add(-time.Duration(r.IntN(1e9)))
			err = os.Chtimes(pick(files), now, now)
		case kind == 16 && len(files) > 0: // the content alone
			err = w.flip(pick(files), r)
		case kind == 17 && len(files) > 0: // the same bytes, without holes
			path := pick(files) // which may be a fifo by now
			if info, gone := os.Lstat(path); gone == nil && info.Mode().IsRegular() {
				var data []byte
				if data, err = os.ReadFile(path); err == nil {
					err = os.WriteFile(path, data, 0o600)
				}
			}
		case kind == 18 && len(all) > 0: // something else under the name
			path := pick(all)
			if err = os.RemoveAll(path); err == nil {
				err = []func() error{
					func() error { return os.Mkdir(path, 0o700) }, func() error { return os.Symlink("new", path) },
					func() error { return os.WriteFile(path, noise(), 0o644) },
				}[r.IntN(3)]()
			}
		}
		_ = err // a name may be gone by now
	}
}

// flip changes a byte of a file, and no time but ctime.
func (w *world) flip(path string, r *rand.Rand) error {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	w.must(err)
	at := r.Int64N(info.Size())
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	w.must(err)
	b[0]++
	_, err = f.WriteAt(b, at)
	w.must(err)
	w.must(f.Close())
	return os.Chtimes(path, info.ModTime(), info.ModTime())
}

// Whatever changes, a comparison says what a plain look at both trees says: of a snapshot
// with live data, of two snapshots, and of either backwards.
func TestAComparisonSaysWhatAPlainLookSays(t *testing.T) {
	kinds := map[byte]int{}
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 5))
		w := newWorld(t)
		w.grow(r, 60+r.IntN(100))
		if seed%2 == 0 { // so that times prove something
			time.Sleep(1200 * time.Millisecond)
		}
		first, before := w.capture(), w.look()
		w.grow(r, 10+r.IntN(60))
		after := w.look()
		second := w.capture()
		for _, content := range []bool{false, true} {
			want := differ(before, after, content)
			for _, line := range want {
				kinds[line[0]]++
			}
			live, liveTotals := w.compare(side(first), w.now(), content)
			stored, storedTotals := w.compare(side(first), side(second), content)
			back, _ := w.compare(side(second), side(first), content)
			same, none := w.compare(side(second), w.now(), content)
			if len(same) > 0 || none.Any() {
				t.Errorf("seed %d, content %v: nothing has changed since, but %q", seed, content, same)
			}
			for what, got := range map[string][]string{"live": live, "two snapshots": stored} {
				slices.Sort(got)
				if d := disktest.Diff(want, got); d != "" {
					t.Errorf("seed %d, content %v, %s:\n%s", seed, content, what, d)
				}
			}
			slices.Sort(back)
			if d := disktest.Diff(differ(after, before, content), back); d != "" {
				t.Errorf("seed %d, content %v, backwards:\n%s", seed, content, d)
			}
			if *liveTotals != *storedTotals {
				t.Errorf("seed %d, content %v: %+v and %+v", seed, content, *liveTotals, *storedTotals)
			}
		}
		counts, err := diff.Counts(t.Context(), w.store, first, &first.Volumes[0], w.open(), snapshot.WriteOptions(w.volume))
		w.must(err)
		if _, want := w.compare(side(second), side(first), false); *counts != *want {
			t.Errorf("seed %d: a restore would change %+v, and %+v is counted", seed, *want, *counts)
		}
	}
	for _, kind := range "+-MUT" {
		if kinds[byte(kind)] < 5 {
			t.Errorf("only %d changes of kind %c: too few to tell anything", kinds[byte(kind)], kind)
		}
	}
}

// What the config excludes is neither added nor removed, whatever the snapshot has and
// whatever is left of it.
func TestWhatIsExcludedIsNoChange(t *testing.T) {
	w := newWorld(t)
	tag := "Signature: 8a477f597d28d172789f06886806bc55 of a test"
	disktest.Write(t, w.live, map[string]string{
		"kept": "k", "tmp/a": "a", "tmp/b/c": "c", "x.log": "l", "deep/y.log": "l", "deep/z": "z",
		"cache/CACHEDIR.TAG": tag, "cache/one": "1", "cache/sub/two": "2", "emptied/CACHEDIR.TAG": tag, "emptied/three": "3",
		"cachet": "no cache", "last/w": "w",
	})
	before := w.capture()
	w.volume.Exclude, w.volume.ExcludeCaches = []string{"tmp", "**/*.log"}, true
	if list, totals := w.compare(side(before), w.now(), true); len(list) > 0 || totals.Excluded == 0 {
		t.Errorf("nothing has changed, but %q, %+v", list, totals)
	}
	disktest.Write(t, w.live, map[string]string{"tmp/new": "n", "cache/new": "n", "new.log": "n", "deep/new": "n"})
	for _, gone := range []string{"tmp/b", "x.log", "emptied/three", "cache/sub"} {
		w.must(os.RemoveAll(w.at(gone)))
	}
	w.must(os.WriteFile(w.at("cache/one"), []byte("another"), 0o600))
	list, totals := w.compare(side(before), w.now(), false)
	if want := []string{`+ "deep/new"`}; !slices.Equal(list, want) || totals.Excluded != 4+1+1+3+1 {
		t.Errorf("%q, expected %q; %+v", list, want, totals)
	}
	w.must(os.RemoveAll(w.at("tmp")))
	w.must(os.RemoveAll(w.at("last")))
	list, _ = w.compare(side(before), w.now(), false)
	if want := []string{`+ "deep/new"`, `- "last"`, `- "last/w"`}; !slices.Equal(list, want) {
		t.Errorf("%q, expected %q", list, want)
	}
	// A capture knows the same exclusions.
	if list, totals := w.compare(side(w.capture()), w.now(), true); len(list) > 0 || totals.Excluded > 0 {
		t.Errorf("nothing has changed since, but %q, %+v", list, totals)
	}
}

// A content that has changed without a sign in size and mtime shows when it is read, and only
// then.
func TestContentThatStatDoesNotShowIsRead(t *testing.T) {
	w := newWorld(t)
	disktest.Write(t, w.live, map[string]string{"a": "1111", "large": strings.Repeat("x", 3<<20)})
	m := w.capture()
	for _, name := range []string{"a", "large"} {
		w.must(w.flip(w.at(name), rand.New(rand.NewPCG(1, 1))))
	}
	if list, _ := w.compare(side(m), w.now(), false); len(list) > 0 {
		t.Errorf("by stat nothing shows, but %q", list)
	}
	if list, _ := w.compare(side(m), w.now(), true); !slices.Equal(list, []string{`M "a"`, `M "large"`}) {
		t.Errorf("%q", list)
	}
}

// A side that has no such volume is empty.
func TestAVolumeThatASideLacksIsEmpty(t *testing.T) {
	w := newWorld(t)
	disktest.Write(t, w.live, map[string]string{"d/f": "four"})
	m := w.capture()
	for what, c := range map[string]struct {
		from, to diff.Side
		kind     string
	}{"removed": {side(m), diff.Side{}, "-"}, "added": {diff.Side{}, side(m), "+"}, "new": {diff.Side{}, w.now(), "+"}} {
		list, totals := w.compare(c.from, c.to, true)
		want := []string{c.kind + ` "."`, c.kind + ` "d"`, c.kind + ` "d/f"`}
		if !slices.Equal(list, want) || totals.Added.Bytes+totals.Removed.Bytes != 4 {
			t.Errorf("%s: %q, %+v", what, list, totals)
		}
	}
	counts, err := diff.Counts(t.Context(), w.store, m, &m.Volumes[0], nil, archive.WriteOptions{})
	if err != nil || counts.Added != (diff.Number{Files: 1, Dirs: 2, Bytes: 4}) {
		t.Errorf("%+v, %v", counts, err)
	}
}

// Damage in a member that has to be read ends the comparison, and no other does.
func TestDamageEndsAComparisonOfContent(t *testing.T) {
	w := newWorld(t)
	noise := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(noise)
	disktest.Write(t, w.live, map[string]string{"a": "a", "large": string(noise)})
	m := w.capture()
	v := &m.Volumes[0]
	id := v.Members[len(v.Members)-2].ID // the last piece of the file, or the one before
	path := filepath.Join(w.dir, "store/members", id[:2], id+".gz")
	data, err := os.ReadFile(path)
	w.must(err)
	w.must(os.WriteFile(path, bytes.ReplaceAll(data, data[1000:1016], make([]byte, 16)), 0o600))
	w.must(os.Chtimes(w.at("large"), time.Now(), time.Now()))
	if list, _ := w.compare(side(m), w.now(), false); !slices.Equal(list, []string{`M "large"`}) {
		t.Errorf("%q", list)
	}
	_, err = diff.Compare(t.Context(), diff.Request{Store: w.store, From: side(m), To: w.now(), Content: true})
	if err == nil || !strings.Contains(err.Error(), `"large"`) {
		t.Errorf("a damaged member was believed: %v", err)
	}
	disktest.Write(t, w.live, map[string]string{"large": "short"})
	if list, _ := w.compare(side(m), w.now(), true); !slices.Equal(list, []string{`M "large"`}) {
		t.Errorf("%q", list)
	}
}
