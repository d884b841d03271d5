package restore

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// project is a world whose workload is a Compose project of two services, with two
// directories and two named volumes. The config lists none of them.
type project struct {
	*world
	file  string
	image string
}

// newProject returns a project that is up. more are further lines of the config.
func newProject(t *testing.T, dir string, more ...string) *project {
	t.Helper()
	dockertest.NeedCompose(t)
	p := &project{world: newWorld(t, dir, 2), image: image(t)}
	p.file = filepath.Join(dir, "compose.yaml")
	p.must(os.WriteFile(p.file, []byte(fmt.Sprintf(`name: %[1]s
services:
  web: {image: '%[2]s', stop_signal: SIGKILL, restart: always, volumes: ['%[3]s:/data', 'n0:/n0'], healthcheck: {test: [CMD, /app, check], interval: 200ms, timeout: 30s, retries: 1}}
  db: {image: '%[2]s', stop_signal: SIGKILL, restart: always, volumes: ['%[4]s:/data', 'n1:/n1', 'n0:/again'], healthcheck: {test: [CMD, /app, check], interval: 200ms, timeout: 30s, retries: 1}}
volumes: {n0: {}, n1: {labels: {shade: green}}}
`, p.name, p.image, p.volumes[0], p.volumes[1])), 0o600))
	p.write(map[string][]string{p.name: append([]string{"compose: " + p.file}, more...)})
	t.Cleanup(func() { p.compose("down", "-v", "-t", "1") })
	p.compose("up", "-d")
	p.volumes = append(p.volumes, p.kept("n0"), p.kept("n1"))
	return p
}

func (p *project) compose(args ...string) string {
	p.Helper()
	return disktest.Run(p.T, "docker", append([]string{"compose", "-f", p.file}, args...)...)
}

// kept is where the engine keeps a volume of the project.
func (p *project) kept(key string) string {
	p.Helper()
	return strings.TrimSpace(disktest.Run(p.T, "docker", "volume", "inspect", "-f", "{{.Mountpoint}}", p.name+"_"+key))
}

func (p *project) has(volume string) bool {
	return exec.Command("docker", "volume", "inspect", p.name+"_"+volume).Run() == nil
}

// captured leaves a snapshot of "new", and "old" in the volumes.
func (p *project) captured() (sid string, states map[string][][]string) {
	p.Helper()
	p.fill("new")
	states = map[string][][]string{"new": p.trees()}
	sid = p.capture()
	p.fill("old")
	states["old"] = p.trees()
	return sid, states
}

// runs fails the test unless both services run, and Compose has nothing to do.
func (p *project) runs() {
	p.Helper()
	before := p.services()
	if len(before) != 2 {
		p.Fatalf("the running services are %v, expected two", before)
	}
	if said := p.compose("up", "-d"); strings.Contains(said, "warn") || fmt.Sprint(p.services()) != fmt.Sprint(before) {
		p.Errorf("docker compose up changed %v to %v, and said %s", before, p.services(), said)
	}
}

