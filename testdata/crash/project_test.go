//go:build linux && amd64

package crash

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
)

// project is a world whose workload is a Compose project that is up: two services,
// which write all the time, on two directories and two named volumes. They are where
// the engine sees them, on its own filesystem, so the power is not cut here.
type project struct {
	*world
	name, file string
	captured   [][]byte  // the log of each volume in the snapshot to restore
	since      time.Time // when the volumes were filled
}

// services are the services of the project, with the number of each volume that they
// write to.
var services = map[string][]int{"web": {0, 2}, "db": {1, 3, 2}}

const composeFile = `name: %[1]s
services:
  web:
    image: %[2]s
    command: [web, /dir, /named]
    stop_signal: SIGKILL
    restart: always
    healthcheck: {test: [CMD, /writer, check], interval: 200ms, timeout: 30s, retries: 1}
    volumes: ['%[3]s/v0/data:/dir', 'n0:/named']
  db:
    image: %[2]s
    command: [db, /dir, /named, /shared]
    stop_signal: SIGKILL
    restart: always
    healthcheck: {test: [CMD, /writer, check], interval: 200ms, timeout: 30s, retries: 1}
    volumes: ['%[3]s/v1/data:/dir', 'n1:/named', 'n0:/shared']
volumes: {n0: {}, n1: {}}
`

func newProject(t *testing.T, image string) *project {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "snap-crash") // the engine does not see what is mounted here
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{T: t, dir: dir, scratch: disktest.Tmpfs(t), states: map[string][][]string{}, guard: before, writing: "log"}
	w.must(os.Chmod(w.scratch, 0o700))
	w.config, w.content = filepath.Join(w.scratch, "snap.yaml"), w.plain
	p := &project{world: w, name: "crash" + disk.NewID(time.Now())[17:], file: filepath.Join(w.scratch, "compose.yaml")}
	for _, name := range []string{"v0", "v1"} {
		m := &medium{name: name, point: filepath.Join(dir, name), live: filepath.Join(dir, name, "data")}
		w.must(os.MkdirAll(m.live, 0o751))
		w.disks = append(w.disks, m)
	}
	w.must(os.WriteFile(p.file, fmt.Appendf(nil, composeFile, p.name, image, dir), 0o600))
	t.Cleanup(func() { p.compose("down", "-v", "-t", "0") })
	p.compose("up", "-d")
	for _, name := range []string{"n0", "n1"} {
		at, err := filepath.EvalSymlinks(strings.TrimSpace(disktest.Run(t, "docker", "volume", "inspect", "-f", "{{.Mountpoint}}", p.name+"_"+name)))
		w.must(err)
		w.disks = append(w.disks, &medium{name: name, point: filepath.Dir(at), live: at})
	}
	w.disks = append(w.disks, &medium{name: "store", point: filepath.Join(dir, "store")})
	w.must(os.Mkdir(filepath.Join(dir, "store"), 0o700))
	p.configure("compose: " + p.file)
	p.generations()
	p.keep()
	p.captured = p.logs(func(s snapshot) bool { return s.SID == p.sid })[0]
	return p
}

// on is the project for a subtest.
func (p *project) on(t *testing.T, guard string) *project {
	w := *p.world
	w.T, w.guard = t, guard
	w.content = w.plain
	q := *p
	q.world = &w
	return &q
}

func (p *project) compose(args ...string) {
	p.Helper()
	disktest.Run(p.T, "docker", append([]string{"compose", "-f", p.file}, args...)...)
}

// plain is the content of a volume. The first line of the log tells the generation too.
func (w *world) plain(dir, generation string, volume int) {
	w.Helper()
	disktest.Write(w.T, dir, map[string]string{
		"log.new": generation + "\n", "generation": fmt.Sprint(generation, volume), "dir/" + generation: strings.Repeat(generation, 3000),
	})
	// The services are writing: they see the whole log or none.
	w.must(os.Rename(filepath.Join(dir, "log.new"), filepath.Join(dir, w.writing)))
}

// reset puts the project back as it was when it was made, under the running services.
func (p *project) reset() {
	p.Helper()
	p.dropWrappers()
	p.putBack()
	if len(p.up()) > 0 { // a point before this one has failed
		p.compose("up", "-d", "--force-recreate")
	}
	p.fill(older)
	p.states[older] = p.trees()
	p.since = time.Now()
}

// logs returns what the services wrote to each volume of each of these snapshots.
func (p *project) logs(which func(snapshot) bool) (list [][][]byte) {
	p.Helper()
	all, err := p.snapshots()
	p.must(err)
	for _, s := range all {
		if !which(s) {
			continue
		}
		dirs, err := p.extract(s)
		p.must(err)
		var logs [][]byte
		for _, dir := range dirs {
			text, err := os.ReadFile(filepath.Join(dir, p.writing))
			p.must(err)
			logs = append(logs, text)
		}
		p.must(os.RemoveAll(filepath.Dir(dirs[0])))
		list = append(list, logs)
	}
	return list
}

