package archive_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/archivetest"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// namer is a sink that stores nothing and only returns the members.
type namer struct{}

func (namer) Put(tar []byte) (archive.Member, error) {
	return archive.Member{ID: archive.MemberID(tar), Tar: int64(len(tar))}, nil
}

func cut(t *testing.T, dir string) *archive.Result {
	t.Helper()
	result, err := archive.Write(context.Background(), open(t, dir), namer{}, archive.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// anew returns how many bytes of members the second capture stores that the first did
// not store.
func anew(first, second *archive.Result) (sum int64) {
	have := map[string]bool{}
	for _, m := range first.Members {
		have[m.ID] = true
	}
	for _, m := range second.Members {
		if !have[m.ID] {
			sum += m.Tar
		}
	}
	return sum
}

// The three groups are the one with the name, the next one, and the one with the header
// of the directory, whose time changes too. None is larger than half a MiB.
const threeGroups = 3 << 19

func TestAnAddedOrRemovedFileRewritesAtMostThreeGroups(t *testing.T) {
	live := t.TempDir()
	files := map[string]string{}
	for i := range 5000 {
		files[fmt.Sprintf("d%d/%08x", i%5, uint32(i)*2654435761)] = strings.Repeat(fmt.Sprintln(i), 20+i%100)
	}
	disktest.Write(t, live, files)
	last := cut(t, live)
	var total int64
	for _, m := range last.Members {
		total += m.Tar
	}
	step := func(what string, change func() error) {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		now := cut(t, live)
		sum := anew(last, now)
		if sum == 0 || sum > threeGroups {
			t.Errorf("%s: %d of %d bytes stored anew, at most %d", what, sum, total, threeGroups)
		}
		t.Logf("%s: %d of %d bytes", what, sum, total)
		last = now
	}
	for _, dir := range []string{"d0", "d2"} {
		for _, name := range []string{"0", "zz"} {
			path := filepath.Join(live, dir, name)
			step("add "+dir+"/"+name, func() error { return os.WriteFile(path, []byte("new"), 0o600) })
			step("rename "+dir+"/"+name, func() error { return os.Rename(path, path+"1") })
			step("remove "+dir+"/"+name, func() error { return os.Remove(path + "1") })
		}
	}
}

func TestALargeFileSharesWhatDidNotChange(t *testing.T) {
	live := t.TempDir()
	disktest.Write(t, live, map[string]string{"a": "a", "z": "z"})
	large := filepath.Join(live, "large")
	var content strings.Builder
	for i := range 1 << 20 {
		fmt.Fprintf(&content, "%07d\n", i) // 8 MiB, no two pieces alike
	}
	if err := os.WriteFile(large, []byte(content.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	last := cut(t, live)
	for _, c := range []struct {
		what   string
		change func() error
		most   int64
	}{
		{"only its mode", func() error { return os.Chmod(large, 0o644) }, 8 << 10},
		{"only its owner", func() error { return os.Chown(large, 1, 1) }, 8 << 10},
		{"a file before it grows", func() error { return os.WriteFile(live+"/a", make([]byte, 10_000), 0o600) }, 32 << 10},
		{"one byte in the middle", func() error { return patch(large, 5<<20+1, "x") }, 1<<20 + 32<<10},
		{"a byte at its end", func() error { return patch(large, 8<<20, "x") }, 32 << 10},
	} {
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
		now := cut(t, live)
		if sum := anew(last, now); sum == 0 || sum > c.most {
			t.Errorf("%s: %d bytes stored anew, at most %d", c.what, sum, c.most)
		}
		last = now
	}
}

func patch(path string, at int64, s string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte(s), at)
	return err
}

func TestNoMemberIsLargerThanAMemberMayBe(t *testing.T) {
	live := t.TempDir()
	disktest.Write(t, live, map[string]string{"large": strings.Repeat("x", 5<<20), "edge": strings.Repeat("x", 256<<10)})
	for i := range 30 {
		disktest.Write(t, live, map[string]string{fmt.Sprint("near", i): strings.Repeat("x", 256<<10)})
	}
	result := cut(t, live)
	for _, m := range result.Members {
		if m.Tar > 2<<20 {
			t.Errorf("member of %d bytes", m.Tar)
		}
	}
}

// With more extents than a map may have, the content is the same, and Extract accepts
// the map.
func TestAFileWithMoreExtentsThanAMapHoldsIsRestored(t *testing.T) {
	dir := disktest.Mount(t, "ext4", 300) // blocks of 1 KiB
	live := mkdir(t, dir+"/live")
	f, err := os.Create(live + "/holey")
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(1<<16 + 100) {
		if _, err := f.WriteAt([]byte{byte(i), byte(i >> 8), 'x'}, i*2048); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	stretches := 0
	m, result := capture(t, live, archive.WriteOptions{Index: func(l *archive.Line) error {
		stretches = max(stretches, len(l.Extents))
		return nil
	}})
	if stretches == 0 || stretches > 1<<16 {
		t.Fatalf("the map has %d stretches", stretches)
	}
	if err := os.Remove(live + "/holey"); err != nil { // room for the copy
		t.Fatal(err)
	}
	staged := mkdir(t, dir+"/staged")
	opt := archivetest.Limits()
	opt.MaxBytes = result.Stats.Bytes
	r := archive.NewReader(context.Background(), m, result.Members)
	defer r.Close()
	if _, err := archive.Extract(context.Background(), r, open(t, staged), opt); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(staged + "/holey")
	if err != nil || int64(len(got)) != result.Stats.Bytes {
		t.Fatalf("%d bytes came back, %d were captured: %v", len(got), result.Stats.Bytes, err)
	}
	for i := range int64(1<<16 + 100) {
		if at := i * 2048; got[at] != byte(i) || got[at+1] != byte(i>>8) || got[at+2] != 'x' || at+3 < int64(len(got)) && got[at+3] != 0 {
			t.Fatalf("stretch %d came back as %q", i, got[at:at+4])
		}
	}
}

// stream returns the tar stream of a reading.
func stream(t *testing.T, sink *memory, r *archive.Result) []byte {
	t.Helper()
	src := archive.NewReader(context.Background(), sink, r.Members)
	defer src.Close()
	tar, err := rest(src)
	if err != nil {
		t.Fatal(err)
	}
	return tar
}

// randomBytes are n bytes that do not compress.
func randomBytes(n int, seed uint64) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// storedAnew returns how many bytes a reading stores that an earlier one did not.
func storedAnew(first, second *archive.Result) (sum int64) {
	have := map[string]bool{}
	for _, m := range first.Members {
		have[m.ID] = true
	}
	for _, m := range second.Members {
		if !have[m.ID] {
			sum += m.Stored
		}
	}
	return sum
}

// A night in which one file of 20 kB changes stores 20 kB, from the first time on. A
// small file costs its group the first time, and then only itself.
func TestAFileThatChangesCostsLittleMoreThanItself(t *testing.T) {
	for _, c := range []struct {
		name                      string
		size, firstTime, everTime int64
	}{
		{"files of 20 kB", 20_000, 22_000, 22_000},
		{"files of 5 kB", 5000, 512 << 10, 7000},
	} {
		t.Run(c.name, func(t *testing.T) {
			live := t.TempDir()
			for i := range 400 {
				disktest.Write(t, live, map[string]string{fmt.Sprintf("d%d/%03d", i%3, i): string(randomBytes(int(c.size), uint64(i)))})
			}
			sink := newMemory()
			last := read(t, live, sink, nil, archive.Timespec{}, nil)
			most := c.firstTime
			for night := range 4 {
				if err := os.WriteFile(filepath.Join(live, "d1/100"), randomBytes(int(c.size), uint64(1000+night)), 0o644); err != nil {
					t.Fatal(err)
				}
				now := read(t, live, sink, last, ago(-time.Minute), nil)
				sum := storedAnew(last.result, now.result)
				if sum < c.size || sum > most {
					t.Errorf("night %d: %d bytes stored for a file of %d, at most %d", night, sum, c.size, most)
				}
				last, most = now, c.everTime
			}
		})
	}
}

// Neighbours that change in the same night are stored together, and so are those that
// are new.
func TestNeighboursThatChangeTogetherAreOneGroup(t *testing.T) {
	live := t.TempDir()
	for i := range 400 {
		disktest.Write(t, live, map[string]string{fmt.Sprintf("%03d", i): strings.Repeat("x", 3000)})
	}
	sink := newMemory()
	last := read(t, live, sink, nil, archive.Timespec{}, nil)
	fresh := func(r *reading) (n int) {
		have := map[string]bool{}
		for _, m := range last.result.Members {
			have[m.ID] = true
		}
		for _, m := range r.result.Members {
			if !have[m.ID] {
				n++
			}
		}
		return n
	}
	for i := 100; i < 200; i += 2 { // every other one: from now on they are cut apart
		disktest.Write(t, live, map[string]string{fmt.Sprintf("%03d", i): strings.Repeat("y", 3000)})
	}
	apart := read(t, live, sink, last, ago(-time.Minute), nil)
	if n := fresh(apart); n < 50 {
		t.Errorf("50 changed files were stored in %d pieces", n)
	}
	for i := 100; i < 200; i++ {
		disktest.Write(t, live, map[string]string{fmt.Sprintf("%03d", i): strings.Repeat("z", 3000)})
	}
	last = apart
	if n := fresh(read(t, live, sink, last, ago(-time.Minute), nil)); n > 10 {
		t.Errorf("100 neighbours were stored in %d pieces", n)
	}
}

// The cut changes no byte of the stream, and it does not matter whether the earlier
// reading proves anything: after a reboot, which leaves only the places, the members are
// the same. Where nothing has changed, all members stay.
func TestTheCutFollowsFromTheTreeAndTheEarlierReadingAlone(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	live := t.TempDir()
	sizes := []int{0, 100, 3000, 9000, 20_000, 100_000, 300_000}
	write := func(name string) {
		disktest.Write(t, live, map[string]string{name: string(randomBytes(sizes[random.IntN(len(sizes))], random.Uint64()))})
	}
	for i := range 60 {
		write(fmt.Sprintf("%c/%02d", 'a'+i%4, i))
	}
	some := func() string {
		list, err := filepath.Glob(live + "/*/*")
		if err != nil || len(list) == 0 {
			t.Fatal("nothing is left: ", err)
		}
		name, _ := filepath.Rel(live, list[random.IntN(len(list))])
		return name
	}
	sink := newMemory()
	var last *reading
	for night := range 12 {
		for range random.IntN(6) {
			switch name := some(); random.IntN(6) {
			case 0:
				must(t, os.Remove(filepath.Join(live, name)))
			case 1:
				must(t, os.Rename(filepath.Join(live, name), filepath.Join(live, "c", fmt.Sprint("moved", night))))
			case 2:
				must(t, os.Chmod(filepath.Join(live, name), os.FileMode(0o600+random.IntN(64))))
			case 3:
				write(fmt.Sprintf("b/%02d.%d", random.IntN(150), night))
			default:
				write(name)
			}
		}
		plain := read(t, live, sink, nil, archive.Timespec{}, nil)
		now := read(t, live, sink, last, ago(-time.Minute), nil)
		if !bytes.Equal(stream(t, sink, plain.result), stream(t, sink, now.result)) || plain.result.Stats != now.result.Stats {
			t.Fatalf("night %d: the cut has changed the stream", night)
		}
		if last != nil {
			if unproven := read(t, live, newMemory(), last, archive.Timespec{}, nil); !reflect.DeepEqual(unproven.result.Members, now.result.Members) {
				t.Errorf("night %d: other members without a proof", night)
			}
		}
		again := read(t, live, sink, now, archive.Timespec{}, nil)
		if !reflect.DeepEqual(again.result.Members, now.result.Members) {
			t.Errorf("night %d: other members of an unchanged tree", night)
		}
		for _, m := range now.result.Members {
			if m.Tar > 2<<20 {
				t.Errorf("night %d: a member of %d bytes", night, m.Tar)
			}
		}
		last = now
	}
	var gz bytes.Buffer
	if err := archive.Join(context.Background(), &gz, sink, last.result.Members, archive.Gzip); err != nil {
		t.Fatal(err)
	}
	into := mkdir(t, filepath.Join(t.TempDir(), "into"))
	untar(t, &gz, into)
	disktest.Same(t, "by tar", disktest.Tree(t, live), disktest.Tree(t, into))
}