func TestNamedVolumesAreRestoredWithTheDirectories(t *testing.T) {
	p := newProject(t, t.TempDir())
	sid, states := p.captured()
	m := p.snapshots()[0]
	for i, name := range []string{p.volumes[0], p.volumes[1], p.name + "_n0", p.name + "_n1"} {
		scope := map[bool]string{true: "absolute", false: "named"}[i < 2]
		if v := m.Volume(name, scope, name); v == nil {
			t.Errorf("the snapshot lacks %s: %+v", name, m.Volumes)
		}
	}
	plan, err := p.engine().Plan(t.Context(), p.request(sid))
	p.must(err)
	if len(plan.Volumes) != 4 || !plan.Volumes[3].Exists || plan.Volumes[3].LiveFiles == 0 || len(plan.Warnings) > 0 {
		t.Errorf("the plan is %+v, warnings %q", plan.Volumes, plan.Warnings)
	}
	r, err := p.engine().Restore(t.Context(), p.request(sid))
	p.must(err)
	p.expect(states, "new", nil, fault.Failed, "")
	p.runs()
	p.clean()

	// One volume alone, by its key in the Compose file.
	p.fill("old")
	older := p.trees()
	req := p.request(sid)
	req.Volumes = []string{"n1"}
	_, err = p.engine().Restore(t.Context(), req)
	p.must(err)
	now := p.trees()
	for i := range p.volumes {
		want := older
		if i == 3 {
			want = states["new"]
		}
		if d := disktest.Diff(want[i], now[i]); d != "" {
			t.Errorf("after a restore of n1 alone, volume %d:\n%s", i, d)
		}
	}
	_, err = p.engine().Restore(t.Context(), p.request(r.PreRestoreSID))
	p.must(err)
	p.expect(states, "old", nil, fault.Failed, "")
	p.runs()
	p.clean()
}

// On a new host neither containers nor volumes exist. A plan makes none; a restore that
// fails removes what it made; one that succeeds leaves volumes that Compose takes for
// its own.
func TestVolumesThatDoNotExistAreMadeByARestore(t *testing.T) {
	p := newProject(t, t.TempDir())
	sid, states := p.captured()
	p.compose("down", "-v", "-t", "1")
	p.must(os.RemoveAll(p.volumes[0]))
	none := func(what string) {
		t.Helper()
		for _, v := range []string{"n0", "n1"} {
			if p.has(v) {
				t.Fatalf("%s: volume %s exists", what, v)
			}
		}
		p.clean()
	}
	if _, err := p.engine().Capture(t.Context(), CaptureRequest{Workload: p.name}); codeOf(err) != "volume_absent" {
		t.Errorf("capture: %v", err)
	}
	plan, err := p.engine().Plan(t.Context(), p.request(sid))
	p.must(err)
	if said := strings.Join(plan.Warnings, "\n"); strings.Count(said, "will be created") != 3 || plan.Volumes[2].Exists {
		t.Errorf("the plan warns %q of %+v", said, plan.Volumes)
	}
	none("a plan")
	for _, point := range []string{"made " + p.name + "_n0", "stage", "ready", "exchanged " + p.name + "_n1", "before commit"} {
		ctx, stop := context.WithCancelCause(t.Context())
		e := p.engine()
		at(e, point, func() { stop(&fault.Signal{Name: "SIGTERM", Code: 143}) })
		if _, err := e.Restore(ctx, p.request(sid)); point != "before commit" && codeOf(err) != "interrupted" {
			t.Errorf("interrupted at %s: %v", point, err)
		}
		if point == "before commit" { // too late
			p.compose("down", "-v")
			p.must(os.RemoveAll(p.volumes[0]))
		}
		none("interrupted at " + point)

		if points, killed := p.run("restore", sid, 0, "SNAP_TEST_POINT="+point); !killed {
			t.Fatalf("the restore was not killed: %q", points)
		}
		p.recoverTwice()
		none("killed at " + point)
	}
	_, err = p.engine().Restore(t.Context(), p.request(sid))
	p.must(err)
	p.expect(states, "new", nil, fault.Failed, "")
	p.clean()
	if said := p.compose("up", "-d"); strings.Contains(said, "warn") || strings.Contains(said, "_n1  Creat") {
		t.Errorf("docker compose up says %s", said)
	}
	p.expect(states, "new", nil, fault.Failed, "")
	p.runs()
	if label := disktest.Run(t, "docker", "volume", "inspect", "-f", `{{index .Labels "shade"}}`, p.name+"_n1"); strings.TrimSpace(label) != "green" {
		t.Errorf("the label of the Compose file is %q", label)
	}
}

