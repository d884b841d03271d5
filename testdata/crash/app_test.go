//go:build linux && amd64

package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
)

// blog is an app with two volumes in a real container. One volume has its lines and
// the other their number, so volumes of two moments do not match.
type blog struct {
	*testing.T
	name, dir, config string
}

func newBlog(t *testing.T) *blog {
	t.Helper()
	disktest.NeedRoot(t)
	image := dockertest.Image(t, "../app")
	dir, err := os.MkdirTemp("/var/tmp", "snap-crash") // on a disk, which /tmp may not be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := &blog{T: t, name: "soak" + disk.NewID(time.Now())[17:], dir: dir, config: filepath.Join(dir, "snap.yaml")}
	text := fmt.Sprintf(`version: 1
state: %[1]s/state
store: %[1]s/store
absolute_roots: [%[1]s/live]
workloads:
  %[2]s:
    image: %[3]s
    environment: {META: /meta}
    restart: always
    healthcheck: {test: [CMD, /app, healthcheck], interval: 500ms, timeout: 30s}
    volumes:
      - {name: data, scope: absolute, source: %[1]s/live/data, target: /data}
      - {name: meta, scope: absolute, source: %[1]s/live/meta, target: /meta}
`, dir, b.name, image)
	for _, sub := range []string{"live/data", "live/meta"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(b.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dockertest.Undeploy(t, b.name) })
	b.snap("deploy", b.name)
	return b
}

func (b *blog) snap(args ...string) string {
	b.Helper()
	cmd := exec.Command(programs.snap, append([]string{"--config", b.config}, args...)...)
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("snap %q: %v: %s", args, err, errOut.String())
	}
	return strings.TrimSpace(string(out))
}

func (b *blog) app(args ...string) string {
	b.Helper()
	return disktest.Run(b.T, "docker", append([]string{"exec", b.name, "/app"}, args...)...)
}

// killed runs snap and kills it after some time. It reports whether snap finished
// before that.
func (b *blog) killed(after time.Duration, args ...string) (out string, finished bool) {
	b.Helper()
	cmd := exec.Command(programs.snap, append([]string{"--config", b.config}, args...)...)
	var text strings.Builder
	cmd.Stdout = &text
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	alarm := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	defer alarm.Stop()
	err := cmd.Wait()
	return strings.TrimSpace(text.String()), err == nil
}

// recoverFully recovers until nothing is left to recover, because the watchdog of
// the killed snap may be recovering too.
func (b *blog) recoverFully() []finding {
	b.Helper()
	end := time.Now().Add(tooLong)
	for ; ; time.Sleep(50 * time.Millisecond) {
		out, err := exec.Command(programs.snap, "--config", b.config, "--json", "recover").Output()
		if err == nil && strings.Contains(string(out), `"transactions":[]`) {
			break
		}
		if time.Now().After(end) {
			return []finding{{"stuck", fmt.Sprintf("recover: %v: %s", err, out)}}
		}
	}
	// The watchdog may have ended the transaction a moment ago and still be removing its
	// folder: a recovery leaves that to it.
	var found []finding
	for ; ; time.Sleep(50 * time.Millisecond) {
		if found = b.leftOver(); len(found) == 0 || time.Now().After(end) {
			break
		}
	}
	return append(found, b.up()...)
}

// leftOver reports what no operation should leave.
func (b *blog) leftOver() (found []finding) {
	for _, pattern := range []string{"live/.snap-*", "state/tx/*", "state/tx/.[!.]*", "store/scratch/*"} {
		left, err := filepath.Glob(filepath.Join(b.dir, pattern))
		if err != nil || len(left) > 0 {
			found = append(found, finding{"stuck", fmt.Sprintf("left over: %q %v", left, err)})
		}
	}
	return found
}

// up checks that the workload has exactly one container, which runs as configured.
func (b *blog) up() []finding {
	b.Helper()
	list := dockertest.Containers(b.T, b.name)
	if len(list) != 1 {
		return []finding{{"stuck", fmt.Sprintf("%d containers", len(list))}}
	}
	if c := list[0]; !c.Running || c.Paused || c.Name != b.name || c.Policy != "always" {
		return []finding{{"stuck", fmt.Sprintf("the app does not run as configured: %+v", c)}}
	}
	return nil
}

// answers waits until the app serves, and asks it for its lines and their number.
func (b *blog) answers() (lines string, found []finding) {
	b.Helper()
	for i := 0; ; i++ {
		if exec.Command("docker", "exec", b.name, "/app", "healthcheck").Run() == nil {
			break
		}
		if i == 600 {
			return "", []finding{{"stuck", "the app does not answer"}}
		}
		time.Sleep(50 * time.Millisecond)
	}
	lines = b.app("get")
	if n, count := strings.Count(lines, "\n"), strings.TrimSpace(b.app("get", "/count")); fmt.Sprint(n) != count {
		found = append(found, finding{"mixed", fmt.Sprintf("%d lines, but the count is %s", n, count)})
	}
	return lines, found
}

// Random kills of captures and restores under a running app: its two volumes
// always match, and no captured line is lost.
func TestASoakWithAnAppInAContainer(t *testing.T) {
	t.Parallel()
	cycles := 2
	if all {
		cycles = 40
	}
	c := newTally(fmt.Sprintf("soak of %d cycles, app in a container", cycles))
	b := newBlog(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 2))
	for i := range cycles {
		c.count(t, fmt.Sprint("cycle ", i), b.cycle(i, random))
		if t.Failed() {
			t.FailNow()
		}
	}
}

// cycle captures, writes and restores. The capture and the restore are killed at a
// random moment, if they have not finished by then.
func (b *blog) cycle(i int, random *rand.Rand) []finding {
	b.Helper()
	b.app("post", fmt.Sprint("captured ", i))
	then := b.app("get")
	moment := time.Duration(random.IntN(1000)) * time.Millisecond
	sid, finished := b.killed(moment, "capture", b.name)
	found := b.recoverFully()
	if !finished {
		sid = b.snap("capture", b.name)
	}
	b.app("post", fmt.Sprint("not captured ", i))
	now := b.app("get")
	moment = time.Duration(random.IntN(4000)) * time.Millisecond
	_, finished = b.killed(moment, "restore", b.name, sid, "--confirm", sid, "--guard", guards[random.IntN(2)])
	found = append(found, b.recoverFully()...)
	lines, more := b.answers()
	found = append(found, more...)
	switch {
	case lines != then && lines != now:
		found = append(found, finding{"lost", fmt.Sprintf("the app has %q, expected the lines from the capture or from before the restore", lines)})
	case finished && lines != then:
		found = append(found, finding{"lost", "the restore finished, but the app has the old lines"})
	}
	return found
}
