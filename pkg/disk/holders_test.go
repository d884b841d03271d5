package disk_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// TestMain is also the main function of a process that holds a directory: see hold.
func TestMain(m *testing.M) {
	if how := os.Getenv("SNAP_TEST_HOLD"); how != "" {
		if err := hold(how, os.Getenv("SNAP_TEST_PATH")); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ready")
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	os.Exit(m.Run())
}

// hold takes hold of a path in one way, and of nothing else.
func hold(how, path string) error {
	switch how {
	case "mapped":
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			_, err = unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			f.Close() // the mapping alone must be enough
		}
		return err
	case "chroot":
		return errors.Join(unix.Chroot(path), os.Chdir("/"))
	case "directory":
		_, err := unix.Open(path, unix.O_RDONLY, 0) // without O_DIRECTORY
		return err
	case "O_PATH":
		_, err := unix.Open(path, unix.O_PATH, 0)
		return err
	case "look":
		return look(path)
	case "thread":
		done := make(chan error)
		go func() {
			runtime.LockOSThread()
			err := unix.Unshare(unix.CLONE_FS)
			if err == nil {
				err = unix.Chdir(path)
			}
			done <- err
			select {}
		}()
		return <-done
	}
	return fmt.Errorf("hold %q", how)
}

func holding(t *testing.T, how, path string) int {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SNAP_TEST_HOLD="+how, "SNAP_TEST_PATH="+path)
	return process(t, cmd)
}

// process is [disktest.Process], and returns the id of the process.
func process(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	disktest.Process(t, cmd)
	return cmd.Process.Pid
}

func shell(t *testing.T, script string) int {
	return process(t, exec.Command("sh", "-c", script+"; echo ready; read x"))
}

