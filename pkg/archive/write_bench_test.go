package archive_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
)

// nowhere is a sink that compresses the pieces and discards them.
type nowhere struct{}

func (nowhere) Put(tar []byte) (archive.Member, error) {
	data := archive.Gzip.Deflate(nil, tar)
	return archive.Member{ID: archive.MemberID(tar), Tar: int64(len(tar)), Stored: int64(len(data))}, nil
}

// manyFiles makes 5,000 files of 0.5–16 KiB of JSON text. It returns their directory and
// their total size. SNAP_BENCH_TREE names another tree.
func manyFiles(b *testing.B) (*disk.Dir, int64) {
	dir := os.Getenv("SNAP_BENCH_TREE")
	if dir == "" {
		dir = b.TempDir()
		random := rand.New(rand.NewPCG(1, 2))
		words := []string{"alpha", "beta", "user", "value", "timestamp", "status", "comment", "title"}
		for i := range 5000 {
			var text strings.Builder
			for size := 512 + random.IntN(11<<10); text.Len() < size; {
				fmt.Fprintf(&text, "{\"id\":%d,%q:\"%s%d\",\"v\":%g}\n", random.Uint32(), words[random.IntN(8)], words[random.IntN(8)], random.IntN(9999), random.Float64())
			}
			name := filepath.Join(dir, fmt.Sprintf("%03d", i/125))
			if err := os.MkdirAll(name, 0o755); err != nil {
				b.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(name, fmt.Sprintf("%d.json", i)), []byte(text.String()), 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	root, err := disk.OpenRoot(dir)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { root.Close() })
	stats, err := archive.Survey(b.Context(), root, archive.WriteOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return root, stats.Bytes
}

// BenchmarkSurvey measures a walk that only calls stat.
func BenchmarkSurvey(b *testing.B) {
	root, _ := manyFiles(b)
	b.ResetTimer()
	for b.Loop() {
		if _, err := archive.Survey(b.Context(), root, archive.WriteOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWrite measures a first capture, without the disk.
func BenchmarkWrite(b *testing.B) {
	root, bytes := manyFiles(b)
	b.SetBytes(bytes)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := archive.Write(b.Context(), root, nowhere{}, archive.WriteOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWriteUnchanged measures a pass that finds everything unchanged.
func BenchmarkWriteUnchanged(b *testing.B) {
	root, bytes := manyFiles(b)
	b.SetBytes(bytes)
	b.ReportAllocs()
	time.Sleep(time.Second)
	earlier := &reading{}
	var err error
	if earlier.result, err = archive.Write(b.Context(), root, nowhere{}, archive.WriteOptions{Index: func(l *archive.Line) error {
		line := *l
		earlier.lines = append(earlier.lines, &line)
		return nil
	}}); err != nil {
		b.Fatal(err)
	}
	since := ago(0)
	for b.Loop() {
		known := known(nil, earlier, since)
		known.Reuse = func(m archive.Member) (archive.Member, bool, error) { return m, true, nil }
		r, err := archive.Write(b.Context(), root, nowhere{}, archive.WriteOptions{Known: known})
		if err != nil {
			b.Fatal(err)
		}
		if r.Read > 0 {
			b.Fatalf("%d bytes were read", r.Read)
		}
	}
}
