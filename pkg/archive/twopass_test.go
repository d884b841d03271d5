package archive_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// reading is one pass over a directory.
type reading struct {
	result *archive.Result
	lines  []*archive.Line
}

// read makes a pass that knows what an earlier pass saw, and calls seen after each line.
func read(t *testing.T, dir string, sink *memory, earlier *reading, since archive.Timespec, seen func(n int)) *reading {
	t.Helper()
	r := &reading{}
	opt := archive.WriteOptions{Once: seen != nil, Index: func(l *archive.Line) error {
		line := *l
		r.lines = append(r.lines, &line)
		if seen != nil {
			seen(len(r.lines))
		}
		return nil
	}}
	if earlier != nil {
		opt.Known = known(sink, earlier, since)
	}
	var err error
	if r.result, err = archive.Write(context.Background(), open(t, dir), sink, opt); err != nil {
		t.Fatal(err)
	}
	return r
}

// known returns what a reading saw, as the store would return it.
func known(sink *memory, earlier *reading, since archive.Timespec) *archive.Known {
	next := 0
	return &archive.Known{
		Members: earlier.result.Members, Since: since,
		Next: func() (*archive.Line, error) {
			if next == len(earlier.lines) {
				return nil, io.EOF
			}
			next++
			return earlier.lines[next-1], nil
		},
		Reuse: func(m archive.Member) (archive.Member, bool, error) {
			return m, sink.has(m.ID), nil
		},
	}
}

func ago(d time.Duration) archive.Timespec {
	at := time.Now().Add(-d)
	return archive.Timespec{Sec: at.Unix(), Nsec: int64(at.Nanosecond())}
}

