package disk_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

func TestExchangeSwapsInOneStepAndNothingIsEverMissing(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, dir string) {
		disktest.Write(t, dir, map[string]string{"live/old": "old", "wrap/new/new": "new"})
		old, new := handle(t, dir+"/live"), handle(t, dir+"/wrap/new")
		d, wrap := open(t, dir), open(t, dir+"/wrap")
		missing := make(chan int)
		stop := make(chan struct{})
		go func() {
			n := 0
			for {
				select {
				case <-stop:
					missing <- n
					return
				default:
				}
				if _, err := os.Lstat(dir + "/live"); err != nil {
					n++
				}
			}
		}()
		for range 501 {
			if err := d.Exchange("live", wrap, "new"); err != nil {
				t.Fatal(err)
			}
		}
		close(stop)
		if n := <-missing; n > 0 {
			t.Errorf("live was missing %d times", n)
		}
		if handle(t, dir+"/live") != new || handle(t, dir+"/wrap/new") != old {
			t.Error("the directories have not changed places after an odd number of exchanges")
		}
		if data, err := os.ReadFile(dir + "/live/new"); string(data) != "new" {
			t.Errorf("%q, %v", data, err)
		}
		for _, bad := range []string{"gone", "", ".", "..", "a/b", "a\x00b"} {
			if err := d.Exchange("live", wrap, bad); err == nil {
				t.Errorf("%q was exchanged", bad)
			}
		}
		if err := d.ProbeExchange(disk.Properties{}, disk.Properties{}); err != nil {
			t.Errorf("the probe: %v", err)
		}
		disktest.Write(t, dir, map[string]string{"probe-a/": ""}) // a killed probe leaves this
		if err := d.ProbeExchange(disk.Properties{}, disk.Properties{}); err != nil {
			t.Errorf("the probe after a killed one: %v", err)
		}
		names, err := d.Names()
		slices.Sort(names)
		if names = slices.DeleteFunc(names, func(n string) bool { return n == "lost+found" }); err != nil || !slices.Equal(names, []string{"live", "wrap"}) {
			t.Errorf("the probe left %v: %v", names, err)
		}
	})
}

func TestRemoveTreeFollowsNoSymlinkAndEntersNoMount(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, dir string) {
		disktest.Write(t, dir, map[string]string{
			"outside/canary": "c", "outside/d/canary": "c",
			"links/d/e/f": "x", "mounted/a/b": "x", "mounted/m/": "", "mounted/z/z": "z",
		})
		for _, err := range []error{
			os.Symlink("../outside", dir+"/links/dir"), os.Symlink("../outside/canary", dir+"/links/file"),
			os.Symlink(dir+"/outside", dir+"/links/d/absolute"), os.Symlink("outside", dir+"/top"),
			unix.Mkfifo(dir+"/links/fifo", 0o600), os.Chmod(dir+"/links/d/e", 0),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		before := disktest.Tree(t, dir+"/outside")
		d := open(t, dir)
		if err := d.RemoveTree("links"); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(dir + "/links"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("links still exists: %v", err)
		}
		if err := d.RemoveTree("top"); err == nil {
			t.Error("a symlink was removed as a tree")
		}
		disktest.Bind(t, dir+"/outside", dir+"/mounted/m")
		if err := d.RemoveTree("mounted"); err == nil {
			t.Error("a tree with a mount in it was removed")
		}
		disktest.Same(t, "the targets of links and mounts", before, disktest.Tree(t, dir+"/outside"))
		for _, name := range []string{"gone", "outside/gone"} {
			if err := d.RemoveTree(name); (err == nil) != (name == "gone") {
				t.Errorf("remove %s: %v", name, err)
			}
		}
	})
}

