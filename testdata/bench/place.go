package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
)

// place is the filesystem that is measured on: an ext4 with a journal in an
// image file. The machine's own root filesystem is none to measure on; it may
// lack the journal, and others write to it.
type place struct {
	dir   string // where it is mounted
	work  string // what the image and the mount point lie in
	about string // for whoever reads the numbers
}

// newPlace makes the filesystem in an image below parent. Each block of the
// image is written first: a sparse file grows while it is written, and memory
// that a virtual machine gave back comes slowly the first time.
func newPlace(ctx context.Context, parent string, mib int) (_ *place, err error) {
	work, err := os.MkdirTemp(parent, "snap-bench-")
	if err != nil {
		return nil, err
	}
	p := &place{work: work, dir: filepath.Join(work, "mnt")}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if err := os.Chmod(work, 0o755); err != nil { // containers and PostgreSQL go through it
		return nil, err
	}
	image := filepath.Join(work, "image")
	if err := fill(ctx, image, mib); err != nil {
		return nil, err
	}
	if err := os.Mkdir(p.dir, 0o755); err != nil {
		return nil, err
	}
	// Nothing is left for the kernel to do in the background; many small files
	// take more inodes than the default.
	if _, err := run(ctx, cmd("mkfs.ext4", "-q", "-F", "-m", "0", "-i", "6144", "-O", "has_journal",
		"-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", image)); err != nil {
		return nil, err
	}
	options := "loop"
	if _, err := run(ctx, cmd("mount", "-o", options, image, p.dir)); err != nil {
		return nil, err
	}
	p.about = fmt.Sprintf("ext4 with a journal, in a loop-mounted image of %d MiB on %s", mib, filesystem(parent))
	return p, nil
}

// fill writes an image of zeros.
func fill(ctx context.Context, image string, mib int) error {
	f, err := os.OpenFile(image, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	block := make([]byte, disk.WriteSize)
	for range mib << 20 / disk.WriteSize {
		if err := ctx.Err(); err != nil {
			return errors.Join(err, f.Close())
		}
		if _, err := f.Write(block); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(f.Sync(), f.Close())
}

// filesystem names the kind of filesystem that a directory is on.
func filesystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "an unknown filesystem"
	}
	switch st.Type {
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	}
	return fmt.Sprintf("a filesystem of type %#x", st.Type)
}

// close unmounts and removes everything.
func (p *place) close() error {
	if mounted, err := isMount(p.dir); err != nil || mounted {
		var failed error
		for range 50 { // a process that is just ending may still be in it
			if failed = unix.Unmount(p.dir, 0); failed == nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if failed != nil {
			return fmt.Errorf("%s is still mounted: %w: umount it, then remove %s", p.dir, failed, p.work)
		}
	}
	return os.RemoveAll(p.work)
}

func isMount(dir string) (bool, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	return strings.Contains(string(text), " "+dir+" "), err
}

// path is a path on the filesystem.
func (p *place) path(elem ...string) string {
	return filepath.Join(append([]string{p.dir}, elem...)...)
}

// settle reads the trees, so that they are in memory, and waits until nothing
// is left to be written: a sync in what is measured next would wait for it.
func (p *place) settle(trees ...string) error {
	for _, tree := range trees {
		if err := readTree(tree); err != nil {
			return err
		}
	}
	unix.Sync()
	return nil
}

// durable waits until everything on the filesystem is on disk.
func (p *place) durable() error {
	d, err := os.Open(p.dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

// readTree reads every file below tree, which need not exist, on all cores.
func readTree(tree string) error {
	paths := make(chan string, 1000)
	failed := make([]error, runtime.NumCPU())
	var wait sync.WaitGroup
	for i := range failed {
		wait.Go(func() {
			buf := make([]byte, 256<<10)
			for path := range paths {
				if failed[i] == nil {
					failed[i] = readFile(path, buf)
				}
			}
		})
	}
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == tree {
			return nil
		}
		if err == nil && d.Type().IsRegular() {
			paths <- path
		}
		return err
	})
	close(paths)
	wait.Wait()
	return errors.Join(append(failed, err)...)
}

func readFile(path string, buf []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, buf)
	return errors.Join(err, f.Close())
}

// extent is what a tree amounts to.
type extent struct{ files, bytes int64 }

func measureTree(tree string) (extent, error) {
	var e extent
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			e.files++
			e.bytes += info.Size()
		}
		return err
	})
	return e, err
}
