package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// dataset is what capture and restore are measured on.
type dataset struct {
	name string
	make func(ctx context.Context, dir string) error
	// change changes a hundredth of it, another one each round, and returns how
	// many bytes that is; nil where no change is measured.
	change func(dir string, round int) (int64, error)
}

func (b *bench) datasets() []dataset {
	small, random := smallFiles(50_000/b.shrink), randomFiles(1<<30/int64(b.shrink))
	return []dataset{
		{
			name: "small",
			make: func(_ context.Context, dir string) error { return makeFiles(dir, small) },
			change: func(dir string, round int) (int64, error) {
				_, bytes, err := rewrite(dir, small, round)
				return bytes, err
			},
		},
		{name: "pg", make: b.postgres, change: rewritePages},
		{name: "random", make: func(_ context.Context, dir string) error { return makeFiles(dir, random) }},
	}
}

// file is one file of a data set. Its content follows from its seed and index.
type file struct {
	path        string // in the volume
	bytes       int64
	seed, index uint64
	noise       bool // incompressible instead of text
}

// The seeds of the data sets.
const (
	seedSmall = 11 + iota
	seedRandom
	seedApp
	seedScale
)

// smallFiles are n files of 0.5 to 16 KiB in directories as an app lays them
// out: fanned out by id, by date, deep, and one that is big and flat.
func smallFiles(n int) (files []file) {
	r := rand.New(rand.NewPCG(seedSmall, 0))
	for i := range n {
		// Half of them evenly, half of them evenly on a scale of doublings.
		size := 512 + r.Float64()*15.5*1024
		if r.IntN(2) == 0 {
			size = 512 * math.Pow(32, r.Float64())
		}
		id, path := r.Uint32(), ""
		switch kind := r.IntN(10); {
		case kind < 4:
			path = fmt.Sprintf("accounts/%02x/%06x-%d.json", id&0xff, id>>8, i)
		case kind < 8:
			path = fmt.Sprintf("orders/2024/%02d/%02d/order-%08d.json", 1+id%12, 1+id>>8%28, i)
		case kind < 9:
			path = fmt.Sprintf("sessions/%08x%06d.json", id, i)
		default:
			path = fmt.Sprintf("media/%x/%x/%x/%x/meta/%d.json", id&3, id>>2&3, id>>4&3, id>>6&3, i)
		}
		files = append(files, file{path: path, bytes: int64(size), seed: seedSmall, index: uint64(i)})
	}
	return files
}

// randomFiles are incompressible files of 1 to 50 MiB, of so many bytes in all.
func randomFiles(total int64) (files []file) {
	r := rand.New(rand.NewPCG(seedRandom, 0))
	for i := 0; total > 0; i++ {
		size := min(total, mib+r.Int64N(49*mib))
		files = append(files, file{fmt.Sprintf("uploads/%02d/clip-%03d.bin", i%4, i), size, seedRandom, uint64(i), true})
		total -= size
	}
	return files
}

// appFiles are n files of text of one size, of so many bytes in all.
func appFiles(n int, total int64) (files []file) {
	for i := range n {
		files = append(files, file{fmt.Sprintf("%02x/%06d.json", i%min(256, 1+n/50), i), total / int64(n), seedApp, uint64(i), false})
	}
	return files
}

// scaleFiles are the files from begin to end of a volume of n small ones: a
// tenth of them in one directory, the rest by the hundred.
func scaleFiles(begin, end, n int) (files []file) {
	for i := begin; i < end; i++ {
		path := fmt.Sprintf("tree/%03d/%02d/%07d", i/10_000, i/100%100, i)
		if i < n/10 {
			path = fmt.Sprintf("flat/%07d", i)
		}
		files = append(files, file{path, int64(100 + i%200), seedScale, uint64(i), false})
	}
	return files
}

// makeFiles writes files below dir, with mtimes of long ago.
func makeFiles(dir string, files []file) error {
	var wait sync.WaitGroup
	var failed [2]error
	for w := range failed {
		wait.Go(func() {
			for i := w; i < len(files) && failed[w] == nil; i += len(failed) {
				failed[w] = files[i].write(filepath.Join(dir, files[i].path))
			}
		})
	}
	wait.Wait()
	return errors.Join(failed[:]...)
}

func (f file) write(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	to, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(to, f.stream(), f.bytes)
	then := time.Date(2024, 1, 1, 0, int(f.index), 0, int(f.index%1000)*1_000_003, time.UTC)
	return errors.Join(err, to.Close(), os.Chtimes(path, then, then))
}

// stream is the content of a file. It has no end.
func (f file) stream() io.Reader {
	if f.noise {
		return rand.NewChaCha8([32]byte(fmt.Appendf(nil, "%016x%016x", f.seed, f.index)))
	}
	return &text{r: rand.New(rand.NewPCG(f.seed, f.index))}
}

func (f file) content() []byte {
	buf := make([]byte, f.bytes)
	_, _ = f.stream().Read(buf) // neither of the streams fails or stops short
	return buf
}

