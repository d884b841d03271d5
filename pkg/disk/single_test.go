package disk

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// TestOnlyARegularFileIsOpenedAsOne: a fifo would block, a device does something, and a
// symbolic link leads elsewhere.
func TestOnlyARegularFileIsOpenedAsOne(t *testing.T) {
	disktest.NeedRoot(t)
	path := t.TempDir()
	dir, err := OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for name, c := range map[string]struct {
		make func(at string) error
		want error
	}{
		"file":      {func(at string) error { return os.WriteFile(at, []byte("x"), 0) }, nil},
		"fifo":      {func(at string) error { return unix.Mkfifo(at, 0o600) }, ErrNotRegular},
		"device":    {func(at string) error { return unix.Mknod(at, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) }, ErrNotRegular},
		"directory": {func(at string) error { return os.Mkdir(at, 0o700) }, ErrNotRegular},
		"symlink":   {func(at string) error { return os.Symlink("/etc/passwd", at) }, ErrNotRegular},
		"dangling":  {func(at string) error { return os.Symlink("nowhere", at) }, ErrNotRegular},
		"nothing":   {func(string) error { return nil }, unix.ENOENT},
		"..":        {func(string) error { return nil }, unix.EINVAL},
		"a/b":       {func(string) error { return nil }, unix.EINVAL},
	} {
		if err := c.make(filepath.Join(path, name)); err != nil {
			t.Fatal(err)
		}
		f, err := dir.OpenSingle(name)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, expected %v", name, err, c.want)
		}
		if err == nil && f.File() != name {
			t.Errorf("the file is called %q", f.File())
		}
		f.Close()
	}
}

// TestASingleFileIsItselfWhateverHasItsName: the handle stays, and what is read is the
// opened file. Nothing is below it.
func TestASingleFileIsItselfWhateverHasItsName(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, path string) {
		disktest.Write(t, path, map[string]string{"live": "own", "other": "other"})
		dir, err := OpenRoot(path)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		f, err := dir.OpenSingle("live")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		own, err := f.Handle()
		other, otherErr := dir.HandleOfSingle("other")
		if err != nil || otherErr != nil || own == other || own == "" {
			t.Fatalf("the handles are %q and %q: %v, %v", own, other, err, otherErr)
		}
		if err := dir.Exchange("live", dir, "other"); err != nil {
			t.Fatal(err)
		}
		if now, err := dir.HandleOfSingle("live"); err != nil || now != other {
			t.Errorf("after the exchange the name has %q: %v", now, err)
		}
		if now, err := f.Handle(); err != nil || now != own {
			t.Errorf("after the exchange the open file has %q: %v", now, err)
		}
		read, err := f.OpenFile("live")
		if err != nil {
			t.Fatal(err)
		}
		defer read.Close()
		if text, err := io.ReadAll(read); string(text) != "own" {
			t.Errorf("read is %q: %v", text, err)
		}
		if _, err := f.OpenFile("other"); !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("below a file: %v", err)
		}
		if _, err := f.Names(); !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("the names in a file: %v", err)
		}
		if err := dir.RemoveSingleIf("live", own); err == nil {
			t.Error("another file was removed")
		}
		if err := errors.Join(dir.RemoveSingleIf("other", own), dir.RemoveSingleIf("other", own)); err != nil {
			t.Errorf("removing it, and then what is gone: %v", err)
		}
		if names, err := os.ReadDir(path); err != nil || len(names) == 0 || names[0].Name() != "live" {
			t.Errorf("left are %v: %v", names, err)
		}
	})
}

// TestWhatAProcessHasAtAPath looks through its mounts and below its root, and follows no
// link out of that.
func TestWhatAProcessHasAtAPath(t *testing.T) {
	disktest.NeedRoot(t)
	path := t.TempDir()
	disktest.Write(t, path, map[string]string{"a": "1", "b": "2"})
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", "mount --bind "+path+"/a "+path+"/b && echo ready && read x")
	disktest.Process(t, cmd)
	var own unix.Stat_t
	if err := unix.Stat(path+"/a", &own); err != nil {
		t.Fatal(err)
	}
	st, err := StatIn(cmd.Process.Pid, path+"/b")
	if err != nil || st.Ino != own.Ino {
		t.Errorf("the process has %+v: %v", st, err)
	}
	if st, err := StatIn(os.Getpid(), path+"/b"); err != nil || st.Ino == own.Ino {
		t.Errorf("this process has %+v: %v", st, err)
	}
}
