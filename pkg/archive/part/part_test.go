package part_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/archivetest"
	"github.com/tiny-forge/snap/pkg/archive/part"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// stream is a volume's stream in memory, with its index.
type stream struct {
	mu      sync.Mutex
	stored  map[string][]byte
	opened  map[string]bool
	members []archive.Member
	lines   []archive.Line
	stats   archive.Stats
}

func (s *stream) Put(tar []byte) (archive.Member, error) {
	data, id := archive.Gzip.Deflate(nil, tar), archive.MemberID(tar)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored[id] = data
	return archive.Member{ID: id, Tar: int64(len(tar)), Stored: int64(len(data))}, nil
}

func (s *stream) Open(_ context.Context, m archive.Member, buf []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened[m.ID] = true
	return append(buf[:0], s.stored[m.ID]...), nil
}

// tar returns the whole stream, uncompressed.
func (s *stream) tar(t *testing.T) (all []byte) {
	t.Helper()
	for _, m := range s.members {
		tar, err := archive.Inflate(nil, s.stored[m.ID], m)
		must(t, err)
		all = append(all, tar...)
	}
	return all
}

// cut returns the same stream in members of other sizes, which begin anywhere.
func (s *stream) cut(t *testing.T, r *rand.Rand) *stream {
	t.Helper()
	other := newStream()
	other.stats = s.stats
	for tar := s.tar(t); len(tar) > 0; {
		n := min(1+r.IntN(1<<uint(r.IntN(19))), len(tar))
		m, err := other.Put(tar[:n])
		must(t, err)
		other.members, tar = append(other.members, m), tar[n:]
	}
	return other
}

