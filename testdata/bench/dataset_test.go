package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestTheDataSetsAreThoseOfTheTargets(t *testing.T) {
	var total int64
	names := map[string]bool{}
	small := smallFiles(fullPlan().SmallFiles)
	for _, f := range small {
		if f.bytes < 512 || f.bytes > 16<<10 {
			t.Fatalf("%s has %d bytes, want 0.5 to 16 KiB", f.path, f.bytes)
		}
		total += f.bytes
		names[f.path] = true
	}
	if mib := total >> 20; len(names) != 50_000 || mib < 285 || mib > 315 {
		t.Errorf("%d files, %d MiB, want 50000 of about 300", len(names), mib)
	}
	total = 0
	for _, f := range randomFiles(1 << 30) {
		total += f.bytes
	}
	if total != 1<<30 {
		t.Errorf("random has %d bytes, want a GiB", total)
	}
}

// Text must compress as text does, or what is measured is the generator.
func TestTextCompressesAsTextDoes(t *testing.T) {
	for _, c := range []struct {
		name        string
		f           file
		least, most float64
	}{
		{"text", file{bytes: 4 << 20}, 2.5, 5},
		{"noise", file{bytes: 4 << 20, noise: true}, 0.99, 1.001},
	} {
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		z.Write(c.f.content())
		z.Close()
		if r := float64(c.f.bytes) / float64(out.Len()); r < c.least || r > c.most {
			t.Errorf("%s compresses %.2f : 1, want %.2f to %.2f", c.name, r, c.least, c.most)
		}
	}
}

func TestADataSetIsTheSameEachTime(t *testing.T) {
	files := append(smallFiles(300), randomFiles(3<<20)...)
	first, second := t.TempDir(), t.TempDir()
	for _, dir := range []string{first, second} {
		if err := makeFiles(dir, files); err != nil {
			t.Fatal(err)
		}
	}
	a, b := hashes(t, first), hashes(t, second)
	if len(a) != len(files) {
		t.Errorf("%d files were made, want %d", len(a), len(files))
	}
	if n := differences(a, b); n != 0 {
		t.Errorf("%d files differ", n)
	}
}

func TestChangesAreAsBigAsTheySay(t *testing.T) {
	dir := t.TempDir()
	files := smallFiles(1000)
	if err := makeFiles(dir, files); err != nil {
		t.Fatal(err)
	}
	before := hashes(t, dir)
	_, said, err := scatter(dir, files, 3)
	if err != nil {
		t.Fatal(err)
	}
	after := hashes(t, dir)
	if n := differences(before, after); n != 10 || len(after) != len(before) {
		t.Errorf("%d of %d files changed, want 10 of %d", n, len(after), len(before))
	}
	var bytes int64
	for path, h := range after {
		if before[path] != h {
			bytes += h.size
		}
	}
	if bytes != said {
		t.Errorf("%d bytes are in changed files, and %d were said", bytes, said)
	}
	if _, err := dab(dir, files, 0, 100); err != nil {
		t.Fatal(err)
	}
	if n := differences(after, hashes(t, dir)); n != 10 {
		t.Errorf("%d files changed, want 10", n)
	}
}

func TestClustersAreOnePageInAHundred(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big")
	before := make([]byte, 1000*pageSize)
	if err := os.WriteFile(big, before, 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := cluster(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(big)
	if err != nil {
		t.Fatal(err)
	}
	var first, last, pages int64 = -1, 0, 0
	for i := int64(0); i < int64(len(after)); i += pageSize {
		if !bytes.Equal(after[i:i+pageSize], before[i:i+pageSize]) {
			if first < 0 {
				first = i
			}
			last = i
			pages++
		}
	}
	if pages != 10 || said != 10*pageSize || last-first != 9*pageSize {
		t.Errorf("%d pages changed between %d and %d, and %d bytes were said; want 10 pages in a row", pages, first, last, said)
	}
	if err := os.WriteFile(big, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := cluster(dir, 0); err == nil {
		t.Error("a tree without a page was changed by pages")
	}
}

type hashed struct {
	sum  [sha256.Size]byte
	size int64
}

// hashes are of the content of all files below dir.
func hashes(t *testing.T, dir string) map[string]hashed {
	t.Helper()
	all := map[string]hashed{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		rel, _ := filepath.Rel(dir, path)
		all[rel] = hashed{sha256.Sum256(content), info.Size()}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func differences(a, b map[string]hashed) (n int) {
	for path, h := range a {
		if b[path] != h {
			n++
		}
	}
	return n
}