// judged recovers, and returns what is wrong then with the data or with the project.
func (p *project) judged(q *progress, want string) []finding {
	p.Helper()
	generation, found := p.recovered(q, want)
	found = append(found, p.up()...)
	if generation == "" || len(found) > 0 {
		return found
	}
	return append(found, p.wrote(generation)...)
}

// up returns how the containers differ from those that ran before: one of each service,
// which runs and is started again when it ends.
func (p *project) up() []finding {
	p.Helper()
	const form = `{{index .Config.Labels "com.docker.compose.service"}} {{.State.Status}} {{.HostConfig.RestartPolicy.Name}}`
	out, err := sh(`docker ps -aq --filter label=com.docker.compose.project="$0" | xargs -r docker inspect -f "$1"`, p.name, form)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	slices.Sort(lines)
	if want := []string{"db running always", "web running always"}; err != nil || !slices.Equal(lines, want) {
		return []finding{{"stuck", fmt.Sprintf("the containers are %q, expected %q (%v)", lines, want, err)}}
	}
	return nil
}

// wrote compares what the services have written with what there is: each line that they
// printed since the volumes were filled is live, or in the snapshot of the old data. And
// they write to the live directories now.
func (p *project) wrote(generation string) (found []finding) {
	p.Helper()
	now := time.Now()
	kept := p.logs(func(s snapshot) bool { return s.SID != p.sid })
	for i, m := range p.volumes() {
		live, err := os.ReadFile(filepath.Join(m.live, p.writing))
		p.must(err)
		if first := firstLine(string(live)); first != generation {
			found = append(found, finding{"mixed", fmt.Sprintf("the log of %s is %q, and the rest is %s", m.name, first, generation)})
		}
		if generation == newer && !bytes.HasPrefix(live, p.captured[i]) {
			found = append(found, finding{"lost", fmt.Sprintf("%s lacks lines that were captured", m.name)})
		}
	}
	for name, volumes := range services {
		printed := p.printed(name)
		for _, i := range volumes {
			there := p.await(name, i, now)
			if there == "" {
				return append(found, finding{"stuck", fmt.Sprintf("%s does not write to %s", name, p.volumes()[i].name)})
			}
			for _, logs := range kept {
				there += string(logs[i])
			}
			lines := map[string]bool{}
			for line := range strings.Lines(there) {
				lines[line] = true
			}
			for _, line := range printed {
				if !lines[line] {
					found = append(found, finding{"lost", fmt.Sprintf("%s has neither live nor in a snapshot the line %q of %s", p.volumes()[i].name, line, name)})
				}
			}
		}
	}
	return found
}

// printed returns the lines that a service has printed since the volumes were filled.
func (p *project) printed(service string) (lines []string) {
	p.Helper()
	out, err := exec.Command("docker", "logs", "--since", p.since.Format(time.RFC3339Nano), p.name+"-"+service+"-1").Output()
	p.must(err)
	for line := range strings.Lines(string(out)) {
		if strings.HasSuffix(line, "\n") && timeOf(line).After(p.since) {
			lines = append(lines, line)
		}
	}
	return lines
}

// await waits until a service has written to a live volume after this time, and returns
// the log; "" if it does not write.
func (p *project) await(service string, volume int, after time.Time) string {
	p.Helper()
	path := filepath.Join(p.volumes()[volume].live, p.writing)
	for end := time.Now().Add(tooLong); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(path)
		p.must(err)
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, service+" ") && strings.HasSuffix(line, "\n") && timeOf(line).After(after) {
				return string(text)
			}
		}
	}
	return ""
}

// timeOf is when a service wrote a line.
func timeOf(line string) time.Time {
	_, text, _ := strings.Cut(strings.TrimSpace(line), " ")
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(0, n)
}

// judging returns the judge of a run, and has it note the progress.
type judging func(q *progress) func(*call) answer

// killed kills a restore.
func (p *project) killed(c *tally, judge judging) bool {
	p.Helper()
	p.reset()
	q := &progress{}
	e := p.restore(judge(q))
	found := p.unkilled(e)
	c.count(p.T, "killed before "+q.end, append(found, p.judged(q, q.expected())...))
	return e.killed
}

// unkilled returns what is wrong with a run that came to its end.
func (p *project) unkilled(e exited) []finding {
	p.Helper()
	if e.killed || e.code == 0 && !e.hung {
		return nil
	}
	return append(p.checkExit(e), finding{"wrong", fmt.Sprintf("exit %d of a run that was not killed: %s", e.code, e.err)})
}

// recoveryKilled kills a restore at this moment, and then its recovery.
func (p *project) recoveryKilled(c *tally, moment string, judge judging) bool {
	p.Helper()
	p.reset()
	q := p.interrupted(moment)
	e := p.run(judge(q), "recover")
	found := p.unkilled(e)
	c.count(p.T, "restore killed before "+moment+", recover before "+q.end, append(found, p.judged(q, q.expected())...))
	return e.killed
}