func TestAnExternalVolumeThatDoesNotExistIsRefused(t *testing.T) {
	p := newProject(t, t.TempDir())
	sid, _ := p.captured()
	p.compose("down", "-v", "-t", "1")
	text, err := os.ReadFile(p.file)
	p.must(err)
	p.must(os.WriteFile(p.file, []byte(strings.Replace(string(text), "n0: {}", "n0: {external: true, name: "+p.name+"_n0}", 1)), 0o600))
	defer func() { p.must(os.WriteFile(p.file, text, 0o600)) }()
	_, err = p.engine().Restore(t.Context(), p.request(sid))
	if codeOf(err) != "volume_absent" || fault.KindOf(err) != fault.Refused || p.has("n0") || p.has("n1") {
		t.Errorf("the restore returned %v", err)
	}
	_, err = p.engine().Capture(t.Context(), CaptureRequest{Workload: p.name})
	if codeOf(err) != "volume_absent" {
		t.Errorf("the capture returned %v", err)
	}
}

// Somebody removes a named volume while a restore is under way. The others stay as
// they were, and nothing is frozen.
func TestAVolumeThatIsRemovedMeanwhileIsACleanError(t *testing.T) {
	p := newProject(t, t.TempDir())
	sid, _ := p.captured()
	p.compose("down", "-t", "1")
	for point, kind := range map[string]fault.Kind{"begin": fault.Refused, "staging " + p.name + "_n1": fault.Refused, "stage": fault.Refused, "ready": fault.RolledBack, "publish": fault.RolledBack} {
		for _, again := range []bool{false, true} { // somebody makes it anew
			if !p.has("n1") {
				disktest.Run(t, "docker", "volume", "create", p.name+"_n1")
			}
			p.fill("old")
			old := p.trees()
			err := p.during(point, sid, func() {
				disktest.Run(t, "docker", "volume", "rm", p.name+"_n1")
				if again {
					disktest.Run(t, "docker", "volume", "create", p.name+"_n1")
				}
			})
			if fault.KindOf(err) == fault.Frozen || err == nil {
				t.Errorf("removed at %s (made again: %v): %v", point, again, err)
			}
			if !again && (fault.KindOf(err) != kind || codeOf(err) != "volume_gone") {
				t.Errorf("removed at %s: %v (kind %d, %q), expected kind %d", point, err, fault.KindOf(err), codeOf(err), kind)
			}
			for i, dir := range p.volumes[:3] {
				if d := disktest.Diff(old[i], disktest.Tree(t, dir)); d != "" {
					t.Errorf("removed at %s: volume %d changed:\n%s", point, i, d)
				}
			}
			if list, err := p.engine().Recover(t.Context(), RecoverRequest{}); err != nil || len(list) > 0 {
				t.Errorf("removed at %s (made again: %v): recover found %+v, %v", point, again, list, err)
			}
			p.clean()
		}
	}
}

// What two projects share is replaced under neither while the other runs.
func TestAVolumeThatAnotherProjectUses(t *testing.T) {
	p := newProject(t, t.TempDir())
	sid, states := p.captured()
	other := p.name + "-other"
	disktest.Run(t, "docker", "run", "-d", "--name", other, "-v", p.name+"_n1:/theirs:ro", p.image)
	t.Cleanup(func() { disktest.Run(t, "docker", "rm", "-f", other) })
	_, err := p.engine().Restore(t.Context(), p.request(sid))
	p.expect(states, "old", err, fault.Refused, "in_use")
	disktest.Run(t, "docker", "stop", "-t", "1", other)
	r, err := p.engine().Restore(t.Context(), p.request(sid))
	p.expect(states, "new", err, fault.Failed, "")
	if err == nil && !slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, other) && strings.Contains(w, "stopped") }) {
		t.Errorf("warned of %q", r.Warnings)
	}
}