// text is lines of JSON such as an app keeps: the same keys again and again,
// words of which a few are frequent, and ids that do not compress. gzip makes
// about a quarter of it.
type text struct {
	r          *rand.Rand
	line, rest []byte // rest is what of the line has not been read
}

// Read implements io.Reader.
func (t *text) Read(buf []byte) (int, error) {
	for n := 0; n < len(buf); {
		if len(t.rest) == 0 {
			t.line = fmt.Appendf(t.line[:0], `{"id":%d,"uuid":"%016x","created_at":"2024-0%d-1%dT1%d:%02d:00Z","customer":"%s %s","total":%d,"note":"`,
				t.r.IntN(1e6), t.r.Uint64(), 1+t.r.IntN(9), t.r.IntN(10), t.r.IntN(10), t.r.IntN(60), t.word(), t.word(), t.r.IntN(1e5))
			for range 6 + t.r.IntN(30) {
				t.line = append(append(t.line, t.word()...), ' ')
			}
			t.line = append(t.line, "\"}\n"...)
			t.rest = t.line
		}
		got := copy(buf[n:], t.rest)
		n, t.rest = n+got, t.rest[got:]
	}
	return len(buf), nil
}

// word picks the first of some made-up words more often, as languages do.
func (t *text) word() string {
	u := t.r.Float64()
	return words[int(u*u*u*float64(len(words)))]
}

var words = func() (list [3000]string) {
	syllables := strings.Fields("ba con der el fi gra ho in ka lu men nor o pra que ri sto ta ul ver wa xi yo zen")
	r := rand.New(rand.NewPCG(1, 1))
	for i := range list {
		for range 1 + r.IntN(4) {
			list[i] += syllables[r.IntN(len(syllables))]
		}
	}
	return list
}()

// rewrite writes one file in a hundred anew, chosen evenly by the round, with
// other text. It returns the files as they were, and how many bytes those are.
func rewrite(dir string, files []file, round int) (changed []file, bytes int64, err error) {
	r := rand.New(rand.NewPCG(21, uint64(round)))
	for _, i := range r.Perm(len(files))[:max(1, len(files)/100)] {
		changed = append(changed, files[i])
	}
	bytes, err = rewriteAll(dir, changed, round)
	return changed, bytes, err
}

// rewritePages overwrites as many pages as are a hundredth of the tree with
// noise, which is the most that a store can have to add: in runs of 128 (a MiB)
// that begin anywhere in the biggest file. It returns how many bytes those are.
func rewritePages(dir string, round int) (changed int64, err error) {
	return overwrite(dir, round, 128, func(page []byte, seed uint64) {
		noise := file{bytes: pageSize, seed: seed, noise: true}
		copy(page, noise.content())
	})
}

const pageSize = 8 << 10 // PostgreSQL's

// overwrite calls change with as many pages as are a hundredth of the tree, in runs of so
// many that begin anywhere in the biggest file, and writes them back. It returns how many
// bytes those are.
func overwrite(dir string, round int, atOnce int64, change func(page []byte, seed uint64)) (changed int64, err error) {
	total, err := measureTree(dir)
	if err != nil {
		return 0, err
	}
	path, _ := output(job{live: dir}.script(context.Background(), `find "$live" -type f -size +7k -printf '%s %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2-`))
	biggest, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, fmt.Errorf("no file of a page: %w", err)
	}
	defer func() { err = errors.Join(err, biggest.Close()) }()
	size, err := biggest.Seek(0, io.SeekEnd)
	r := rand.New(rand.NewPCG(23, uint64(round)))
	for left := max(1, total.bytes/pageSize/100); left > 0 && err == nil; {
		pages := min(left, atOnce, size/pageSize)
		run := make([]byte, pages*pageSize)
		at := r.Int64N(size/pageSize-pages+1) * pageSize
		if _, err = biggest.ReadAt(run, at); err != nil {
			break
		}
		for page := range slices.Chunk(run, pageSize) {
			change(page, r.Uint64())
		}
		_, err = biggest.WriteAt(run, at)
		left -= pages
		changed += pages * pageSize
	}
	return changed, err
}

// postgres makes a data directory with the machine's own PostgreSQL, else with
// that of the image of testdata/databases. The rows are the same each time; what
// the server notes of the date and of itself is not.
func (b *bench) postgres(ctx context.Context, dir string) error {
	_, err := run(job{live: b.dir, repo: b.source, out: dir}.script(ctx, fmt.Sprintf(`
		fill=$repo/testdata/bench/fill.sh
		if ls /usr/lib/postgresql/*/bin/pgbench && id postgres; then sh "$fill" "$out" %[1]d; exit; fi
		tag=$("$repo/testdata/databases/image.sh")
		docker run --rm --network none -v "$live:$live" -v "$fill:/fill.sh:ro" --entrypoint /bin/sh "$tag" /fill.sh "$out" %[1]d`, max(1, 50/b.shrink))))
	return err
}
