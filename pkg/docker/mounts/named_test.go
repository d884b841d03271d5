package mounts

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// snap believes the engine only as far as it names the directory that belongs to the
// volume: the engine's answers pass through a socket that others may have replaced.
func TestAMountpointElsewhereIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "disk", "pg", "_data"), 0o755), os.Mkdir(filepath.Join(dir, "engine"), 0o755),
		os.Symlink("../disk", filepath.Join(dir, "engine", "volumes")), os.Symlink("engine", filepath.Join(dir, "linked"))); err != nil {
		t.Fatal(err)
	}
	real, err := filepath.EvalSymlinks(filepath.Join(dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "linked")
	for _, c := range []struct {
		mountpoint string
		absent     bool
		root, rel  string // "" where it is refused
	}{
		{root + "/volumes/pg/_data", false, real + "/pg", "_data"},
		{"", true, real, "pg/_data"},
		{"/etc", false, "", ""},
		{root + "/volumes/other/_data", false, "", ""},
		{root + "/volumes/pg/_data/in", false, "", ""},
		{root + "/volumes/pg/../pg/_data", false, "", ""},
		{root + "/volumes/pg", false, "", ""},
		{"", false, "", ""},
	} {
		k := kept{absent: c.absent}
		err := (&survey{stated: root}).place("pg", c.mountpoint, &k)
		if k.root != c.root || k.rel != c.rel || (err != nil) != (c.root == "") {
			t.Errorf("%s: %+v, %v", c.mountpoint, k, err)
		}
	}
	k := kept{absent: true}
	if err := (&survey{stated: dir + "/elsewhere"}).place("pg", "", &k); err == nil {
		t.Errorf("an engine whose root is not on this host: %+v", k)
	}
}
