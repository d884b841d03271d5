package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
)

// What tells a secret of the host from all else, wherever it turns up: its
// content, its name, its owner, its time and its attribute.
const (
	secretName  = "name-of-a-secret"
	secretOwner = 3735928559
	secretTime  = 1111111117
	secretAttr  = "attribute-of-a-secret"
)

// scenes are what a container swaps, and the verb that runs meanwhile. Of a
// verb that may end in any way it is only asked what it read and wrote.
var scenes = []struct{ swapped, verb string }{
	{"dir", "capture"}, {"dir", "restore"},
	{"rename", "capture"}, {"rename", "restore"},
	{"parent", "capture"}, {"parent", "restore"},
	{"file", "capture"}, {"file", "restore"},
	{"fifo", "capture"}, {"fifo", "restore"},
	{"chardev", "capture"}, {"blockdev", "capture"}, {"chardev", "restore"},
	{"volume", "capture"},
	{"stage", "restore"},
}

// A container owns its volume. While root captures and restores, it swaps
// directories for symlinks to a secret of the host, files for fifos and devices, and
// the components above them. Nothing outside the volume is ever opened or changed,
// and nothing hangs.
//
// A race between a check and an open shows sooner in the many walks of
// pkg/archive/race_test.go than here, where a walk is a small part of a run.
// SNAP_CRASH=all makes both tests longer: a million swaps.
func TestNoContainerMakesSnapReachOutOfItsVolume(t *testing.T) {
	disktest.NeedRoot(t)
	swaps, runs := 40_000, 3
	if os.Getenv("SNAP_CRASH") == "all" {
		swaps, runs = 1_000_000, 15
	}
	image, snap := dockertest.Image(t, "./testdata/flip"), installedSnap(t)
	r := newRace(t, snap, image)
	total := 0
	for pass := 0; pass == 0 || total < swaps && pass < 20 && !t.Failed(); pass++ {
		for _, scene := range scenes {
			r.named(scene.swapped+" during a "+scene.verb, func(*host) {
				count, ends := 0, map[int]int{}
				for n := 0; n < runs && !r.Failed(); n++ {
					swapped, exit := r.round(scene.swapped, scene.verb)
					count += swapped
					ends[exit]++
					if exit == 6 { // what it left is the operator's: go on with another host
						r.nothingLeaked()
						whole := r.T
						r = newRace(t, snap, image)
						r.T = whole
					}
				}
				r.nothingLeaked()
				r.Logf("%d swaps, exit codes %v", count, ends)
				if count < runs {
					r.Errorf("only %d swaps in %d runs", count, runs)
				}
				total += count
			})
		}
	}
	t.Logf("%d swaps", total)
	if total < swaps {
		t.Errorf("only %d swaps, expected %d", total, swaps)
	}
}

// random is a random text.
func random(t *testing.T) string {
	t.Helper()
	b := make([]byte, 2048)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", b)
}

// race is a host with a secret and a container that is after it.
type race struct {
	*host
	secret           string // the content
	untouchedOutside []string
	outside          string
	sid              string // an honest snapshot
	in               io.WriteCloser
	out              *bufio.Reader
	watch            int // inotify(7)
}

func newRace(t *testing.T, snap, image string) *race {
	t.Helper()
	dir := t.TempDir()
	r := &race{host: &host{T: t, snap: snap, dir: dir}, secret: random(t), outside: filepath.Join(dir, "host")}
	disktest.Write(t, dir, map[string]string{
		"snap.yaml": fmt.Sprintf("version: 1\nstate: %[1]s/state\nstore: %[1]s/store\nabsolute_roots: [%[1]s/vol]\nworkloads:\n"+
			"  files: {volumes: [{name: files, scope: absolute, source: %[1]s/vol/top/live}]}\n", dir),
		"vol/top/live/a": "harmless", "vol/top/live/z/z": "harmless",
		"host/secret": r.secret, "host/d/secret": r.secret, "host/p/q/secret": r.secret, "host/" + secretName: r.secret,
		"elsewhere/top/live/secret": r.secret,
	})
	for i := range 12 { // a restore has these in its stage
		disktest.Write(t, dir, map[string]string{fmt.Sprintf("vol/top/live/stage%02d/d/secret", i): "harmless"})
	}
	for _, name := range r.secrets() {
		err := errors.Join(unix.Setxattr(name, "user.secret", []byte(secretAttr), 0), os.Chown(name, secretOwner, secretOwner),
			unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{{Sec: secretTime}, {Sec: secretTime}}, 0))
		if err != nil {
			t.Fatal(err)
		}
	}
	r.untouchedOutside = r.around()
	o := r.run("capture", "files", "--json")
	if o.exit != 0 {
		t.Fatalf("the honest capture: %s", o.stdout)
	}
	r.sid = field(t, o.stdout, "sid")
	r.start(image)
	r.observe()
	return r
}

// secrets are all names outside.
func (r *race) secrets() []string {
	r.Helper()
	return strings.Fields(disktest.Run(r.T, "find", r.outside, r.elsewhere()))
}

// elsewhere is to what the way to the volume is swapped.
func (r *race) elsewhere() string { return filepath.Join(r.dir, "elsewhere") }

// around describes all that lies outside.
func (r *race) around() []string {
	r.Helper()
	return slices.Sorted(slices.Values(append(disktest.Tree(r.T, r.outside), disktest.Tree(r.T, r.elsewhere())...)))
}

