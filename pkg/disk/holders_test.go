package disk_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// TestMain is also the main function of a process that maps the file SNAP_TEST_MAP.
func TestMain(m *testing.M) {
	if path := os.Getenv("SNAP_TEST_MAP"); path != "" {
		os.Exit(mapAndWait(path))
	}
	os.Exit(m.Run())
}

func mapAndWait(path string) int {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		_, err = unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		f.Close() // the mapping alone must be enough
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// process starts a program that prints "ready" and then runs until the end of its
// standard input, which the end of the test closes.
func process(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the process printed %q: %v", line, err)
	}
	return cmd.Process.Pid
}

func shell(t *testing.T, script string) int {
	return process(t, exec.Command("sh", "-c", script+"; echo ready; read x"))
}

func TestHoldersFindsWhoCouldStillWriteAndNobodyElse(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, dir string) {
		disktest.Write(t, dir, map[string]string{
			"vol/file": strings.Repeat("x", 8192), "vol/deep/file": "x", "vol/gone (deleted)": "x", "vol/unlinked": "x",
			"vol-sibling/file": "x", "other/file": "x", "vol/mnt/": "", "vol/new\nline": "x",
		})
		point := t.TempDir()
		mapper := exec.Command(os.Args[0])
		mapper.Env = append(os.Environ(), "SNAP_TEST_MAP="+dir+"/vol/file")
		inOther := func(script string) *exec.Cmd {
			return exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", "mount --bind "+dir+"/vol "+point+" && "+script+"; echo ready; read x")
		}
		found := map[int]string{ // the processes that must be found, and how
			shell(t, "exec 3>>"+dir+"/vol/deep/file"):        "open for writing",
			shell(t, "exec 3<>"+dir+"/vol/deep/file"):        "open for writing",
			shell(t, "exec 3>>'"+dir+"/vol/gone (deleted)'"): "open for writing",
			shell(t, "exec 3>>'"+dir+"/vol/new\nline'"):      "open for writing",
			shell(t, "cd "+dir+"/vol && exec 3>>deep/file"):  "open for writing",
			process(t, mapper):                               "mapped",
			process(t, inOther("exec 3>>"+point+"/file")):    "open for writing, elsewhere",
			process(t, inOther("exec 3>>"+dir+"/vol/file")):  "open for writing, elsewhere",
		}
		innocent := map[int]string{
			shell(t, "exec 3<"+dir+"/vol/file"):                               "reads",
			shell(t, "cd "+dir+"/vol"):                                        "has its working directory there",
			shell(t, "exec 3>>"+dir+"/vol-sibling/file"):                      "writes to a directory whose name has the same beginning",
			shell(t, "exec 3>>"+dir+"/other/file"):                            "writes elsewhere on the filesystem",
			shell(t, "exec 3>>"+dir+"/vol/unlinked; rm "+dir+"/vol/unlinked"): "writes to a removed file",
		}
		d := open(t, dir+"/vol")
		for _, which := range []disk.Processes{disk.HostProcesses, disk.AllProcesses} {
			holders, err := disk.Holders([]*disk.Dir{d}, which)
			if err != nil {
				t.Fatal(err)
			}
			how := map[int]string{}
			for _, h := range holders {
				how[h.PID] = h.How
				if why := innocent[h.PID]; why != "" {
					t.Errorf("%v, but it only %s", h, why)
				}
			}
			for pid, want := range found {
				want, elsewhere := strings.CutSuffix(want, ", elsewhere")
				if elsewhere && which == disk.HostProcesses {
					want = ""
				}
				if how[pid] != want {
					t.Errorf("processes %d: process %d holds it as %q, found %q", which, pid, want, how[pid])
				}
			}
		}
	})
}

func TestAMountTableIsReadWithAllEscapes(t *testing.T) {
	disktest.NeedRoot(t)
	dir := t.TempDir()
	odd := dir + "/a b\tc\nd\\e - f"
	disktest.Write(t, dir, map[string]string{"a b\tc\nd\\e - f/in/": "", "src/": ""})
	disktest.Bind(t, dir+"/src", odd+"/in")
	mounts, err := disk.ReadMounts()
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, odd)
	if got, err := mounts.Inside(d); got != odd+"/in" || err != nil {
		t.Errorf("the mount inside is %q: %v", got, err)
	}
	if got, err := mounts.Inside(open(t, dir+"/src")); got != "" || err != nil {
		t.Errorf("the mount inside a directory without one is %q: %v", got, err)
	}
	for path, want := range map[string]bool{odd + "/in": true, odd: false} {
		if got, err := open(t, path).IsMountRoot(); got != want || err != nil {
			t.Errorf("%q is a mount point: %t, %v", path, got, err)
		}
	}
	if sub, err := d.OpenSameMount("in"); err == nil {
		sub.Close()
		t.Error("OpenSameMount crossed into a mount")
	}
}