// TestTwoPassesGiveTheFrozenTree runs random schedules of a writer that changes a tree
// before and during the first pass, in every way that is known to deceive. The second
// pass relies on times. Its result must be the same as that of a pass that reads
// everything.
func TestTwoPassesGiveTheFrozenTree(t *testing.T) {
	all := 600
	if s := os.Getenv("SNAP_TEST_SCHEDULES"); s != "" {
		var err error
		if all, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("%d schedules, seed %d", all, seed)
	disktest.EachFS(t, func(t *testing.T, dir string) {
		const batch = 100
		var reused, names int64
		for at := 0; at < all/3; at += batch {
			var list []*schedule
			for i := range min(batch, all/3-at) {
				list = append(list, newSchedule(t, filepath.Join(dir, strconv.Itoa(i)), rand.New(rand.NewPCG(seed, uint64(at+i)))))
			}
			time.Sleep(1100 * time.Millisecond) // after that an untouched file is not hot
			for i, s := range list {
				r, n := s.run(t)
				reused, names = reused+r, names+n
				if t.Failed() {
					t.Fatalf("schedule %d of seed %d: %v", at+i, seed, s.did)
				}
				if err := os.RemoveAll(s.dir); err != nil {
					t.Fatal(err)
				}
			}
		}
		if reused < names/10 {
			t.Errorf("only %d of %d names were not read again", reused, names)
		}
	})
}

// schedule is a tree, and the changes to it, each before a line of the first pass.
type schedule struct {
	dir    string
	random *rand.Rand
	files  []string
	maps   map[string][]byte
	did    []string
	fresh  int
}

func newSchedule(t *testing.T, dir string, random *rand.Rand) *schedule {
	s := &schedule{dir: dir, random: random, maps: map[string][]byte{}}
	for _, d := range []string{"a", "b", "b/c", "d"} {
		mkdir(t, filepath.Join(dir, d))
		for i := range 4 {
			size := 1 + random.IntN(3000)
			if random.IntN(5) == 0 {
				size = 257<<10 + random.IntN(5000)
			}
			if random.IntN(4) == 0 {
				size = 120 << 10 // so that groups end
			}
			s.files = append(s.files, fmt.Sprintf("%s/%d", d, i))
			s.try(os.WriteFile(s.path(len(s.files)-1), s.bytes(size), 0o644))
		}
	}
	s.try(os.Link(s.path(0), filepath.Join(dir, "d/link")))
	s.try(os.Symlink("a/0", filepath.Join(dir, "sym")))
	for range random.IntN(4) { // mapped, and mostly dirty, before the first pass begins
		i := random.IntN(len(s.files))
		s.mapped(i)
		if random.IntN(3) > 0 {
			s.store(i)
		}
	}
	return s
}

func (s *schedule) try(err error) {
	if err != nil {
		s.did = append(s.did, err.Error())
	}
}

func (s *schedule) path(i int) string { return filepath.Join(s.dir, s.files[i]) }

func (s *schedule) bytes(n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += 97 {
		b[i] = byte(s.random.Uint32())
	}
	return b
}

func (s *schedule) mapped(i int) []byte {
	if b := s.maps[s.files[i]]; b != nil {
		return b
	}
	f, err := os.OpenFile(s.path(i), os.O_RDWR, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil
	}
	s.maps[s.files[i]] = b
	return b
}

func (s *schedule) store(i int) {
	if b := s.mapped(i); b != nil {
		b[0]++
	}
}

func (s *schedule) run(t *testing.T) (reused, names int64) {
	defer func() {
		for _, b := range s.maps {
			_ = unix.Munmap(b)
		}
	}()
	sink := newMemory()
	since := ago(time.Second)
	if err := open(t, s.dir).SyncFS(); err != nil {
		t.Fatal(err)
	}
	steps := map[int]int{}
	for range 1 + s.random.IntN(5) {
		steps[s.random.IntN(24)]++
	}
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() { // one file changes while it is read
		defer close(done)
		f, err := os.OpenFile(filepath.Join(s.dir, "b/c/1"), os.O_WRONLY, 0)
		if err != nil {
			return
		}
		defer f.Close()
		for n := byte(0); ; n++ {
			select {
			case <-stop:
				return
			default:
				_, _ = f.WriteAt([]byte{n}, 0)
			}
		}
	}()
	if s.random.IntN(4) > 0 {
		close(stop)
		<-done
		stop = nil
	}
	// Repeated stores to a page change the times only once.
	busy, rate := s.random.IntN(len(s.files)), s.random.IntN(3)
	first := read(t, s.dir, sink, nil, since, func(n int) {
		if rate > 0 && s.random.IntN(3) < rate {
			s.store(busy)
		}
		for range steps[n] {
			s.act()
		}
	})
	for range steps[0] {
		s.act()
	}
	if rate > 0 {
		s.store(busy)
	}
	if stop != nil {
		close(stop)
		<-done
	}
	// Nothing writes from here on.
	second := read(t, s.dir, sink, first, since, nil)
	truth := read(t, s.dir, newMemory(), first, archive.Timespec{}, nil) // its cuts are those of the first
	if !reflect.DeepEqual(second.result.Members, truth.result.Members) || second.result.Stats != truth.result.Stats {
		t.Errorf("the second pass gives another tree: %+v, not %+v", second.result.Stats, truth.result.Stats)
		for i := range min(len(second.lines), len(truth.lines)) {
			if !reflect.DeepEqual(bare(second.lines[i]), bare(truth.lines[i])) {
				t.Errorf("%+v, not %+v", second.lines[i], truth.lines[i])
			}
		}
	}
	return second.result.Reused, second.result.Stats.Entries()
}

// bare returns a line without the fields that the index does not record.
func bare(l *archive.Line) archive.Line {
	out := *l
	out.Xattrs, out.Extents = nil, nil
	return out
}

// act makes one change to the tree.
func (s *schedule) act() {
	i, j := s.random.IntN(len(s.files)), s.random.IntN(len(s.files))
	path, other := s.path(i), s.path(j)
	s.fresh++
	temp := filepath.Join(s.dir, fmt.Sprintf("new%d", s.fresh))
	info, err := os.Stat(path)
	if err != nil {
		return
	}
	back := func(p string) { s.try(os.Chtimes(p, info.ModTime(), info.ModTime())) }
	acts := []struct {
		name string
		do   func()
	}{
		{"same size", func() { s.overwrite(path, info) }},
		{"same size, mtime back", func() { s.overwrite(path, info); back(path) }},
		{"mapped store", func() { s.store(i) }},
		{"mapped stores", func() { s.store(i); s.store(i); s.store(j) }},
		{"rename over", func() {
			s.try(os.WriteFile(temp, s.bytes(int(info.Size())), info.Mode()))
			back(temp)
			s.try(os.Rename(temp, path))
		}},
		{"rename another over", func() { s.try(os.Rename(other, path)) }},
		{"swap", func() { s.try(unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)) }},
		{"hardlink swap", func() {
			s.try(os.Link(path, temp))
			s.try(os.Rename(other, path))
			s.try(os.Rename(temp, other))
		}},
		{"hardlink", func() { s.try(os.Link(path, temp)) }},
		{"truncate and extend", func() {
			s.try(os.Truncate(path, info.Size()/2))
			s.try(os.Truncate(path, info.Size()))
			back(path)
		}},
		{"another inode of the same number", func() {
			s.try(os.Remove(path))
			s.try(os.WriteFile(path, s.bytes(int(info.Size())), info.Mode()))
			back(path)
		}},
		{"remove", func() { s.try(os.Remove(path)) }},
		{"add", func() {
			s.try(os.WriteFile(filepath.Join(filepath.Dir(path), filepath.Base(temp)), s.bytes(100), 0o600))
		}},
		{"chmod", func() { s.try(os.Chmod(path, 0o600)) }},
		{"attribute", func() { s.try(unix.Setxattr(path, "user.a", s.bytes(9), 0)) }},
		{"directory moved", func() { s.try(os.Rename(filepath.Join(s.dir, "a"), filepath.Join(s.dir, "e"))) }},
		{"directories swapped", func() {
			s.try(unix.Renameat2(unix.AT_FDCWD, filepath.Join(s.dir, "a"), unix.AT_FDCWD, filepath.Join(s.dir, "d"), unix.RENAME_EXCHANGE))
		}},
		{"the last removed", func() { s.try(os.Remove(filepath.Join(s.dir, "sym"))) }},
		{"symlink", func() {
			s.try(os.Remove(filepath.Join(s.dir, "sym")))
			s.try(os.Symlink("a/1", filepath.Join(s.dir, "sym")))
		}},
	}
	act := acts[s.random.IntN(len(acts))]
	s.did = append(s.did, act.name+" "+s.files[i])
	act.do()
}