// A list beside a named volume: the files are restored and the database is not. Who
// does that is told, each time.
func TestWhatNobodyCapturesIsSaid(t *testing.T) {
	p := newProject(t, t.TempDir())
	p.write(map[string][]string{p.name: {"compose: " + p.file, "volumes:", "  - {scope: absolute, source: " + p.volumes[0] + "}", "  - {scope: named, source: " + p.name + "_n1, name: db}"}})
	said := func(what string, warnings []string) {
		t.Helper()
		if len(warnings) != 1 || !strings.Contains(warnings[0], p.volumes[1]+", volume n0 (") || strings.Contains(warnings[0], "n1") {
			t.Errorf("%s warns of %q", what, warnings)
		}
	}
	p.fill("new")
	c, err := p.engine().Capture(t.Context(), CaptureRequest{Workload: p.name, Quiesce: runtime.Pause})
	p.must(err)
	said("capture", c.Warnings)
	plan, err := p.engine().Plan(t.Context(), p.request(c.Manifest.SID))
	p.must(err)
	said("plan", plan.Warnings)
	r, err := p.engine().Restore(t.Context(), p.request(c.Manifest.SID))
	p.must(err)
	said("restore", r.Warnings)
	st, err := p.engine().Status(t.Context(), p.name)
	p.must(err)
	if len(st) != 1 || len(st[0].Left) != 1 || !strings.Contains(st[0].Left[0], "volume n0") {
		t.Errorf("status says %+v", st)
	}
}

// A volume that the config leaves alone stays as it is, also where an older snapshot has
// it. One that was empty is named where somebody else makes its container, and the engine
// fills it.
func TestAVolumeThatIsLeftAloneOrWasEmpty(t *testing.T) {
	p := newProject(t, t.TempDir())
	p.fill("new")
	p.must(os.RemoveAll(p.volumes[3]))
	p.must(os.Mkdir(p.volumes[3], 0o755))
	newer := p.trees()
	sid := p.capture()
	p.fill("old")
	plan, err := p.engine().Plan(t.Context(), p.request(sid))
	p.must(err)
	if len(plan.Warnings) > 0 {
		t.Errorf("the plan warns of %q", plan.Warnings)
	}
	_, err = p.engine().Restore(t.Context(), p.request(sid))
	p.must(err)
	if d := disktest.Diff(newer[3], disktest.Tree(t, p.volumes[3])); d != "" {
		t.Errorf("the volume that was empty:\n%s", d)
	}
	p.fill("old")
	older := p.trees()
	p.write(map[string][]string{p.name: {"compose: " + p.file, "exclude: [n1, " + p.volumes[0] + "]"}})
	_, err = p.engine().Restore(t.Context(), p.request(sid))
	p.must(err)
	now := p.trees()
	for i, want := range [][]string{older[0], newer[1], newer[2], older[3]} {
		if d := disktest.Diff(want, now[i]); d != "" {
			t.Errorf("volume %d:\n%s", i, d)
		}
	}
	p.write(map[string][]string{p.name: {"compose: " + p.file}})
	disktest.Run(t, "docker", "compose", "-f", p.file, "down", "-t", "0")
	plan, err = p.engine().Plan(t.Context(), p.request(sid))
	p.must(err)
	if all := strings.Join(plan.Warnings, "\n"); !strings.Contains(all, "_n1 is empty in the snapshot") || !strings.Contains(all, "/n1") {
		t.Errorf("without containers the plan warns of %q", plan.Warnings)
	}
}

// A restore of a project is killed at each of its points: two directories and two named
// volumes are all old or all new, and the project runs. `make test` tries a sample.
func TestARestoreKilledAnywhereBringsTheProjectBack(t *testing.T) {
	p := newProject(t, t.TempDir())
	stride := 6
	if allPoints() {
		stride = 1
	}
	p.killEvery(1, stride, p.runs)
}

