package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// file is one file of a data set that is made from a seed alone.
type file struct {
	path  string // in the volume
	bytes int64
	seed  uint64
	index uint64
	noise bool // incompressible instead of text
}

// The seeds of the data sets.
const (
	seedSmall  = 11
	seedRandom = 12
	seedApp    = 13
	seedMany   = 14
)

// smallFiles are n files of 0.5 to 16 KiB, 6 on the average, in directories as
// an app lays them out: fanned out by id, by date, deep, and one big flat one.
func smallFiles(n int) []file {
	r := rand.New(rand.NewPCG(seedSmall, 0))
	files := make([]file, n)
	for i := range files {
		// Half of them evenly, half of them evenly on a scale of doublings.
		size := 512 + r.Float64()*15.5*1024
		if r.IntN(2) == 0 {
			size = 512 * math.Pow(32, r.Float64())
		}
		id := r.Uint32()
		var path string
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
		files[i] = file{path: path, bytes: int64(size), seed: seedSmall, index: uint64(i)}
	}
	return files
}

// randomFiles are incompressible files of 1 to 50 MiB, of so many bytes in all.
func randomFiles(total int64) []file {
	r := rand.New(rand.NewPCG(seedRandom, 0))
	var files []file
	for i := 0; total > 0; i++ {
		size := min(total, 1<<20+r.Int64N(49<<20))
		files = append(files, file{path: fmt.Sprintf("uploads/%02d/clip-%03d.bin", i%4, i), bytes: size, seed: seedRandom, index: uint64(i), noise: true})
		total -= size
	}
	return files
}

// appFiles are n files of text of one size, of so many bytes in all.
func appFiles(n int, total int64, seed uint64) []file {
	files := make([]file, n)
	for i := range files {
		files[i] = file{path: fmt.Sprintf("%02x/%06d.json", i%min(256, 1+n/50), i), bytes: total / int64(n), seed: seed, index: uint64(i)}
	}
	return files
}

// stream is the content of a file, and goes on behind it.
func (f file) stream() io.Reader {
	if !f.noise {
		return newText(f.seed, f.index)
	}
	var seed [32]byte
	for i := range 8 {
		seed[i], seed[8+i] = byte(f.seed>>(8*i)), byte(f.index>>(8*i))
	}
	return rand.NewChaCha8(seed)
}

// content is all of it in memory.
func (f file) content() []byte {
	buf := make([]byte, f.bytes)
	_, _ = f.stream().Read(buf) // neither of them fails
	return buf
}

// make writes files below dir, with times of long ago.
func makeFiles(dir string, files []file) error {
	var wait sync.WaitGroup
	const workers = 2
	var failed [workers]error
	for w := range workers {
		wait.Go(func() {
			buf := make([]byte, 256<<10)
			for i := w; i < len(files) && failed[w] == nil; i += workers {
				failed[w] = files[i].write(dir, buf)
			}
		})
	}
	wait.Wait()
	return errors.Join(failed[:]...)
}

// write makes the file, a buffer at a time: the kernel charges whoever this
// process starts with the memory that it has itself.
func (f file) write(dir string, buf []byte) error {
	path := filepath.Join(dir, f.path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{to}, io.LimitReader(f.stream(), f.bytes), buf)
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	then := time.Date(2024, 1, 1, 0, 0, 0, int(f.index%1000)*1_000_003, time.UTC).Add(time.Duration(f.index) * time.Minute)
	return os.Chtimes(path, then, then)
}

// sparseFile makes a file that is holes but for a MiB in each GiB.
func sparseFile(path string, gib int) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for i := range gib {
		newText(seedApp, uint64(i)).fill(block)
		if _, err := f.WriteAt(block, int64(i)<<30+int64(i)<<20); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(f.Truncate(int64(gib)<<30), f.Close())
}
