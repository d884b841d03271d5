package archive_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// captured captures dir, calls act after the line of a name, and returns the directory
// to which the capture was restored.
func captured(t *testing.T, dir, name string, act func()) (*archive.Result, string) {
	t.Helper()
	sink := newMemory()
	result, err := archive.Write(context.Background(), open(t, dir), sink, archive.WriteOptions{
		Index: func(l *archive.Line) error {
			if l.Name == name {
				act()
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return result, extract(t, sink, result, dir+".back")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestAReusedInodeNumberIsNotAnAdditionalName delivers mail during the
// walk, by a link from one directory to another.
func TestAReusedInodeNumberIsNotAnAdditionalName(t *testing.T) {
	dir := filepath.Join(disktest.Mount(t, "ext4", 64), "mail")
	disktest.Write(t, mkdir(t, dir), map[string]string{"new/1": "the first", "old/": "", "tmp/": "", "z/": ""})
	must(t, os.Link(dir+"/new/1", dir+"/tmp/1"))
	var first, second syscall.Stat_t
	_, back := captured(t, dir, "old", func() {
		must(t, syscall.Stat(dir+"/new/1", &first))
		must(t, os.Remove(dir+"/tmp/1"))
		must(t, os.Remove(dir+"/new/1"))
		disktest.Write(t, dir, map[string]string{"z/2": "the second"})
		must(t, os.Link(dir+"/z/2", dir+"/z/3"))
		must(t, syscall.Stat(dir+"/z/2", &second))
	})
	if first.Ino != second.Ino {
		t.Fatalf("the inode is not the same: %d, then %d", first.Ino, second.Ino)
	}
	for _, name := range []string{"z/2", "z/3"} {
		if got, err := os.ReadFile(back + "/" + name); err != nil || string(got) != "the second" {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
}

func TestANameThatVanishesIsLookedForAgainAndReported(t *testing.T) {
	for name, c := range map[string]struct {
		to    string // "" for removed
		there bool   // it is met under its new name
	}{
		"to one that is to come": {to: "log.1", there: true},
		"to one that has been":   {to: "aa"},
		"removed":                {},
	} {
		t.Run(name, func(t *testing.T) {
			dir := mkdir(t, filepath.Join(t.TempDir(), "v"))
			disktest.Write(t, dir, map[string]string{"a": "1", "b": "2", "log": "precious", "z": "3"})
			result, back := captured(t, dir, "a", func() {
				if c.to == "" {
					must(t, os.Remove(dir+"/log"))
					return
				}
				must(t, os.Rename(dir+"/log", dir+"/"+c.to))
			})
			for _, name := range []string{"a", "b", "z"} {
				if _, err := os.Lstat(back + "/" + name); err != nil {
					t.Error(err)
				}
			}
			got, err := os.ReadFile(back + "/" + c.to)
			if there := err == nil && string(got) == "precious"; there != c.there {
				t.Errorf("%q is %q, %v", c.to, got, err)
			}
			if !slices.Equal(result.Changed, []string{"log"}) || result.ChangedCount != 1 {
				t.Errorf("reported are %q, %d in all", result.Changed, result.ChangedCount)
			}
		})
	}
}

// TestAllNamesOfADirectoryMayVanish removes all names at once. The next
// listing has none of them, and each is reported.
func TestAllNamesOfADirectoryMayVanish(t *testing.T) {
	dir := mkdir(t, filepath.Join(t.TempDir(), "v"))
	files := map[string]string{"a": "1"}
	for i := range 100 {
		files[fmt.Sprintf("b%02d", i)] = "2"
	}
	disktest.Write(t, dir, files)
	result, _ := captured(t, dir, "a", func() {
		for i := range 100 {
			must(t, os.Remove(fmt.Sprintf("%s/b%02d", dir, i)))
		}
		disktest.Write(t, dir, map[string]string{"c": "3"})
	})
	if result.Stats.Files != 2 || result.ChangedCount != 100 {
		t.Errorf("%+v, reported are %d: %q", result.Stats, result.ChangedCount, result.Changed)
	}
}

// TestALeaseIsWaitedFor captures a file on which somebody holds a write lease, as Samba
// does. The holder gives the lease up when the kernel asks for it.
func TestALeaseIsWaitedFor(t *testing.T) {
	dir := mkdir(t, filepath.Join(t.TempDir(), "v"))
	disktest.Write(t, dir, map[string]string{"a": "1", "leased": "2"})
	f, err := os.OpenFile(dir+"/leased", os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGIO)
	defer signal.Stop(asked)
	lease := func(kind int) error {
		_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, kind)
		return err
	}
	must(t, lease(unix.F_WRLCK))
	giving, given := make(chan struct{}), make(chan error, 1)
	go func() {
		<-asked
		time.Sleep(50 * time.Millisecond)
		close(giving)
		given <- lease(unix.F_UNLCK)
	}()
	result, back := captured(t, dir, "", nil)
	select {
	case <-giving:
		must(t, <-given)
	default:
		t.Error("nobody waited for the lease")
	}
	if got, err := os.ReadFile(back + "/leased"); err != nil || string(got) != "2" || result.ChangedCount != 0 {
		t.Errorf("the file is %q, %v; %d are reported", got, err, result.ChangedCount)
	}
}

// TestLeasesAreNotWaitedForForever has three files. Their holder gives up each
// lease, but so late that the total time is over before the last one.
func TestLeasesAreNotWaitedForForever(t *testing.T) {
	dir := mkdir(t, filepath.Join(t.TempDir(), "v"))
	names := []string{"a", "b", "c"}
	asked := make(chan os.Signal, len(names))
	signal.Notify(asked, syscall.SIGIO)
	files := make(chan *os.File, len(names))
	for _, name := range names {
		disktest.Write(t, dir, map[string]string{name: name})
		f, err := os.OpenFile(dir+"/"+name, os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
		must(t, err)
		files <- f
	}
	var holder sync.WaitGroup
	holder.Go(func() {
		for range asked { // in the order of the walk, which is that of files
			time.Sleep(500 * time.Millisecond)
			_, _ = unix.FcntlInt((<-files).Fd(), unix.F_SETLEASE, unix.F_UNLCK)
		}
	})
	defer func() { signal.Stop(asked); close(asked); holder.Wait() }()
	_, err := archive.Write(t.Context(), open(t, dir), newMemory(), archive.WriteOptions{Leases: 1200 * time.Millisecond})
	if !errors.Is(err, unix.EWOULDBLOCK) || !strings.Contains(err.Error(), "lease") {
		t.Errorf("%v, want that a lease was not waited for", err)
	}
}

// TestFewDescriptorsAreEnough captures a tree twice, with a change between. Its waiting
// entries and its clones would need more descriptors than there are.
func TestFewDescriptorsAreEnough(t *testing.T) {
	mount := disktest.Mount(t, "xfs", 512)
	dir := mkdir(t, mount+"/v")
	files := map[string]string{}
	for i := range 100 {
		files[fmt.Sprintf("a/%03d", i)] = string(make([]byte, 300<<10))
	}
	for i := range 2000 { // in groups of hundreds, which are read
		files[fmt.Sprintf("b/%05d", i)] = ""
	}
	for i := range 100 { // in groups of ten, which are taken over
		files[fmt.Sprintf("c/%05d", i)] = string(make([]byte, 8<<10))
	}
	disktest.Write(t, dir, files)
	sink := newMemory()
	first := read(t, dir, sink, nil, archive.Timespec{}, nil)
	since := ago(-time.Hour) // nothing is hot
	for i := range 100 {
		f, err := os.OpenFile(fmt.Sprintf("%s/a/%03d", dir, i), os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteAt([]byte("changed"), 1000)
		must(t, err)
		must(t, f.Close())
	}
	var limit syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	defer func() { must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)) }()
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 128, Max: limit.Max}))
	start := func(writers int) *archive.Writing {
		writing, err := archive.Start(context.Background(), open(t, dir), sink,
			archive.WriteOptions{Known: known(sink, first, since), Clones: open(t, mount), Writers: writers})
		must(t, err)
		return writing
	}
	one := start(4)
	shared := one.Cloned()
	one.Abandon()
	writing := start(1)
	if all := writing.Cloned(); shared == 0 || all != 4*shared {
		t.Errorf("cloned are %d bytes where four writers share the descriptors, %d where there is one", shared, all)
	}
	result, err := writing.Finish()
	must(t, err)
	if result.Reused == 0 || result.Stats.Files != int64(len(files)) {
		t.Errorf("reused are %d of %d", result.Reused, result.Stats.Files)
	}
}

func TestASurveyCountsWhatACaptureDoes(t *testing.T) {
	dir := mkdir(t, filepath.Join(t.TempDir(), "v"))
	disktest.Write(t, dir, map[string]string{"a": "12345", "d/b": "123"})
	must(t, os.Link(dir+"/a", dir+"/d/c"))
	must(t, os.Symlink("a", dir+"/l"))
	result, err := write(t, dir, archive.WriteOptions{})
	must(t, err)
	got, err := archive.Survey(context.Background(), open(t, dir), archive.WriteOptions{})
	if err != nil || got.Stats != result.Stats {
		t.Errorf("the survey says %+v, %v; the capture %+v", got, err, result.Stats)
	}
}
