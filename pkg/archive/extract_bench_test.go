package archive_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
)

// BenchmarkExtract restores many files from members in memory, and ends when they are
// durable. TMPDIR selects the filesystem.
func BenchmarkExtract(b *testing.B) {
	for _, codec := range bothCodecs {
		b.Run(codec.String(), func(b *testing.B) {
			root, bytes := manyFiles(b)
			kept := newMemory()
			kept.codec = codec
			result, err := archive.Write(b.Context(), root, kept, archive.WriteOptions{})
			if err != nil {
				b.Fatal(err)
			}
			dir := b.TempDir()
			b.SetBytes(bytes)
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				extractOnce(b, kept, result, filepath.Join(dir, strconv.Itoa(n)))
			}
		})
	}
}

func extractOnce(b *testing.B, from archive.Opener, result *archive.Result, dir string) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	into, err := disk.OpenRoot(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer into.Close()
	r := archive.NewReader(b.Context(), from, result.Members)
	defer r.Close()
	got, err := archive.Extract(b.Context(), r, into, archive.ExtractOptions{
		MaxEntries: result.Stats.Entries(), MaxBytes: result.Stats.Bytes, MaxDepth: result.Stats.Depth,
	})
	if err != nil || got != result.Stats {
		b.Fatalf("%+v of %+v: %v", got, result.Stats, err)
	}
	if err := into.SyncFS(); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	defer b.StartTimer()
	if err := os.RemoveAll(dir); err != nil {
		b.Fatal(err)
	}
	unix.Sync()
}
