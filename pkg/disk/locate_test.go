package disk_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

func TestADirectoryIsFoundWhereverItIsMoved(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, dir string) {
		disktest.Write(t, dir, map[string]string{"from/tree/file": "x", "to/": ""})
		root, err := disk.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		h, err := root.HandleOf("from/tree")
		if err != nil {
			t.Fatal(err)
		}
		moved := filepath.Join(dir, "to", "another name")
		if err := os.Rename(filepath.Join(dir, "from/tree"), moved); err != nil {
			t.Fatal(err)
		}
		if path, err := root.Locate(h); err != nil || path != moved {
			t.Errorf("it is found at %q: %v", path, err)
		}
		open, err := disk.OpenRoot(moved) // the inode lives on while it is open
		if err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(moved); err != nil {
			t.Fatal(err)
		}
		if path, err := root.Locate(h); err != nil || path != "" {
			t.Errorf("deleted and still open it is found at %q: %v", path, err)
		}
		open.Close()
		if path, err := root.Locate(h); err != nil || path != "" {
			t.Errorf("deleted it is found at %q: %v", path, err)
		}
		for _, h := range []disk.Handle{"", "ext4-00.1.aa", disk.Handle(string(h) + "zz")} {
			if path, err := root.Locate(h); err == nil {
				t.Errorf("%q is found at %q", h, path)
			}
		}
	})
}