// failed makes a call of a restore fail.
func (p *project) failed(c *tally, judge judging) bool {
	p.Helper()
	p.reset()
	q := &progress{}
	e := p.restore(judge(q))
	found := p.checkExit(e)
	if e.code != 6 && e.code != 7 { // the others say that the project runs
		for _, f := range p.up() {
			found = append(found, finding{"wrong", fmt.Sprintf("exit %d, but %s: %s", e.code, f.text, e.err)})
		}
	}
	c.count(p.T, fmt.Sprintf("an error of %s (exit %d)", q.end, e.code), append(found, p.judged(q, e.expected())...))
	return q.end != ""
}

// trial is a row of the table: what is done to a restore of the project at each of its
// changing calls, or to the recovery of one.
type trial struct {
	row, guard string
	moments    []string        // at which a restore is killed, to kill its recovery
	errnos     []syscall.Errno // with which the calls fail, in turn
	sample     string          // the call that is tried without make crash, "" for none
}

var trials = []trial{
	{row: "restore of a project, killed before every call", guard: before, sample: "renameat2 n1/_data"},
	{row: "restore of a project guarding after, killed before every call", guard: after, sample: "unlinkat n0/.snap-ID/2.trash/log"},
	{row: "recovery of a project, killed before every call", guard: before, sample: "renameat2 v1/data", moments: []string{
		"renameat2 n0/_data",                            // both directories exchanged, and neither named volume
		"renameat store/state/tx/ID/commit.tmp",         // all exchanged, not committed
		"renameat2 v0/.snap-ID/0 → v0/.snap-ID/0.trash", // committed, and the project is up
	}},
	{row: "recovery of a project guarding after, killed before every call", guard: after, moments: []string{
		"renameat store/state/tx/ID/guarding.tmp", // committed, and the project is up
	}},
	{row: "restore of a project, every call: EIO and ENOSPC in turn", guard: before, errnos: eachError, sample: "renameat2 n1/_data"},
	{row: "restore of a project guarding after, every call: EIO and ENOSPC in turn", guard: after, errnos: eachError},
}

var eachError = []syscall.Errno{unix.EIO, unix.ENOSPC}

// try tries every call of a worker, beginning at the call from.
func (r *trial) try(p *project, c *tally, from, worker, of int) {
	p.Helper()
	moments := r.moments
	if moments == nil {
		moments = []string{""}
	}
	for i, moment := range moments {
		try := func(judge judging) bool {
			switch {
			case moment != "":
				return p.recoveryKilled(c, moment, judge)
			case r.errnos != nil:
				return p.failed(c, judge)
			}
			return p.killed(c, judge)
		}
		if all {
			everyFrom(from, worker, of, 1, 1, func(n int) bool { return try(r.every(n)) })
		} else if i == 0 && !try(r.one) {
			p.Errorf("there was no call %q", r.sample)
		}
	}
}

// every judges a run that ends, or fails, at its n-th changing call.
func (r *trial) every(n int) judging {
	return func(q *progress) func(*call) answer {
		if r.errnos != nil {
			return failing(n, r.errnos[n%len(r.errnos)], false, changes, q)
		}
		return killBefore(n, q)
	}
}

// one judges a run that ends, or fails, at the call of the sample.
func (r *trial) one(q *progress) func(*call) answer {
	if r.errnos != nil {
		sample := func(c *call) bool { return c.changes && strings.HasPrefix(general(c.String()), r.sample) }
		return failing(1, r.errnos[0], false, sample, q)
	}
	return killAt(r.sample, q)
}

// A Compose project with two directories and two named volumes, whose services write:
// its restore and its recovery are killed before each changing call, and each call of a
// restore fails. All four volumes are old or all are new, and the project runs.
func TestAProjectIsKilledAndFailsAtAnyCall(t *testing.T) {
	disktest.NeedRoot(t)
	dockertest.NeedCompose(t)
	image := dockertest.Image(t, "writer")
	n := 1
	if all {
		n = min(runtime.GOMAXPROCS(0), 4) // of which each waits for the engine most of the time
	}
	projects := make([]*project, n)
	for i := range projects {
		projects[i] = newProject(t, image)
	}
	for _, r := range trials {
		if r.sample == "" && !all {
			continue
		}
		from := 1
		if all && r.guard == after && r.moments == nil { // the row before has the calls up to there
			p := projects[0].on(t, r.guard)
			p.reset()
			from = p.ownCall(changes)
		}
		c := newTally(r.row)
		t.Run(r.row, func(t *testing.T) {
			for i, p := range projects {
				t.Run(p.name, func(t *testing.T) {
					t.Parallel()
					r.try(p.on(t, r.guard), c, from, i, n)
				})
			}
		})
	}
}
