package store_test

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/store"
)

// table is a MiB as a database has it: rows of numbers and padding.
func table(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	out := make([]byte, 0, 1<<20+100)
	for len(out) < 1<<20 {
		out = fmt.Appendf(out, "%08x%6d%-80s", r.Uint32(), len(out), "row")
	}
	return out[:1<<20]
}

// BenchmarkCheck checks 256 members that the store has, and beside it does what
// an operator can: inflates each with gzip into sha256sum, on all cores.
func BenchmarkCheck(b *testing.B) {
	const n = 256
	path := b.TempDir()
	s := storeAt(b, path)
	first := s.NewBatch(b.Context(), scratch(b, s), false, archive.Gzip)
	var list []archive.Member
	for i := range n {
		list = append(list, put(b, first, string(table(i))))
	}
	if err := first.Publish(manifest("blog", sid, list...), ""); err != nil {
		b.Fatal(err)
	}
	b.Run("snap", func(b *testing.B) {
		b.SetBytes(n << 20)
		for b.Loop() {
			batch := s.NewBatch(b.Context(), scratch(b, s), true, archive.Gzip)
			for _, m := range list {
				if _, ok, err := batch.Reuse(m); !ok || err != nil {
					b.Fatal("a member is gone: ", err)
				}
			}
			if damaged, err := batch.Check(b.Context()); damaged > 0 || err != nil {
				b.Fatalf("%d are damaged: %v", damaged, err)
			}
		}
	})
	b.Run("sha256sum", func(b *testing.B) {
		b.SetBytes(n << 20)
		for b.Loop() {
			var done sync.WaitGroup
			for core := range runtime.GOMAXPROCS(0) {
				done.Go(func() {
					var files []string
					for i := core; i < n; i += runtime.GOMAXPROCS(0) {
						files = append(files, filepath.Join(path, "members", list[i].ID[:2], list[i].ID+".gz"))
					}
					if err := exec.Command("sh", append([]string{"-c", `gzip -dc "$@" | sha256sum`, "sh"}, files...)...).Run(); err != nil {
						b.Error(err)
					}
				})
			}
			done.Wait()
		}
	})
}

// BenchmarkAll reads all manifests of a workload with many snapshots, and the
// newest alone.
func BenchmarkAll(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		path := b.TempDir()
		s := storeAt(b, path)
		m := publish(b, s, "blog", sid, piece("a"))
		for i := range n - 1 {
			fresh := *m
			fresh.SID = fmt.Sprintf("20260103T%02d%02d%02dZ-%06x", i/3600, i/60%60, i%60, i)
			rewrite(b, path, &fresh)
		}
		for _, which := range []string{"all", "newest"} {
			b.Run(fmt.Sprintf("%d/%s", n, which), func(b *testing.B) {
				read := 0
				for b.Loop() {
					for _, err := range s.All("blog") {
						if err != nil {
							b.Fatal(err)
						}
						if read++; which == "newest" {
							break
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(read), "ns/manifest")
			})
		}
	}
}

// rewrite publishes m again, under the sid that it has now, without the syncs.
func rewrite(b *testing.B, path string, m *store.Manifest) {
	data, err := disk.MarshalSealed(m, "snap-manifest", 5)
	if err != nil {
		b.Fatal(err)
	}
	disktest.Write(b, path, map[string]string{"snapshots/blog/" + m.SID + "/manifest.json": string(data)})
}