func TestRemoveTreeIfRemovesThatDirectoryOrNothing(t *testing.T) {
	dir := disktest.Mount(t, "ext4", 64)
	disktest.Write(t, dir, map[string]string{"old/a/b": "x", "other/c": "y", "src/canary": "c", "old/a/m/": "", "old/a-m/": ""})
	d := open(t, dir)
	want := handle(t, dir+"/old")
	refused := func(what, name string, h disk.Handle) {
		t.Helper()
		mounts, err := disk.ReadMounts()
		if err != nil {
			t.Fatal(err)
		}
		before := disktest.Tree(t, dir)
		if err := d.RemoveTreeIf(name, h, mounts); err == nil {
			t.Errorf("%s: removed", what)
		}
		disktest.Same(t, what, before, disktest.Tree(t, dir))
	}
	refused("another handle", "other", want)
	refused("no handle", "other", "")
	refused("a file", "src/canary", want)
	t.Run("a mount inside", func(t *testing.T) {
		disktest.Bind(t, dir+"/src", dir+"/old/a/m")
		refused("a bind mount inside", "old", want)
	})
	t.Run("a mount over it", func(t *testing.T) {
		disktest.Bind(t, dir+"/src", dir+"/old")
		refused("a mount over it", "old", want)
	})
	t.Run("itself mounted over it", func(t *testing.T) {
		disktest.Bind(t, dir+"/old", dir+"/old")
		refused("itself mounted over it", "old", want)
	})
	t.Run("a file mounted inside", func(t *testing.T) {
		disktest.Bind(t, dir+"/src/canary", dir+"/old/a/b")
		refused("a file mounted inside", "old", want)
	})
	mounts, err := disk.ReadMounts()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.RemoveTreeIf("gone", want, mounts); err != nil {
		t.Errorf("no such directory: %v", err)
	}
	if err := d.RemoveTreeIf("old", want, mounts); err != nil {
		t.Error(err)
	}
	if ok, err := d.Exists("old"); ok || err != nil {
		t.Errorf("the directory itself still exists: %t, %v", ok, err)
	}
}

// The end of a transaction and the clean-up of the next command may remove the same
// directory at the same time.
func TestTwoRemovalsOfTheSameTreeBothSucceed(t *testing.T) {
	dir := t.TempDir()
	for round := range 60 {
		files := map[string]string{}
		for i := range 40 {
			files[fmt.Sprintf("tree/%d/%d/x", i%5, i)] = ""
		}
		disktest.Write(t, dir, files)
		var both sync.WaitGroup
		errs := make([]error, 2)
		for i := range errs {
			d := open(t, dir)
			both.Go(func() { errs[i] = d.RemoveTree("tree") })
		}
		both.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
}

func TestPublishShowsTheOldContentOrAllOfTheNew(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	contents := []string{strings.Repeat("a", 100_000), strings.Repeat("b", 50_000)}
	if err := d.WriteTemp("file.tmp", []byte("left by a crash")); err != nil {
		t.Fatal(err)
	}
	if err := d.Publish("file", []byte(contents[0])); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if data, err := os.ReadFile(dir + "/file"); err != nil || !slices.Contains(contents, string(data)) {
				done <- fmt.Errorf("a reader saw %d bytes: %w", len(data), err)
				return
			}
		}
	}()
	for i := range 50 {
		if err := d.Publish("file", []byte(contents[i%2])); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if names, err := d.Names(); err != nil || !slices.Equal(names, []string{"file"}) {
		t.Errorf("the directory contains %v: %v", names, err)
	}
	if st, err := d.Lstat("file"); err != nil || st.Mode&0o7777 != 0o600 {
		t.Errorf("the mode is %o: %v", st.Mode, err)
	}
}