// start starts the container. It has no way to the secret but the names that
// root follows for it.
func (r *race) start(image string) {
	r.Helper()
	name := "snap-test-flip-" + random(r.T)[:12]
	c := exec.Command("docker", "run", "--rm", "-i", "--network", "none", "--cap-add", "MKNOD", "--name", name, "-v", filepath.Join(r.dir, "vol")+":/vol", image)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	var err error
	if r.in, err = c.StdinPipe(); err != nil {
		r.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		r.Fatal(err)
	}
	r.out = bufio.NewReader(out)
	r.Cleanup(func() {
		r.in.Close() // which ends it
		if err := c.Wait(); err != nil {
			r.Errorf("the container: %v: %s", err, stderr.String())
			_ = exec.Command("docker", "rm", "-f", name).Run() // it may be gone
		}
	})
}

// observe watches everything outside for being opened.
func (r *race) observe() {
	r.Helper()
	var err error
	if r.watch, err = unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { unix.Close(r.watch) })
	for _, name := range r.secrets() {
		// Where the way to a volume leads is asked for its handle, for the locks,
		// for which it must be opened: but not read.
		if strings.HasPrefix(name, r.elsewhere()) && !strings.HasSuffix(name, "secret") {
			r.observeOne(name, unix.IN_ACCESS|unix.IN_CREATE|unix.IN_DELETE|unix.IN_ATTRIB)
			continue
		}
		r.observeOne(name, opened|unix.IN_CREATE|unix.IN_DELETE|unix.IN_ATTRIB)
	}
}

const opened = unix.IN_OPEN | unix.IN_ACCESS | unix.IN_MODIFY

func (r *race) observeOne(name string, events uint32) {
	r.Helper()
	if _, err := unix.InotifyAddWatch(r.watch, name, events|unix.IN_DONT_FOLLOW); err != nil {
		r.Fatal(err)
	}
}

// forget takes what was observed so far as seen.
func (r *race) forget() {
	buf := make([]byte, 64<<10)
	for n := 1; n > 0; {
		n, _ = unix.Read(r.watch, buf)
	}
}

// observed fails the test where something was opened that must not be.
func (r *race) observed() {
	r.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Read(r.watch, buf)
	if errors.Is(err, unix.EAGAIN) {
		return
	}
	if err != nil {
		r.Fatal(err)
	}
	for at := 0; at < n; {
		e := (*unix.InotifyEvent)(unsafe.Pointer(&buf[at]))
		if e.Mask&unix.IN_IGNORED == 0 {
			r.Errorf("what lies outside, or what blocks, was opened or changed: event %#x", e.Mask)
			return
		}
		at += unix.SizeofInotifyEvent + int(e.Len)
	}
}

// round runs the verb while the container swaps.
func (r *race) round(swapped, verb string) (swaps, exit int) {
	r.Helper()
	target := r.outside
	if swapped == "volume" {
		target = r.elsewhere()
	}
	r.tell("start %s %s", swapped, target)
	if got := r.answer(); got != "ready" {
		r.Fatalf("the container says %q", got)
	}
	if swapped == "fifo" || swapped == "chardev" || swapped == "blockdev" {
		decoys, err := filepath.Glob(filepath.Join(r.dir, "vol/away/*"))
		if err != nil || len(decoys) == 0 {
			r.Fatalf("nothing to swap in: %v", err)
		}
		for _, name := range decoys {
			r.observeOne(name, opened) // not IN_ATTRIB, which a rename is too
		}
	}
	r.tell("go")
	args := []string{"capture", "files", "--quiesce", "none"}
	if verb == "restore" {
		args = []string{"restore", "files", r.sid, "--confirm", r.sid}
	}
	o := r.run(args...)
	r.tell("stop")
	swaps, err := strconv.Atoi(r.answer())
	if err != nil {
		r.Fatal(err)
	}
	r.observed()
	if o.exit < 0 || o.exit == 2 || o.exit == 4 || o.exit > 7 {
		r.Errorf("the %s ended with %d: %s", verb, o.exit, o.stderr)
	}
	if o.exit == 1 || o.exit > 4 {
		r.Logf("exit code %d: %s", o.exit, o.stderr)
	}
	return swaps, o.exit
}

func (r *race) tell(format string, args ...any) {
	r.Helper()
	if _, err := fmt.Fprintf(r.in, format+"\n", args...); err != nil {
		r.Fatal(err)
	}
}

func (r *race) answer() string {
	r.Helper()
	line, err := r.out.ReadString('\n')
	if err != nil {
		r.Fatalf("the container has ended: %v", err)
	}
	return strings.TrimSpace(line)
}

// nothingLeaked looks for the secret in every byte of the store, published or not,
// and checks everything outside.
func (r *race) nothingLeaked() {
	r.Helper()
	r.observed()
	marks := []string{r.secret[:64], secretName, secretAttr, fmt.Sprint(secretOwner), fmt.Sprint(secretTime), fmt.Sprintf("%011o", secretTime)}
	looked := 0
	files := strings.Split(strings.TrimSpace(disktest.Run(r.T, "find", filepath.Join(r.dir, "store"), filepath.Join(r.dir, "state"), "-type", "f")), "\n")
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			r.Fatal(err)
		}
		if zr, err := gzip.NewReader(bytes.NewReader(data)); err == nil {
			plain, _ := io.ReadAll(zr) // one that is left behind may be cut
			data = append(data, plain...)
			looked++
		}
		for _, mark := range marks {
			if bytes.Contains(data, []byte(mark)) {
				r.Errorf("%s holds the secret %.40q", name, mark)
			}
		}
	}
	if looked < 2 {
		r.Errorf("only %d members were looked at", looked)
	}
	if d := disktest.Diff(r.untouchedOutside, r.around()); d != "" {
		r.Errorf("outside has changed:\n%s", d)
	}
	r.forget() // what the look itself has opened
}