// Everybody who can reach a directory by anything but its path: each kind of hold,
// from this mount namespace and from others.
func TestHoldersFindsWhoeverReachesTheDirectoryAndNobodyElse(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, dir string) {
		disktest.Write(t, dir, map[string]string{
			"vol/file": strings.Repeat("x", 8192), "vol/deep/file": "x", "vol/gone (deleted)": "x", "vol/unlinked": "x",
			"vol-sibling/file": "x", "other/file": "x", "vol/mnt/": "", "vol/new\nline": "x", "vol/removed/": "",
		})
		point := t.TempDir()
		elsewhere := func(mount, script string) int {
			return process(t, exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", mount+" && "+script+"; echo ready; read x"))
		}
		here := "mount --bind " + dir + "/vol " + point
		inside := "mount --bind " + dir + "/vol/deep " + point
		found := map[int]string{ // the processes that must be found, and how
			shell(t, "exec 3>>"+dir+"/vol/deep/file"):        "open for writing",
			shell(t, "exec 3<>"+dir+"/vol/deep/file"):        "open for writing",
			shell(t, "exec 3>>'"+dir+"/vol/gone (deleted)'"): "open for writing",
			shell(t, "exec 3>>'"+dir+"/vol/new\nline'"):      "open for writing",
			shell(t, "cd "+dir+"/vol && exec 3>>deep/file"):  "as its working directory, open for writing",
			holding(t, "mapped", dir+"/vol/file"):            "mapped",
			elsewhere(here, "exec 3>>"+point+"/file"):        "mounted, open for writing",
			elsewhere("true", "exec 3>>"+dir+"/vol/file"):    "open for writing",
			shell(t, "cd "+dir+"/vol"):                       "as its working directory",
			shell(t, "cd "+dir+"/vol/deep"):                  "as its working directory",
			elsewhere("true", "cd "+dir+"/vol/deep"):         "as its working directory",
			elsewhere(inside, "cd "+point):                   "as its working directory, mounted",
			elsewhere(here, "true"):                          "mounted",
			elsewhere(inside, "true"):                        "mounted",
			holding(t, "thread", dir+"/vol/deep"):            "as its working directory",
			holding(t, "chroot", dir+"/vol"):                 "as its root directory, as its working directory",
			holding(t, "chroot", dir+"/vol/deep"):            "as its root directory, as its working directory",
			holding(t, "directory", dir+"/vol/deep"):         "open as a directory",
			holding(t, "O_PATH", dir+"/vol"):                 "open as a directory",
			shell(t, "exec 3<"+dir+"/vol"):                   "open as a directory",
		}
		innocent := map[int]string{
			shell(t, "exec 3<"+dir+"/vol/file"):                                    "reads",
			holding(t, "O_PATH", dir+"/vol/file"):                                  "has a handle of a file",
			shell(t, "cd "+dir):                                                    "has its working directory above",
			shell(t, "cd "+dir+"/vol-sibling"):                                     "works in a directory whose name has the same beginning",
			shell(t, "exec 3>>"+dir+"/vol-sibling/file"):                           "writes to a directory whose name has the same beginning",
			shell(t, "exec 3>>"+dir+"/other/file"):                                 "writes elsewhere on the filesystem",
			shell(t, "exec 3>>"+dir+"/vol/unlinked; rm "+dir+"/vol/unlinked"):      "writes to a removed file",
			shell(t, "cd "+dir+"/vol/removed && rmdir "+dir+"/vol/removed"):        "works in a removed directory",
			holding(t, "chroot", dir+"/other"):                                     "has another root directory",
			elsewhere("mount --bind "+dir+" "+point, "true"):                       "mounts a directory above",
			elsewhere("mount --bind "+dir+"/other "+point, "cd "+point):            "works in another directory under a mount",
			elsewhere("mount -t tmpfs tmpfs "+dir+"/vol", "exec 3>>"+dir+"/vol/x"): "writes to what covers it",
		}
		how := map[int][]string{}
		for _, h := range holders(t, dir+"/vol") {
			if why := innocent[h.PID]; why != "" {
				t.Errorf("%v, but it only %s", h, why)
			}
			if h.Idle {
				t.Errorf("%v is idle", h)
			}
			if !slices.Contains(how[h.PID], h.How) {
				how[h.PID] = append(how[h.PID], h.How)
			}
		}
		for pid, want := range found {
			slices.Sort(how[pid])
			if got := strings.Join(how[pid], ", "); got != want {
				t.Errorf("process %d holds it %q, found %q", pid, want, got)
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
	if found, err = disk.Holders([]*disk.Dir{dir}); err != nil {
		t.Fatal(err)
	}
	// A container of another test that starts just now has a copy of all mounts until
	// runc has changed its root.
	found = slices.DeleteFunc(found, func(h disk.Holder) bool { return strings.HasPrefix(h.Command, "runc") })
	if len(found) == 0 {
		return nil
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
	loops := func() []disk.Holder {
		return slices.DeleteFunc(holders(t, dir+"/vol"), func(h disk.Holder) bool { return h.How == disk.Mounted })
	}
	if found := loops(); len(found) != 1 || found[0] != (disk.Holder{Command: device, Path: dir + "/elsewhere/disk", How: "attached"}) {
		t.Errorf("found %v", found)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	found := loops()
	if len(found) != 2 || !strings.Contains(found[0].How, "may be in the volume") || !strings.Contains(found[1].How, "may be in the volume") {
		t.Errorf("found %v after the end of the container", found)
	}
}

// Mounts hold a directory though no process has anything open: one in this mount
// namespace, an overlay that uses it as a layer, one in a namespace without a process,
// and those that only a chrooted process of another namespace shows.
func TestHoldersFindsMounts(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, dir string) {
		disktest.Write(t, dir, map[string]string{"vol/deep/file": "x", "other/upper/": "", "vol/upper/": "", "vol/work/": "", "jail/in/": "", "lower/": ""})
		check := func(t *testing.T, want string) {
			t.Helper()
			var got []string
			for _, h := range holders(t, dir+"/vol") {
				got = append(got, h.String())
			}
			if len(got) != 1 || !strings.Contains(got[0], want) {
				t.Errorf("found %q, expected %q", got, want)
			}
		}
		t.Run("none", func(t *testing.T) {
			if found := holders(t, dir+"/vol"); found != nil {
				t.Errorf("found %v", found)
			}
		})
		t.Run("here", func(t *testing.T) {
			point := t.TempDir()
			disktest.Bind(t, dir+"/vol", point)
			check(t, fmt.Sprintf("it is mounted at %q", point))
		})
		t.Run("inside", func(t *testing.T) {
			point := t.TempDir() + "/file"
			disktest.Write(t, filepath.Dir(point), map[string]string{"file": ""})
			disktest.Bind(t, dir+"/vol/deep/file", point)
			check(t, fmt.Sprintf("it is mounted at %q", point))
		})
		t.Run("overlay", func(t *testing.T) {
			point := t.TempDir()
			disktest.MountAt(t, point, "-t", "overlay", "overlay", "-o", "lowerdir="+dir+"/lower,upperdir="+dir+"/vol/upper,workdir="+dir+"/vol/work")
			check(t, fmt.Sprintf("it is mounted at %q", point))
		})
		t.Run("overlay of a part", func(t *testing.T) {
			point := t.TempDir()
			disktest.MountAt(t, point, "-t", "overlay", "overlay", "-o", "lowerdir="+dir+"/lower:"+dir+"/vol/deep")
			check(t, fmt.Sprintf("it is mounted at %q", point))
		})
		t.Run("without a process", func(t *testing.T) {
			point, keep := t.TempDir(), t.TempDir()
			disktest.MountAt(t, keep, "--bind", keep)
			disktest.Run(t, "mount", "--make-private", keep) // a namespace cannot be kept in a mount that propagates
			disktest.Write(t, keep, map[string]string{"ns": ""})
			disktest.Run(t, "unshare", "--mount="+keep+"/ns", "--propagation", "private", "mount", "--bind", dir+"/vol", point)
			t.Cleanup(func() { disktest.Run(t, "umount", keep+"/ns") })
			check(t, fmt.Sprintf("the mount namespace that %s keeps has it mounted at %q", keep+"/ns", point))
		})
	})
}

// An SFTP server in a jail: a process of another mount namespace that has changed its
// root sees mount points from there.
func TestHoldersFindsWhatAJailedProcessHas(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, dir string) {
		disktest.Write(t, dir, map[string]string{"vol/deep/file": "x", "jail/in/": "", "jail/self/": ""})
		jailed := func(script string) int {
			return process(t, exec.Command("unshare", "-m", "--propagation", "private", "sh", "-ec", `
				mount --bind "$1/vol" "$1/jail/in"
				SNAP_TEST_PATH=/in/deep exec perl -e 'chroot $ARGV[0] or die; chdir $ARGV[1] or die; open F, $ARGV[2], $ARGV[3] or die "$ARGV[3]: $!"; $|=1; print "ready\n"; <STDIN>' "$1/jail" `+script, "sh", dir))
		}
		want := map[int]string{
			jailed("/in/deep '<' /in/deep/file"): "as its working directory",
			jailed("/self '>>' /in/deep/file"):   "open for writing",
			jailed("/self '>' /self/own"):        "mounted",
		}
		got := map[int][]string{}
		for _, h := range holders(t, dir+"/vol") {
			got[h.PID] = append(got[h.PID], h.How)
			if !strings.HasPrefix(h.Path, dir+"/jail/in") {
				t.Errorf("%v: another path", h)
			}
		}
		for pid, how := range want {
			if !slices.Contains(got[pid], how) || !slices.Contains(got[pid], "mounted") {
				t.Errorf("process %d holds it %q, found %q", pid, how, got[pid])
			}
		}
	})
}

// The working directory of a shell at its prompt is no danger, nor is that of whoever
// waits for this process. That of a script, of a shell's job, and of any other program
// is.
func TestAShellAtItsPromptIsIdle(t *testing.T) {
	disktest.NeedRoot(t)
	disktest.Need(t, "script")
	at := func(t *testing.T, dir, command, input string) []disk.Holder {
		t.Helper()
		cmd := exec.Command("script", "-qec", command, "/dev/null")
		cmd.Dir = "/"
		cmd.Env = append(os.Environ(), "PS1=", "ENV=", "HISTFILE=")
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
		t.Cleanup(func() { in.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
		if _, err := io.WriteString(in, input); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() && !strings.HasSuffix(strings.TrimSpace(lines.Text()), "ready") {
		}
		// It says "ready" before it waits at its prompt.
		for range 30 {
			if found := holders(t, dir+"/vol"); len(found) > 0 && found[0].Idle {
				return found
			}
		}
		return holders(t, dir+"/vol")
	}
	// A shell that goes on after its terminal must not count in the next case, so
	// that each has a directory of its own, DIR.
	const cd = "cd DIR/vol; echo re''ady\n"
	for name, c := range map[string]struct {
		command, input string
		idle           bool
	}{
		"sh":               {"sh -i", cd, true},
		"bash":             {"bash --norc -i", cd, true},
		"a script":         {"sh DIR/run.sh", "", false},
		"a command":        {"sh -ic 'cd DIR/vol; echo ready; read x'", "", false},
		"a job of a shell": {"bash --norc -i", "cd DIR/vol; (echo re''ady; read x < DIR/pipe) & cd /\n", false},
		"another program":  {"sh -i", "cd DIR/vol; perl -e '$|=1; print \"re\".\"ady\\n\"; <STDIN>'\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			in := strings.NewReplacer("DIR", dir)
			disktest.Write(t, dir, map[string]string{"vol/file": "x", "run.sh": in.Replace("cd DIR/vol; echo ready; read x")})
			endAtPipe(t, dir+"/pipe")
			found := at(t, dir, in.Replace(c.command), in.Replace(c.input))
			if len(found) == 0 {
				t.Fatal("nobody was found")
			}
			if all := !slices.ContainsFunc(found, func(h disk.Holder) bool { return !h.Idle }); all != c.idle {
				t.Errorf("idle is %t: %+v", all, found)
			}
		})
	}
	t.Run("who waits for this process", func(t *testing.T) {
		dir := t.TempDir()
		disktest.Write(t, dir, map[string]string{"vol/file": "x"})
		cmd := exec.Command("sh", "-c", "cd "+dir+"/vol; "+os.Args[0]+" -test.run TestNobody; true") // a script
		cmd.Env = append(os.Environ(), "SNAP_TEST_HOLD=look", "SNAP_TEST_PATH="+dir+"/vol")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "(sh) has") || strings.Contains(string(out), "false") {
			t.Errorf("%s, %v", out, err)
		}
	})
}

// endAtPipe makes a pipe; who reads from it, or waits for one that writes, comes to
// its end with the test.
func endAtPipe(t *testing.T, path string) {
	t.Helper()
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if pipe, err := os.OpenFile(path, os.O_RDWR, 0); err != nil {
			t.Error(err)
		} else {
			pipe.Close()
		}
	})
}