func newStream() *stream {
	return &stream{stored: map[string][]byte{}, opened: map[string]bool{}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func capture(t *testing.T, dir string) *stream {
	t.Helper()
	s := newStream()
	d := open(t, dir)
	result, err := archive.Write(t.Context(), d, s, archive.WriteOptions{
		KeepPrivileges: true, Special: archive.KeepSpecial,
		Index: func(l *archive.Line) error { s.lines = append(s.lines, *l); return nil },
	})
	must(t, err)
	s.members, s.stats = result.Members, result.Stats
	return s
}

func open(t *testing.T, dir string) *disk.Dir {
	t.Helper()
	d, err := disk.OpenRoot(dir)
	must(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// index is the index that the capture wrote.
func (s *stream) index() part.Index { return indexOf(s.lines) }

func indexOf(lines []archive.Line) part.Index {
	return func() (part.Lines, error) { return &list{lines}, nil }
}

type list struct{ lines []archive.Line }

func (l *list) Next() (*archive.Line, error) {
	if len(l.lines) == 0 {
		return nil, io.EOF
	}
	line := l.lines[0]
	l.lines = l.lines[1:]
	return &line, nil
}

func (l *list) Close() error { return nil }

// extract makes the chosen names in a new directory.
func (s *stream) extract(t *testing.T, index part.Index, names []string, into string) (*part.Found, archive.Stats, error) {
	t.Helper()
	must(t, os.Mkdir(into, 0o700))
	choice, err := part.Choose(names)
	must(t, err)
	found, err := choice.Find(index, len(s.members))
	if err != nil || len(found.Missing) > 0 {
		return found, archive.Stats{}, err
	}
	d, err := disk.OpenRoot(into)
	must(t, err)
	defer d.Close()
	got, err := part.Extract(t.Context(), s, s.members, found, d, archive.ExtractOptions{
		KeepPrivileges: true, Special: archive.KeepSpecial, MaxEntries: s.stats.Entries(), MaxBytes: s.stats.Bytes, MaxDepth: s.stats.Depth,
	})
	return found, got, err
}

// grow makes a random tree: names that sort in unexpected ways, files of all sizes with and
// without holes, links of both kinds, fifos, owners, modes, attributes and times.
func grow(t *testing.T, r *rand.Rand, dir string) (names []string) {
	t.Helper()
	pieces := []string{"a", "b", "a.b", "a b", "a-", "ab", "A", "é", "\xff", "z\n", "x"}
	dirs, files := []string{"."}, []string{}
	taken := map[string]bool{}
	for range 40 + r.IntN(120) {
		in := dirs[r.IntN(len(dirs))]
		name := pieces[r.IntN(len(pieces))]
		if r.IntN(2) == 0 {
			name += fmt.Sprint(r.IntN(30))
		}
		if in != "." {
			name = in + "/" + name
		}
		if taken[name] {
			continue
		}
		taken[name] = true
		path := filepath.Join(dir, name)
		switch kind := r.IntN(20); {
		case kind < 6:
			must(t, os.Mkdir(path, 0o755))
			dirs = append(dirs, name)
		case kind < 8 && len(files) > 0:
			must(t, os.Link(filepath.Join(dir, files[r.IntN(len(files))]), path))
		case kind == 8:
			must(t, os.Symlink([]string{"/etc/passwd", "..", name}[r.IntN(3)], path))
		case kind == 9:
			must(t, unix.Mkfifo(path, 0o600))
		case kind == 10:
			disktest.Sparse(t, path, 1<<20+int64(r.IntN(3<<20)), int64(r.IntN(200))*4096)
			files = append(files, name)
		default:
			data := make([]byte, []int{0, 1, 511, 512, 5000, 5001, 60_000, 60_001, 300_000, 300_001, 1 << 20, 1_200_001}[r.IntN(12)])
			_, _ = rand.NewChaCha8([32]byte{byte(r.Uint32()), byte(r.Uint32())}).Read(data)
			must(t, os.WriteFile(path, data, 0o600))
			files = append(files, name)
		}
		names = append(names, name)
	}
	for _, name := range append(slices.Clone(names), ".") {
		decorate(t, r, filepath.Join(dir, name))
	}
	slices.Sort(names)
	return names
}

func decorate(t *testing.T, r *rand.Rand, path string) {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	must(t, os.Lchown(path, r.IntN(3)*1000, r.IntN(3)*1000))
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		must(t, unix.Chmod(path, uint32([]int{0o600, 0o644, 0o4755, 0o2755, 0}[r.IntN(5)])))
	case unix.S_IFDIR:
		must(t, unix.Chmod(path, uint32([]int{0o700, 0o755, 0o1777, 0o2750}[r.IntN(4)])))
	}
	if kind := st.Mode & unix.S_IFMT; r.IntN(4) == 0 && (kind == unix.S_IFREG || kind == unix.S_IFDIR) {
		must(t, unix.Setxattr(path, "user.snap", []byte(fmt.Sprint(r.Uint32())), 0))
	}
	at := unix.Timespec{Sec: int64(r.IntN(2_000_000_000)) - 100, Nsec: int64(r.IntN(1_000_000_000))}
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW))
}

// peer has GNU tar make the chosen names, and the directories above them.
func peer(t *testing.T, live string, names []string, into string) {
	t.Helper()
	want := map[string]bool{".": true}
	for _, name := range names {
		for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
			want[dir] = true
		}
		must(t, filepath.WalkDir(filepath.Join(live, name), func(path string, _ fs.DirEntry, err error) error {
			rel, relErr := filepath.Rel(live, path)
			want[rel] = true
			return errors.Join(err, relErr)
		}))
	}
	var sorted []string
	for name := range want {
		sorted = append(sorted, name)
	}
	slices.SortFunc(sorted, tarstream.Order)
	must(t, os.Mkdir(into, 0o700))
	listed, archived := into+".list", into+".tar"
	must(t, os.WriteFile(listed, []byte(strings.Join(sorted, "\x00")+"\x00"), 0o600))
	disktest.Run(t, "tar", "-C", live, "--no-recursion", "--null", "--verbatim-files-from", "-T", listed, "--format=posix", "--xattrs", "--xattrs-include=user.*", "-S", "-cf", archived)
	disktest.Run(t, "tar", "-C", into, "-xpf", archived, "--same-owner", "--numeric-owner", "--xattrs", "--xattrs-include=user.*")
}