func TestLockedSeesTheFlags(t *testing.T) {
	disktest.Need(t, "chattr")
	disktest.EachFS(t, func(t *testing.T, dir string) {
		disktest.Write(t, dir, map[string]string{"i/": "", "a/": "", "n/": ""})
		for _, flag := range []string{"i", "a"} {
			disktest.Run(t, "chattr", "+"+flag, dir+"/"+flag)
			defer disktest.Run(t, "chattr", "-"+flag, dir+"/"+flag)
		}
		for name, want := range map[string]bool{"i": true, "a": true, "n": false} {
			if got, err := open(t, dir+"/"+name).Locked(); got != want || err != nil {
				t.Errorf("%s: %t, %v", name, got, err)
			}
		}
	})
}

// disks makes files large enough for a loop device.
func disks(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, make([]byte, 1<<20), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// holders returns the holders of a volume.
func holders(t *testing.T, volume string) (found []disk.Holder) {
	t.Helper()
	dir, err := disk.OpenRoot(volume)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if found, err = disk.Holders([]*disk.Dir{dir}, disk.AllProcesses); err != nil {
		t.Fatal(err)
	}
	return found
}

func TestHoldersFindsALoopDevice(t *testing.T) {
	disktest.NeedRoot(t)
	disktest.Need(t, "losetup")
	dir := t.TempDir()
	disks(t, dir+"/vol/disk", dir+"/vol/read-only", dir+"/vol/removed", dir+"/other/disk")
	device := disktest.Attach(t, nil, dir+"/vol/disk")
	disktest.Attach(t, nil, "-r", dir+"/vol/read-only")
	disktest.Attach(t, nil, dir+"/vol/removed")
	disktest.Attach(t, nil, dir+"/other/disk")
	if err := os.Remove(dir + "/vol/removed"); err != nil {
		t.Fatal(err)
	}
	if found := holders(t, dir+"/vol"); len(found) != 1 || found[0] != (disk.Holder{Command: device, Path: dir + "/vol/disk", How: "attached"}) {
		t.Errorf("found %v", found)
	}
}

// TestHoldersFindsALoopDeviceOfAContainer attaches two files in another mount
// namespace: a file of the volume under a path that does not exist here, and another
// file under the path of a file of the volume. Once that namespace has ended, nobody
// can tell the two apart.
func TestHoldersFindsALoopDeviceOfAContainer(t *testing.T) {
	disktest.NeedRoot(t)
	for _, program := range []string{"losetup", "unshare", "nsenter"} {
		disktest.Need(t, program)
	}
	dir := disktest.Mount(t, "ext4", 16) // its own filesystem: on a shared one, other people's loop devices would be found too
	disks(t, dir+"/vol/disk", dir+"/vol/same", dir+"/other/same", dir+"/elsewhere/empty")
	cmd := exec.Command("unshare", "--mount", "sh", "-ec", `
		mount --bind "$1/vol" "$1/elsewhere"
		mount --bind "$1/other" "$1/vol"
		echo ready
		exec cat`, "sh", dir)
	pid := process(t, cmd)
	inside := []string{"nsenter", "--mount", "--target", strconv.Itoa(pid)}
	device := disktest.Attach(t, inside, dir+"/elsewhere/disk")
	disktest.Attach(t, inside, dir+"/vol/same")
	if found := holders(t, dir+"/vol"); len(found) != 1 || found[0] != (disk.Holder{Command: device, Path: dir + "/elsewhere/disk", How: "attached"}) {
		t.Errorf("found %v", found)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	found := holders(t, dir+"/vol")
	if len(found) != 2 || !strings.Contains(found[0].How, "may be in the volume") || !strings.Contains(found[1].How, "may be in the volume") {
		t.Errorf("found %v after the end of the container", found)
	}
}