// look prints the holders of a directory that wait for this process or for its parent.
func look(path string) error {
	d, err := disk.OpenRoot(path)
	if err != nil {
		return err
	}
	defer d.Close()
	found, err := disk.Holders([]*disk.Dir{d})
	for _, h := range found {
		fmt.Println(h, h.Idle)
	}
	return err
}

// BenchmarkHolders looks for holders on a host with 500 processes more, each with
// ten files open.
func BenchmarkHolders(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
	dir := b.TempDir()
	disktest.Write(b, dir, map[string]string{"vol/file": "x", "other": "x"})
	files := ""
	for fd := range 7 {
		files += fmt.Sprintf("exec %d>>%s/other; ", 3+fd, dir)
	}
	for range 500 {
		cmd := exec.Command("sh", "-c", files+"echo ready; read x")
		in, err := cmd.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { in.Close(); _ = cmd.Wait() })
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			b.Fatal(err)
		}
	}
	d, err := disk.OpenRoot(dir + "/vol")
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	var before, after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
	defer func() { // on a busy machine only this says what it costs
		_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
		spent := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
		b.ReportMetric(float64(spent)/float64(b.N)/1e6, "cpu-ms/op")
	}()
	for b.Loop() {
		if found, err := disk.Holders([]*disk.Dir{d}); err != nil || len(found) > 0 {
			b.Fatal(found, err)
		}
	}
}