func TestOpeningRefusesAnythingButAFileAndNeverBlocks(t *testing.T) {
	disktest.NeedRoot(t)
	dir := t.TempDir()
	disktest.Write(t, dir, map[string]string{"file": "x", "d/file": "x"})
	for _, err := range []error{
		unix.Mkfifo(dir+"/fifo", 0o600), os.Symlink("file", dir+"/link"), os.Symlink("d", dir+"/dirlink"),
		unix.Mknod(dir+"/tty", unix.S_IFCHR|0o600, int(unix.Mkdev(5, 0))), os.Symlink("/proc/self/cwd", dir+"/magic"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	hang := time.AfterFunc(20*time.Second, func() { panic("an open blocked") })
	defer hang.Stop()
	d := open(t, dir)
	for _, name := range []string{"fifo", "link", "tty", "d", "dirlink/file", "magic", "../" + filepath.Base(dir) + "/file", dir + "/file", ".", ""} {
		if f, err := d.OpenFile(name); err == nil {
			f.Close()
			t.Errorf("OpenFile opened %s", name)
		}
		if name == "d" || name == "." {
			continue
		}
		if sub, err := d.Open(name); err == nil {
			sub.Close()
			t.Errorf("Open opened %s", name)
		}
	}
	if data, err := d.ReadFile("d/file", 1); string(data) != "x" || err != nil {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := d.ReadFile("d/file", 0); err == nil {
		t.Error("a file longer than the limit was read")
	}
	for name, create := range map[string]func(string) error{
		"CreateFile": func(n string) error { _, err := d.CreateFile(n); return err },
		"WriteTemp":  func(n string) error { return d.WriteTemp(n, nil) },
		"Mkdir":      func(n string) error { return d.Mkdir(n, 0o700) },
	} {
		for _, at := range []string{"fifo", "link", "file", "d", "a/b", "..", ".", "", "a\x00"} {
			if create(at) == nil {
				t.Errorf("%s created %q", name, at)
			}
		}
	}
}

func TestMakePrivateInheritsNothing(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, dir string) {
		acl := []byte{2, 0, 0, 0}
		for _, e := range [][2]uint32{{1, 7}, {2, 7}, {4, 7}, {0x10, 7}, {0x20, 7}} { // u::rwx u:1000:rwx g::rwx m::rwx o::rwx
			id := uint32(0xffffffff)
			if e[0] == 2 {
				id = 1000
			}
			acl = append(acl, byte(e[0]), 0, byte(e[1]), 0, byte(id), byte(id>>8), byte(id>>16), byte(id>>24))
		}
		for _, err := range []error{
			unix.Setxattr(dir, "system.posix_acl_default", acl, 0), os.Chown(dir, 1000, 1000), unix.Chmod(dir, 0o2777),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		defer unix.Umask(unix.Umask(0))
		made, err := open(t, dir).MakePrivate("wrap")
		if err != nil {
			t.Fatal(err)
		}
		defer made.Close()
		disktest.Write(t, dir, map[string]string{"wrap/d/f": ""})
		tree := disktest.Tree(t, dir+"/wrap")
		for _, line := range tree {
			if strings.Contains(line, "posix_acl") || !strings.Contains(line, "owner=0:0") {
				t.Errorf("inherited: %s", line)
			}
		}
		if st, err := made.Stat(); err != nil || st.Mode&0o7777 != 0o700 {
			t.Errorf("the mode is %o: %v", st.Mode&0o7777, err)
		}
		if _, err := open(t, dir).MakePrivate("wrap"); err == nil {
			t.Error("an existing directory was taken over")
		}
	})
}

func TestMkdirMakesExactlyTheModeAskedFor(t *testing.T) {
	disktest.NeedRoot(t)
	dir := t.TempDir()
	if err := unix.Chmod(dir, 0o2777); err != nil {
		t.Fatal(err)
	}
	for _, umask := range []int{0, 0o022, 0o777} {
		for _, mode := range []uint32{0o700, 0o755, 0o1777} {
			name := fmt.Sprintf("%o-%o", umask, mode)
			old := unix.Umask(umask)
			err := open(t, dir).Mkdir(name, mode)
			unix.Umask(old)
			if st, e := open(t, dir).Lstat(name); err != nil || e != nil || st.Mode&0o7777 != mode {
				t.Errorf("%s has mode %o: %v, %v", name, st.Mode&0o7777, err, e)
			}
		}
	}
}