// The engine's root is a symbolic link, and its volumes are on another disk: ext4, xfs
// and btrfs in turn. A restore is killed at each of its points. Recovery works from the
// records, so the engine need not run. In `make test` the filesystems share the points.
func TestARestoreOfNamedVolumesOnEachFilesystem(t *testing.T) {
	privateTools(t)
	first, stride := 0, 3
	disktest.EachFS(t, func(t *testing.T, disk string) {
		if first++; allPoints() {
			first, stride = 1, 1
		}
		folder := filepath.Join(disk, "volumes")
		if err := os.Mkdir(folder, 0o701); err != nil {
			t.Fatal(err)
		}
		d, stop, err := startPrivate(folder)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stop(); _ = os.RemoveAll(d.dir) })
		t.Setenv("DOCKER_HOST", d.host)
		w := newWorld(t, disk, 2)
		lines := []string{"volumes:"}
		for i, dir := range w.volumes {
			lines = append(lines, fmt.Sprintf("  - {name: v%d, scope: absolute, source: %s}", i, dir), fmt.Sprintf("  - {name: n%d, scope: project_named, source: n%d}", i, i))
		}
		w.write(map[string][]string{w.name: lines})
		for i := range 2 {
			disktest.Run(t, "docker", "volume", "create", fmt.Sprintf("%s_n%d", w.name, i))
			w.volumes = append(w.volumes, filepath.Join(folder, fmt.Sprintf("%s_n%d", w.name, i), "_data"))
		}
		w.killEvery(first, stride, func() {})
		sid := w.snapshots()[len(w.snapshots())-1].SID
		for point, want := range map[string]string{"exchanged " + w.name + "_n0": "old", "commit": "new"} {
			w.fill("old")
			states := map[string][][]string{"old": w.trees()}
			if points, killed := w.run("restore", sid, 0, "SNAP_TEST_POINT="+point); !killed {
				t.Fatalf("the restore was not killed: %q", points)
			}
			t.Setenv("DOCKER_HOST", "unix://"+disk+"/nobody.sock")
			w.recoverTwice()
			if want == "old" {
				w.generation(states)
			} else if text, err := os.ReadFile(filepath.Join(w.volumes[3], "generation")); err != nil || string(text) != want {
				t.Errorf("killed at %s: %q, %v", point, text, err)
			}
			t.Setenv("DOCKER_HOST", d.host)
		}
	})
}

// The same for an image workload, whose container snap itself makes.
func TestARestoreOfAnImageWorkloadWithANamedVolume(t *testing.T) {
	dockertest.Connect(t)
	w := newWorld(t, t.TempDir(), 0)
	volume := w.name + "_db"
	lines := append(appLines(image(t)), "volumes:", "  - {scope: project_named, source: db, target: /data}", "  - {scope: named, source: "+volume+"x, target: /more}")
	w.write(map[string][]string{w.name: lines})
	t.Cleanup(func() {
		w.undeploy()
		disktest.Run(t, "docker", "volume", "rm", volume, volume+"x")
	})
	w.deploy()
	for _, name := range []string{volume, volume + "x"} {
		w.volumes = append(w.volumes, strings.TrimSpace(disktest.Run(t, "docker", "volume", "inspect", "-f", "{{.Mountpoint}}", name)))
	}
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	sid := w.capture()
	w.fill("old")
	states["old"] = w.trees()
	for _, point := range []string{"exchanged " + volume, "commit"} {
		if points, killed := w.run("restore", sid, 0, "SNAP_TEST_POINT="+point); !killed {
			t.Fatalf("the restore was not killed: %q", points)
		}
		w.recoverTwice()
		if got, want := w.generation(states), map[bool]string{true: "new", false: "old"}[point == "commit"]; got != want {
			t.Errorf("killed at %s: the data is %s, expected %s", point, got, want)
		}
		w.appRuns()
	}
	plan, err := w.engine().Plan(t.Context(), w.request(sid))
	w.must(err)
	if len(plan.Warnings) > 0 || plan.Volumes[0].Scope != "named" || plan.Volumes[0].Source != volume {
		t.Errorf("the plan is %+v, warnings %q", plan.Volumes, plan.Warnings)
	}
}
