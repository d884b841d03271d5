package foreign_test

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive/archivetest"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// Archives that are put together from parts of all dialects, with fields exchanged: an
// import writes nothing outside its directory, and what it takes and GNU tar takes means
// the same to both. SNAP_TEST_MUTATIONS says how many, each time other ones.
func TestAMutatedArchiveMeansTheSameToGNUTarOrIsRefused(t *testing.T) {
	disktest.NeedRoot(t)
	n, seed := 200, int64(1)
	if more := os.Getenv("SNAP_TEST_MUTATIONS"); more != "" {
		var err error
		if n, err = strconv.Atoi(more); err != nil {
			t.Fatal(err)
		}
		seed = int64(os.Getpid())
	}
	m := newMutator(seed)
	taken := 0
	for i := range n {
		tar := m.archive()
		box := t.TempDir()
		disktest.Write(t, box, map[string]string{"x": "canary", "etc/x": "canary", "stage/": "", "out/": ""})
		around := func() []string {
			return slices.DeleteFunc(disktest.Tree(t, box), func(line string) bool { return strings.HasPrefix(line, `"stage`) })
		}
		before := around()
		_, err := extract(t, tar, box+"/stage")
		if d := disktest.Diff(before, around()); d != "" {
			t.Errorf("seed %d, archive %d: outside there is other data:\n%s", seed, i, d)
		}
		if err != nil {
			continue
		}
		file := filepath.Join(box, "x.tar")
		if err := os.WriteFile(file, tar, 0o600); err != nil {
			t.Fatal(err)
		}
		if exec.Command("tar", "-x", "-p", "-f", file, "-C", box+"/out", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls").Run() != nil {
			continue
		}
		taken++
		want, got := alike(disktest.Tree(t, box+"/out"), disktest.Tree(t, box+"/stage"))
		// GNU tar sets the times of a root that has two names in the order of its list.
		isRoot := func(line string) bool { return strings.HasPrefix(line, `"." `) }
		if d := disktest.Diff(slices.DeleteFunc(want, isRoot), slices.DeleteFunc(got, isRoot)); d != "" {
			t.Errorf("seed %d, archive %d: imported, and extracted by GNU tar:\n%s", seed, i, d)
		}
	}
	if taken < n/10 {
		t.Errorf("only %d archives of %d were compared", taken, n)
	}
}

// mutator makes archives.
type mutator struct {
	*rand.Rand
	dialects []archivetest.Dialect
	headers  [][]byte
}

func newMutator(seed int64) *mutator {
	m := &mutator{rand.New(rand.NewSource(seed)), archivetest.Dialects(), nil}
	for _, d := range m.dialects {
		for b := range slices.Chunk(d.Tar, 512) {
			if len(b) == 512 && b[0] != 0 && b[148] == '0' {
				m.headers = append(m.headers, b)
			}
		}
	}
	return m
}

func (m *mutator) archive() []byte {
	var tar []byte
	for range 1 + m.Intn(3) {
		part := bytes.TrimRight(m.dialects[m.Intn(len(m.dialects))].Tar, "\x00")
		part = append(bytes.Clone(part), make([]byte, -len(part)&511)...)
		tar = append(tar, part[:min(len(part), 20<<10)]...)
	}
	for range m.Intn(4) {
		tar = m.mutated(tar)
	}
	return append(tar, make([]byte, 1024)...)
}

func (m *mutator) mutated(tar []byte) []byte {
	at := m.Intn(len(tar)/512) * 512
	b := tar[at : at+512]
	header := m.headers[m.Intn(len(m.headers))]
	names := []string{"a", "d/", "d", "d/x", "./", ".", "/", "", "s", "h", "x", "../x", "d/../x", "/etc/x", "s/y", "././d/x", "d//x"}
	put := func(field []byte, text string) {
		clear(field)
		copy(field, text)
	}
	switch m.Intn(8) {
	case 0:
		const types = "01234567xgLKVDSXMN\x00"
		b[156] = types[m.Intn(len(types))]
	case 1:
		put(b[:100], names[m.Intn(len(names))])
	case 2:
		put(b[157:257], names[m.Intn(len(names))])
	case 3:
		put(b[124:136], archivetest.Octal(m.Intn(3)*512))
	case 4:
		copy(b, header)
	case 5:
		b[m.Intn(512)] ^= 1 << m.Intn(8)
	case 6:
		return slices.Insert(tar, at, header...)
	case 7:
		put(b[345:500], names[m.Intn(len(names))])
	}
	if m.Intn(10) > 0 {
		sum := 8 * int(' ')
		for i, c := range b {
			if i < 148 || i >= 156 {
				sum += int(c)
			}
		}
		copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	}
	return tar
}
