package disk_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

var vault = disk.Private{What: "vault", Marks: [][]string{{"vault.json"}, {"a", "b"}}, Names: []string{"c"}}

// What somebody keeps in a directory → whether snap may keep its own things there.
func TestADirectoryOfSomebodyElseIsNotFilled(t *testing.T) {
	for names, ok := range map[string]bool{
		"": true, "lost+found/": true, "vault.json": true, "vault.json.tmp": true, "a/": true, "b/": true, "c/ lost+found/": true, "a/ b/": true,
		"vault.json notes.txt": true, "a/ b/ notes.txt": true,
		"notes.txt": false, "a/ notes.txt": false, ".hidden": false, "c/ d/": false, "b/ .snap": false, "passwd shadow": false,
	} {
		path := filepath.Join(t.TempDir(), "vault")
		disktest.Write(t, filepath.Dir(path), map[string]string{"vault/": ""})
		for _, name := range strings.Fields(names) {
			disktest.Write(t, path, map[string]string{name: ""})
		}
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
		before := disktest.Tree(t, path)
		for how, open := range map[string]func(string) (*disk.Dir, error){
			"Open": vault.Open,
			"Make": func(path string) (*disk.Dir, error) { d, _, err := vault.Make(path); return d, err },
		} {
			d, err := open(path)
			d.Close()
			var u *disk.Unusable
			if ok && err != nil || !ok && (!errors.As(err, &u) || u.Hint == "" || !strings.Contains(u.Reason, "not empty")) {
				t.Errorf("%s with %q: %v", how, names, err)
			}
			disktest.Same(t, how+" with "+names, before, disktest.Tree(t, path))
		}
	}
}

// A symbolic link at any place of the path, and of any kind, is refused, and nothing is
// made at the place that it leads to.
func TestASymbolicLinkOnTheWayIsRefused(t *testing.T) {
	for _, link := range []string{"/link", "/link/below", "/link/below/deep", "/dangling", "/dangling/x", "/inner/back"} {
		dir := t.TempDir()
		disktest.Write(t, dir, map[string]string{"real/": "", "inner/": ""})
		if err := errors.Join(os.Symlink("real", dir+"/link"), os.Symlink("nowhere", dir+"/dangling"), os.Symlink("../real", dir+"/inner/back")); err != nil {
			t.Fatal(err)
		}
		before := disktest.Tree(t, dir)
		for range 2 {
			var u *disk.Unusable
			if d, _, err := vault.Make(dir + link); !errors.As(err, &u) || !strings.Contains(u.Reason, "symbolic link") {
				t.Errorf("%s: %v", link, err)
				d.Close()
			}
		}
		disktest.Same(t, link, before, disktest.Tree(t, dir))
	}
}

// Folders that are missing are made for nobody else, and folders that are there stay.
func TestWhatIsMissingIsMade(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		d, fresh, err := vault.Make(dir + "/x/y/z")
		if err != nil || fresh != want {
			t.Fatalf("fresh is %v: %v", fresh, err)
		}
		d.Close()
	}
	for path, want := range map[string]os.FileMode{dir: 0o711, dir + "/x": 0o700, dir + "/x/y": 0o700, dir + "/x/y/z": 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v: %v", path, info.Mode(), err)
		}
	}
	for _, path := range []string{"x", "", "./x"} {
		if _, _, err := vault.Make(path); err == nil {
			t.Errorf("%q was made", path)
		}
	}
}
