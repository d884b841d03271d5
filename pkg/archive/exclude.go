package archive

import (
	"errors"
	"io"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/disk"
)

// A cache directory is one with a regular file CACHEDIR.TAG that begins with this
// signature (https://bford.info/cachedir/). The directory and the tag are kept, as GNU
// tar's --exclude-caches does, so that the program finds its cache again, empty.
const (
	CacheTag       = "CACHEDIR.TAG"
	cacheSignature = "Signature: 8a477f597d28d172789f06886806bc55"
)

// excludes reports whether the config leaves out a name of dir, which is path below
// the volume. Everything below an excluded directory is excluded.
func (w *walker) excludes(dir *node, name, path string) bool {
	return dir.excluded || dir.cache && name != CacheTag || w.exclude != nil && w.exclude(path)
}

// isCache reports whether dir, which has these names, is a cache directory. The root is
// not, whatever is in it: a program that writes to the volume must not be able to make
// snapshots of nothing.
func (w *walker) isCache(dir *node, names []string) (bool, error) {
	if !w.caches || dir.excluded || dir.name == tarstream.Root {
		return false, nil
	}
	if _, found := slices.BinarySearch(names, CacheTag); !found {
		return false, nil
	}
	fd, err := disk.Openat2(dir.fd, CacheTag, unix.O_PATH|unix.O_NOFOLLOW, 0, resolve)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fail("open", below(dir, CacheTag), err)
	}
	tag := &node{fd: fd, name: below(dir, CacheTag)}
	defer tag.release()
	if err := tag.look(); err != nil || tag.kind() != unix.S_IFREG {
		return false, err
	}
	f, err := w.open(tag)
	if err != nil {
		return false, err
	}
	defer f.close()
	head := make([]byte, len(cacheSignature))
	if _, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return false, fail("read", tag.name, err)
	}
	return string(head) == cacheSignature, nil
}