// Any subset of any tree is what GNU tar makes of the same names, metadata included: by the
// index of the capture, by that of the stream, and where members begin anywhere.
func TestASubsetIsWhatTarMakesOfTheSameNames(t *testing.T) {
	disktest.Need(t, "tar")
	dir := disktest.Mount(t, "ext4", 512)
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 77))
		world := filepath.Join(dir, fmt.Sprint(seed))
		live := filepath.Join(world, "live")
		must(t, os.MkdirAll(live, 0o755))
		names := grow(t, r, live)
		s := capture(t, live)
		cut := s.cut(t, r)
		for try := range 4 {
			var chosen []string
			for range 1 + r.IntN(6) {
				chosen = append(chosen, names[r.IntN(len(names))])
			}
			if try == 0 { // all of it
				chosen = names
			}
			tag := filepath.Join(world, fmt.Sprint(try))
			peer(t, live, chosen, tag+"-tar")
			want := disktest.Tree(t, tag+"-tar")
			for how, x := range map[string]struct {
				*stream
				part.Index
			}{
				"index": {s, s.index()}, "scan": {s, part.Scan(t.Context(), s, s.members)}, "cut": {cut, part.Scan(t.Context(), cut, cut.members)},
			} {
				found, got, err := x.extract(t, x.Index, chosen, tag+how)
				if err != nil || len(found.Missing) > 0 {
					t.Fatalf("seed %d, %s, %q: missing %v, error %v", seed, how, chosen, found.Missing, err)
				}
				if got != found.Stats {
					t.Errorf("seed %d, %s, %q: extracted %+v, announced %+v", seed, how, chosen, got, found.Stats)
				}
				disktest.Same(t, fmt.Sprintf("seed %d, %s, %q", seed, how, chosen), want, disktest.Tree(t, tag+how))
			}
		}
		must(t, os.RemoveAll(world))
	}
}

// The lines that the stream gives are those of the capture's index.
func TestAScanSaysWhatTheIndexSays(t *testing.T) {
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 5))
		live := t.TempDir()
		grow(t, r, live)
		s := capture(t, live)
		lines, err := part.Scan(t.Context(), s, s.members)()
		must(t, err)
		defer lines.Close()
		for i := range s.lines {
			want := &s.lines[i]
			got, err := lines.Next()
			must(t, err)
			end := i == len(s.lines)-1 // the last may be followed by a member of the archive's end
			if got.Name != want.Name || got.Type != want.Type || got.Size != want.Size || got.Data != want.Data || got.Member != want.Member || got.Span != want.Span && !end {
				t.Fatalf("seed %d: line %d is %+v, the index says %+v", seed, i, got, want)
			}
		}
		if _, err := lines.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("seed %d: after the last line: %v", seed, err)
		}
	}
}

// For one file of a large volume only the members are read that hold it, and those with the
// directories above it. A file of 20 kB is a member of its own.
func TestOneFileReadsOnlyItsMembers(t *testing.T) {
	live := t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) string {
		b := make([]byte, n)
		_, _ = rand.NewChaCha8([32]byte{byte(r.Uint32()), byte(r.Uint32()), 3}).Read(b)
		return string(b)
	}
	files := map[string]string{}
	for i := range 400 {
		files[fmt.Sprintf("d%02d/f%03d", i%20, i)] = noise(20_000)
	}
	for i := range 5 {
		files[fmt.Sprintf("d%02d/large", i)] = noise(5 << 20)
	}
	files["d19/deep/er/small"] = "small"
	disktest.Write(t, live, files)
	must(t, os.Link(filepath.Join(live, "d03/large"), filepath.Join(live, "zz")))
	s := capture(t, live)
	if len(s.members) < 50 {
		t.Fatalf("only %d members: too few to tell anything", len(s.members))
	}
	for name, most := range map[string]int{
		"d07/f007": 3, "d03/large": 3 + 5, "d19/deep/er/small": 5, "d12": 1 + 20 + 1, "zz": 2 + 1 + 5,
	} {
		clear(s.opened)
		out := filepath.Join(t.TempDir(), "out")
		found, _, err := s.extract(t, s.index(), []string{name}, out)
		must(t, err)
		if len(s.opened) > most || len(s.opened) == 0 {
			t.Errorf("%s: %d of %d members were read, expected at most %d", name, len(s.opened), len(s.members), most)
		}
		if named := len(found.Members(s.members)); named < len(s.opened) {
			t.Errorf("%s: %d members were read, %d were named before", name, len(s.opened), named)
		}
		if want, ok := files[name]; ok {
			got, err := os.ReadFile(filepath.Join(out, name))
			if err != nil || string(got) != want {
				t.Errorf("%s: another content, error %v", name, err)
			}
		}
	}
	// Where there is no index, what is nothing but content is still left alone, but for what
	// was read ahead.
	disktest.Write(t, live, map[string]string{"d00/huge": counted(40 << 20)})
	s = capture(t, live)
	choice, err := part.Choose([]string{"d00/f000"})
	must(t, err)
	_, err = choice.Find(part.Scan(t.Context(), s, s.members), len(s.members))
	must(t, err)
	if len(s.opened) > len(s.members)-40+12 {
		t.Errorf("a scan read %d of %d members, 40 of which are nothing but content", len(s.opened), len(s.members))
	}
}

