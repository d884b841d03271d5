package main

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// pageSize is PostgreSQL's.
const pageSize = 8 << 10

// scatter rewrites one file in a hundred, chosen evenly by the round, with other
// text of the same length, and returns how many bytes that is. Which files were
// changed is returned too.
func scatter(dir string, files []file, round int) (changed []file, bytes int64, err error) {
	r := rand.New(rand.NewPCG(21, uint64(round)))
	buf := make([]byte, 256<<10)
	for _, i := range r.Perm(len(files))[:max(1, len(files)/100)] {
		f := files[i]
		other := f
		other.seed = f.seed + 1000*uint64(round+1)
		if err := other.write(dir, buf); err != nil {
			return nil, 0, err
		}
		now := filepath.Join(dir, f.path)
		if err := touch(now); err != nil {
			return nil, 0, err
		}
		changed = append(changed, f)
		bytes += f.bytes
	}
	return changed, bytes, nil
}

// dab overwrites the first bytes of one file in a hundred: the same number of
// bytes however big the files are.
func dab(dir string, files []file, round int, each int64) (changed []file, err error) {
	r := rand.New(rand.NewPCG(22, uint64(round)))
	for _, i := range r.Perm(len(files))[:max(1, len(files)/100)] {
		f := files[i]
		content := make([]byte, min(each, f.bytes))
		newText(f.seed+1000*uint64(round+1), f.index).fill(content)
		if err := overwrite(filepath.Join(dir, f.path), content, 0); err != nil {
			return nil, err
		}
		changed = append(changed, f)
	}
	return changed, nil
}

// cluster overwrites pages with noise, which is the most that a store can have
// to add: one in a hundred of the tree's, in runs of 128 (a MiB) that begin
// anywhere in the biggest file. It returns how many bytes that is.
func cluster(dir string, round int) (int64, error) {
	biggest, total, err := biggestFile(dir)
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(biggest)
	if err != nil {
		return 0, err
	}
	r := rand.New(rand.NewPCG(23, uint64(round)))
	pages := info.Size() / pageSize
	var changed int64
	for left := max(1, total/pageSize/100); left > 0; {
		length := min(left, 128, pages)
		noise := file{bytes: length * pageSize, seed: r.Uint64(), noise: true}
		start := r.Int64N(pages - length + 1)
		if err := overwrite(biggest, noise.content(), start*pageSize); err != nil {
			return 0, err
		}
		left -= length
		changed += length * pageSize
	}
	return changed, nil
}

func biggestFile(dir string) (path string, total int64, err error) {
	var size int64 = -1
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		total += info.Size()
		if info.Size() > size {
			path, size = name, info.Size()
		}
		return nil
	})
	if err == nil && size < pageSize {
		err = errors.New(dir + " has no file of a page")
	}
	return path, total, err
}

func overwrite(path string, content []byte, at int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, at)
	return errors.Join(err, f.Close())
}
