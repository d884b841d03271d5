package archive_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// single opens a file as a volume of one file.
func single(t *testing.T, path string) *disk.Dir {
	t.Helper()
	f, err := open(t, filepath.Dir(path)).OpenSingle(filepath.Base(path))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// TestAVolumeOfOneFileIsRestoredIdentically for files of each way of storing one. The
// folder around the file, and where it lies, make no difference to the members.
func TestAVolumeOfOneFileIsRestoredIdentically(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"empty": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"small": func(path string) error {
			return errors.Join(os.WriteFile(path, []byte("small"), 0o640), os.Chown(path, 1000, 1001), unix.Setxattr(path, "user.a", []byte("b"), 0),
				os.Chown(filepath.Dir(path), 1002, 1003), unix.Setxattr(filepath.Dir(path), "user.c", []byte("d"), 0))
		},
		"large": func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("large", 700_000)), 0o644) },
		"sparse": func(path string) error {
			return errors.Join(os.WriteFile(path, []byte("data"), 0o644), os.Truncate(path, 3<<20))
		},
		"linked": func(path string) error {
			return errors.Join(os.WriteFile(path, []byte("x"), 0o644), os.Link(path, path+".too"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := disktest.Mount(t, "ext4", 64)
			path := filepath.Join(mkdir(t, dir+"/around"), "app.db")
			disktest.Write(t, dir+"/around", map[string]string{"beside": "x", "sub/file": "x"})
			must(t, make(path))
			want := disktest.Tree(t, path)
			m := newMemory()
			var lines []*archive.Line
			result, err := archive.Write(context.Background(), single(t, path), m, archive.WriteOptions{Index: func(l *archive.Line) error {
				lines = append(lines, l)
				return nil
			}})
			must(t, err)
			if s := result.Stats; s.Files != 1 || s.Dirs != 1 || s.Entries() != 2 || s.Depth != 1 || len(result.Lost) > 0 {
				t.Errorf("it holds %+v, lost %+v", s, result.Lost)
			}
			out := extract(t, m, result, dir+"/out")
			if names, err := os.ReadDir(out); err != nil || len(names) != 1 {
				t.Errorf("restored are %v: %v", names, err)
			}
			disktest.Same(t, "the file", want, disktest.Tree(t, out+"/app.db"))

			moved := filepath.Join(mkdir(t, dir+"/elsewhere"), "app.db")
			must(t, os.Rename(path, moved))
			now := disktest.Tree(t, moved)
			disktest.Same(t, "the file", want, now)
			again, err := archive.Write(context.Background(), single(t, moved), newMemory(), archive.WriteOptions{})
			must(t, err)
			if !slices.Equal(result.Members, again.Members) {
				t.Error("in another folder the file has other members")
			}
			if root := lines[0].Entry; root.Mode != 0o755 || root.UID != 0 || root.GID != 0 || root.Mtime != (archive.Timespec{}) || len(root.Xattrs) > 0 {
				t.Errorf("the root is %+v", root)
			}
			if lines[0].Name != "." || lines[1].Name != "app.db" || lines[1].Handle == "" {
				t.Errorf("the index says %+v", lines)
			}
		})
	}
}

// TestAFileThatIsGoneIsNotAnEmptySnapshot: whoever replaces the file by name, as an
// editor does, leaves the opened one without a name.
func TestAFileThatIsGoneIsNotAnEmptySnapshot(t *testing.T) {
	for name, replace := range map[string]func(path string) error{
		"removed": os.Remove,
		"replaced by a rename": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", nil, 0o600), os.Rename(path+".new", path))
		},
		"replaced by a fifo": func(path string) error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)) },
		"replaced by a symlink": func(path string) error {
			return errors.Join(os.Remove(path), os.Symlink("/etc/passwd", path))
		},
		"replaced by a directory": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "app.db")
			must(t, os.WriteFile(path, []byte("data"), 0o600))
			f := single(t, path)
			must(t, replace(path))
			if _, err := archive.Write(context.Background(), f, newMemory(), archive.WriteOptions{}); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the capture returned %v", err)
			}
			if _, err := archive.Survey(context.Background(), f, archive.WriteOptions{}); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the survey returned %v", err)
			}
		})
	}
}