// Whatever is wrong in an index, it never makes a tree that differs in silence.
func TestAnIndexThatLiesIsNeverBelieved(t *testing.T) {
	dir := t.TempDir()
	lies := 0
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 99))
		world := filepath.Join(dir, fmt.Sprint(seed))
		live := filepath.Join(world, "live")
		must(t, os.MkdirAll(live, 0o755))
		names := grow(t, r, live)
		s := capture(t, live)
		for try := range 40 {
			chosen := []string{names[r.IntN(len(names))], names[r.IntN(len(names))]}
			tag := filepath.Join(world, fmt.Sprint(try))
			if _, _, err := s.extract(t, s.index(), chosen, tag+"-right"); err != nil {
				t.Fatal(err)
			}
			lying := slices.Clone(s.lines)
			at := r.IntN(len(lying))
			switch r.IntN(6) {
			case 0:
				lying[at].Member += r.IntN(7) - 3
			case 1:
				lying[at].Span = r.IntN(4)
			case 2:
				lying = slices.Delete(lying, at, min(at+1+r.IntN(4), len(lying)))
			case 3:
				for i := at; i < len(lying); i++ {
					lying[i].Member++
				}
			case 4:
				lying[at].Type = []archive.Type{archive.Regular, archive.Directory, archive.Hardlink, archive.Symlink}[r.IntN(4)]
				lying[at].Link = names[r.IntN(len(names))]
			case 5:
				lying[at].Name, lying[(at+1)%len(lying)].Name = lying[(at+1)%len(lying)].Name, lying[at].Name
			}
			found, _, err := s.extract(t, indexOf(lying), chosen, tag+"-lied")
			switch {
			case errors.Is(err, part.ErrMismatch), errors.Is(err, archive.ErrRefused), err == nil && len(found.Missing) > 0:
				lies++
			case err != nil:
				t.Fatalf("seed %d.%d: %v", seed, try, err)
			default:
				disktest.Same(t, fmt.Sprintf("seed %d.%d, %q", seed, try, chosen), disktest.Tree(t, tag+"-right"), disktest.Tree(t, tag+"-lied"))
			}
			must(t, os.RemoveAll(tag+"-right"))
			must(t, os.RemoveAll(tag+"-lied"))
		}
	}
	if lies < 40 {
		t.Errorf("only %d of the lies mattered", lies)
	}
}