func (s *schedule) overwrite(path string, info os.FileInfo) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	_, err = f.WriteAt(s.bytes(1+s.random.IntN(int(info.Size()))), 0)
	s.try(err)
}

// TestACloneHasTheContentOfTheWalk writes to a file between the two halves of a
// capture.
func TestACloneHasTheContentOfTheWalk(t *testing.T) {
	for fstype, clones := range map[string]bool{"xfs": true, "btrfs": true, "ext4": false} {
		t.Run(fstype, func(t *testing.T) {
			dir := disktest.Mount(t, fstype, 512)
			live := mkdir(t, filepath.Join(dir, "live"))
			random := rand.New(rand.NewPCG(1, 2))
			s := &schedule{dir: live, random: random}
			for name, size := range map[string]int{"a": 3<<20 + 17, "b": 1 << 20, "small": 1000, "z": 300 << 10} {
				if err := os.WriteFile(filepath.Join(live, name), s.bytes(size), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			// Holes, and a file of which nothing is data.
			if err := os.Truncate(filepath.Join(live, "b"), 5<<20); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(live, "hollow"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(filepath.Join(live, "hollow"), 1<<20); err != nil {
				t.Fatal(err)
			}
			want := read(t, live, newMemory(), nil, archive.Timespec{}, nil)
			sink := newMemory()
			walk, err := archive.Start(t.Context(), open(t, live), sink, archive.WriteOptions{Clones: open(t, dir)})
			if err != nil {
				t.Fatal(err)
			}
			if put := walk.Cloned(); clones != (put == 3<<20+17+1<<20+300<<10) {
				t.Errorf("%s: %d bytes are to be read from clones", fstype, put)
			}
			for _, name := range []string{"a", "b", "z"} { // thawed
				if err := os.WriteFile(filepath.Join(live, name), []byte("later"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := walk.Finish()
			if err != nil {
				t.Fatal(err)
			}
			if same := reflect.DeepEqual(got.Members, want.result.Members) && got.Stats == want.result.Stats; !same {
				t.Errorf("%s: the stream is not that of the walk: %+v, %+v", fstype, got.Stats, want.result.Stats)
			}
			names, err := os.ReadDir(dir)
			if err != nil || len(names) > 2 { // ext4 has a lost+found
				t.Errorf("beside the volume: %v, %v", names, err)
			}
		})
	}
}

// When the index fails while a group is reused, the inodes of the group are closed once.
// A second close would hit whatever has been opened since under the same number.
func TestAFailingIndexClosesNoDescriptorTwice(t *testing.T) {
	live := t.TempDir()
	disktest.Write(t, live, map[string]string{"a": "1", "b": "2", "c": "3"})
	sink := newMemory()
	first := read(t, live, sink, nil, archive.Timespec{}, nil)
	failure := errors.New("the index failed")
	lines := 0
	var opened *os.File
	_, err := archive.Write(t.Context(), open(t, live), sink, archive.WriteOptions{
		Known: known(sink, first, ago(-time.Minute)), Index: func(*archive.Line) (err error) {
			if lines++; lines < len(first.lines) {
				return nil
			}
			opened, err = os.Open(live)
			must(t, err)
			return failure
		},
	})
	if !errors.Is(err, failure) {
		t.Fatalf("the capture returned %v", err)
	}
	if _, err := opened.Stat(); err != nil {
		t.Errorf("the descriptor that the index opened was closed: %v", err)
	}
	opened.Close()
}