// The lies that would make a part of what was chosen, if the stream were not asked: an index
// that leaves out the middle, the end or all of a directory, or sends the reader elsewhere.
func TestAnIndexCannotMakeAPartLookWhole(t *testing.T) {
	live := t.TempDir()
	files := map[string]string{"a": "a", "zz": "zz"}
	for i := range 120 {
		files[fmt.Sprintf("dir/%03d", i)] = counted(20_000 + i)
	}
	disktest.Write(t, live, files)
	must(t, os.Link(filepath.Join(live, "dir/050"), filepath.Join(live, "link")))
	s := capture(t, live)
	if n := len(s.members); n < 12 {
		t.Fatalf("only %d members", n)
	}
	change := func(do func(l *archive.Line) (keep bool)) (lines []archive.Line) {
		for _, l := range s.lines {
			if do(&l) {
				lines = append(lines, l)
			}
		}
		return lines
	}
	within := func(l *archive.Line, from, to string) bool { return l.Name >= from && l.Name < to }
	elsewhere := func(name string, by int) []archive.Line {
		return change(func(l *archive.Line) bool {
			if l.Name == name {
				l.Member = max(l.Member+by, 0)
			}
			return true
		})
	}
	for what, lie := range map[string]struct {
		chosen string
		lines  []archive.Line
	}{
		"the middle is left out":         {"dir", change(func(l *archive.Line) bool { return !within(l, "dir/030", "dir/090") })},
		"the end is left out":            {"dir", change(func(l *archive.Line) bool { return !within(l, "dir/030", "dir0") && l.Name < "e" })},
		"all of it is left out":          {"dir", change(func(l *archive.Line) bool { return !within(l, "dir/", "dir0") && l.Name < "e" })},
		"it is said to be a file":        {"dir", change(func(l *archive.Line) bool { l.Type = archive.Regular; return !within(l, "dir/", "dir0") })},
		"a file is before":               {"zz", elsewhere("zz", -len(s.members))},
		"a file is said to be elsewhere": {"dir/060", elsewhere("dir/060", -1)},
		"all is further on": {"dir/060", change(func(l *archive.Line) bool {
			if l.Name >= "dir/050" {
				l.Member = min(l.Member+2, len(s.members)-1)
			}
			return true
		})},
		"the directory above is elsewhere": {"dir/060", elsewhere("dir", 1)},
		"the first name is elsewhere":      {"link", elsewhere("dir/050", -1)},
		"the first name is another": {"link", change(func(l *archive.Line) bool {
			if l.Name == "link" {
				l.Link = "a"
			}
			return true
		})},
	} {
		right, out := filepath.Join(t.TempDir(), "right"), filepath.Join(t.TempDir(), "out")
		_, _, err := s.extract(t, s.index(), []string{lie.chosen}, right)
		must(t, err)
		found, _, err := s.extract(t, indexOf(lie.lines), []string{lie.chosen}, out)
		if errors.Is(err, part.ErrMismatch) || errors.Is(err, archive.ErrRefused) {
			continue
		}
		if d := disktest.Diff(disktest.Tree(t, right), disktest.Tree(t, out)); err != nil || d != "" { // to find it all the same is no harm
			t.Errorf("%s: error %v, found %+v\n%s", what, err, found, d)
		}
	}
}

// A damaged member that the choice does not need is not in its way, and one that it needs is.
func TestDamageElsewhereIsNotInTheWay(t *testing.T) {
	live := t.TempDir()
	disktest.Write(t, live, map[string]string{"a": strings.Repeat("a", 300_000), "b": strings.Repeat("b", 300_000), "c/d": "d"})
	s := capture(t, live)
	for _, l := range s.lines {
		if l.Name == "a" {
			s.stored[s.members[l.Member+1].ID] = []byte("damage")
		}
	}
	_, _, err := s.extract(t, s.index(), []string{"b", "c"}, filepath.Join(t.TempDir(), "out"))
	must(t, err)
	if _, _, err = s.extract(t, s.index(), []string{"a"}, filepath.Join(t.TempDir(), "out")); !errors.Is(err, archive.ErrRefused) {
		t.Errorf("a damaged file was extracted: %v", err)
	}
}

// What is no plain path is refused, and what a volume may hold is not.
func TestOnlyPlainPathsAreChosen(t *testing.T) {
	for _, bad := range []string{"", "/", "/a", "a//b", "a//", "..", "../a", "a/..", "a/../b", ".", "./a", "a/.", "a\x00b", strings.Repeat("x", 256), strings.Repeat("a/", 1001)} {
		if _, err := part.Choose([]string{"good", bad}); !errors.Is(err, part.ErrName) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, good := range []string{"a", "a/", "a/b", "...", "a b", "\xff", "-", "a\nb", "~"} {
		if _, err := part.Choose([]string{good}); err != nil {
			t.Error(err)
		}
	}
}

// What is missing is named, with names that resemble it and the directory that is there.
func TestAMissingNameHasNeighbours(t *testing.T) {
	live := t.TempDir()
	disktest.Write(t, live, map[string]string{"etc/app/config.yml": "c", "etc/other": "o", "README": "r", "img/logo.png": "l", "file": "f"})
	s := capture(t, live)
	for wanted, want := range map[string]part.Missing{
		"config.yml":          {In: ".", Near: []string{"etc/app/config.yml"}},
		"etc/app/confg.yml":   {In: "etc/app", Near: []string{"etc/app/config.yml"}},
		"readme":              {In: ".", Near: []string{"README"}},
		"images/logo.png":     {In: ".", Near: []string{"img/logo.png"}},
		"file/below":          {In: "file", Near: nil},
		"etc/nothing-like-it": {In: "etc", Near: nil},
	} {
		found, _, err := s.extract(t, s.index(), []string{wanted}, filepath.Join(t.TempDir(), "out"))
		must(t, err)
		want.Name = wanted
		if len(found.Missing) != 1 || fmt.Sprint(found.Missing[0]) != fmt.Sprint(want) {
			t.Errorf("%+v, expected %+v", found.Missing, want)
		}
	}
}

// Forged streams are refused, and nothing is made outside.
func TestAForgedStreamIsRefused(t *testing.T) {
	var honest archivetest.Forge
	honest.Root()
	honest.Dir("a")
	honest.File("a/x", "1")
	honest.File("a/y", "2")
	honest.File("c", "3")
	honest.End()
	lines := linesOf(t, honest.Bytes())
	for name, forge := range map[string]func(f *archivetest.Forge){
		"a name twice": func(f *archivetest.Forge) {
			f.Dir("a")
			f.File("a/x", "1")
			f.File("a/x", "1")
			f.File("c", "3")
			f.End()
		},
		"back in a before": func(f *archivetest.Forge) {
			f.Dir("a")
			f.File("a/x", "1")
			f.File("c", "3")
			f.File("a/y", "2")
			f.End()
		},
		"c comes first":    func(f *archivetest.Forge) { f.File("c", "3"); f.Dir("a"); f.File("a/x", "1"); f.End() },
		"no directory":     func(f *archivetest.Forge) { f.File("a/x", "1"); f.File("c", "3"); f.End() },
		"a is a link":      func(f *archivetest.Forge) { f.Soft("a", "/etc"); f.File("a/x", "1"); f.File("c", "3"); f.End() },
		"a link to a link": func(f *archivetest.Forge) { f.Dir("a"); f.Soft("b", "/etc/passwd"); f.Link("c", "b"); f.End() },
		"a link forward":   func(f *archivetest.Forge) { f.Dir("a"); f.Link("c", "d"); f.End() },
		"no end":           func(f *archivetest.Forge) { f.Dir("a"); f.File("a/x", "1") },
		"after the end":    func(f *archivetest.Forge) { f.Dir("a"); f.File("c", "3"); f.End(); f.File("d", "4") },
	} {
		var f archivetest.Forge
		f.Root()
		forge(&f)
		s := whole(t, f.Bytes())
		for how, index := range map[string]part.Index{"scan": part.Scan(t.Context(), s, s.members), "index": indexOf(lines)} {
			found, _, err := s.extract(t, index, []string{"a", "c"}, filepath.Join(t.TempDir(), "out"))
			if err == nil && len(found.Missing) == 0 {
				t.Errorf("%s, by %s: it was extracted", name, how)
			}
		}
	}
}

// whole is a stream of one member.
func whole(t *testing.T, tar []byte) *stream {
	t.Helper()
	s := newStream()
	m, err := s.Put(bytes.Clone(tar))
	must(t, err)
	s.members, s.stats = []archive.Member{m}, archive.Stats{Files: 99, Dirs: 99, Bytes: 1 << 20, Depth: 9}
	return s
}

func linesOf(t *testing.T, tar []byte) (all []archive.Line) {
	t.Helper()
	s := whole(t, tar)
	lines, err := part.Scan(t.Context(), s, s.members)()
	must(t, err)
	defer lines.Close()
	for {
		l, err := lines.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		must(t, err)
		all = append(all, *l)
	}
}

// counted returns at least n bytes of text in which no line comes twice.
func counted(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%032d\n", i)
	}
	return b.String()
}
