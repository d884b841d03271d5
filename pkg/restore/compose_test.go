package restore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// services returns the id of the running container of each service.
func (w *world) services() map[string]string {
	w.Helper()
	out := map[string]string{}
	list := disktest.Run(w.T, "docker", "ps", "--filter", "label=com.docker.compose.project="+w.name, "--no-trunc",
		"--format", `{{.Label "com.docker.compose.service"}} {{.ID}} {{.Names}}`)
	for _, line := range strings.Split(strings.TrimSpace(list), "\n") {
		if service, rest, ok := strings.Cut(line, " "); ok {
			out[service] += rest
		}
	}
	return out
}

// One service of a project cannot come up on the new data. The restore rolls all
// services back to their old containers.
func TestOneServiceThatCannotStartRollsBackTheWholeProject(t *testing.T) {
	dockertest.NeedCompose(t)
	web, db := image(t), image(t)
	w := newWorld(t, t.TempDir(), 2)
	file := filepath.Join(w.dir, "compose.yaml")
	mount := func(i int) string { return fmt.Sprintf("volumes: ['%s:/data']", w.volumes[i]) }
	write := func(ofDB string) {
		t.Helper()
		w.must(os.WriteFile(file, []byte(strings.Join([]string{
			"name: " + w.name, "services:",
			"  web: {image: '" + web + "', restart: always, " + mount(0) + ", healthcheck: {test: [CMD, /app, check], interval: 200ms, retries: 1}}",
			"  db: {image: '" + db + "', restart: always, " + mount(1) + ofDB + ", healthcheck: {test: [CMD, /app, check], interval: 200ms, retries: 1}}",
		}, "\n")), 0o600))
	}
	write("")
	w.write(map[string][]string{w.name: {
		"compose: " + file, "volumes:",
		"  - {name: v0, scope: absolute, source: " + w.volumes[0] + ", target: /data}",
		"  - {name: v1, scope: absolute, source: " + w.volumes[1] + ", target: /data}",
	}})
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	t.Cleanup(func() { disktest.Run(t, "docker", "compose", "-f", file, "down", "-t", "1") })
	_, err := w.engine().Deploy(t.Context(), DeployRequest{Workload: w.name})
	w.must(err)
	sid := w.capture()
	w.fill("old")
	states["old"] = w.trees()
	before := w.services()
	if len(before) != 2 {
		t.Fatalf("the running services are %v, expected two", before)
	}
	same := func(what string) {
		t.Helper()
		if after := w.services(); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("%s: the running services are %v, expected the original ones, %v", what, after, before)
		}
		w.clean()
	}

	// A service is started by hand between the two exchanges.
	err = w.during("exchanged v0", sid, func() { disktest.Run(t, "docker", "start", w.name+"-db-1") })
	w.expect(states, "old", err, fault.RolledBack, "in_use")
	same("started meanwhile")

	// The file of one service was edited, so its container must be made anew.
	write(", environment: [NEW=1]")
	err = w.during("fence", sid, func() { removeImage(t, db) })
	w.expect(states, "old", err, fault.RolledBack, "image_missing")
	write("")
	same("an image is gone that is needed")

	// A container that is only started again does not need its image.
	_, err = w.engine().Restore(t.Context(), w.request(sid))
	w.expect(states, "new", err, fault.Failed, "")
	w.must(err)
	same("an image is gone")
}

// Going back from an upgrade: the snapshot was taken on image 1, and image 2 runs. The
// plan warns. Both ways bring data and image 1 up together.
func TestARestoreGoesBackFromAnUpgrade(t *testing.T) {
	dockertest.NeedCompose(t)
	one, two := image(t), image(t)
	for _, kind := range []string{"compose", "image"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, t.TempDir(), 1)
			file := filepath.Join(w.dir, "compose.yaml")
			on := func(image string) {
				t.Helper()
				volumes := []string{"volumes:", "  - {name: v0, scope: absolute, source: " + w.volumes[0] + ", target: /data}"}
				if kind == "image" {
					w.write(map[string][]string{w.name: append(appLines(image), volumes...)})
					return
				}
				w.must(os.WriteFile(file, []byte("name: "+w.name+"\nservices: {web: {image: '"+image+"', volumes: ['"+w.volumes[0]+":/data'], healthcheck: {test: [CMD, /app, check], interval: 200ms, retries: 1}}}\n"), 0o600))
				w.write(map[string][]string{w.name: append([]string{"compose: " + file}, volumes...)})
			}
			t.Cleanup(func() {
				if kind == "image" {
					w.undeploy()
					return
				}
				disktest.Run(t, "docker", "compose", "-f", file, "down", "-t", "1")
			})
			deploy := func(image string) {
				t.Helper()
				on(image)
				_, err := w.engine().Deploy(t.Context(), DeployRequest{Workload: w.name})
				w.must(err)
			}
			runs := func() string {
				t.Helper()
				list, err := w.status()
				w.must(err)
				return list[0].Image
			}
			deploy(one)
			w.fill("of one")
			sid := w.capture()
			upgrade := func() {
				t.Helper()
				deploy(two)
				w.fill("migrated")
			}
			for _, way := range []struct {
				image, config, warns string
			}{
				{runtime.ImageSnapshot, two, ""},
				{runtime.ImageRunning, one, ""},
				{runtime.ImageConfig, one, ""},
				{runtime.ImageRunning, two, "the snapshot was taken on image " + one},
			} {
				upgrade()
				on(way.config)
				req := w.request(sid)
				req.Image = way.image
				plan, err := w.engine().Plan(t.Context(), req)
				w.must(err)
				next := plan.Images[0].Next.Image
				if warned := strings.Join(plan.Warnings, "\n"); (warned != "") != (way.warns != "") || !strings.Contains(warned, way.warns) {
					t.Errorf("%+v: the plan warns %q", way, warned)
				}
				if plan.Images[0].Snapshot.Image != one || plan.Images[0].Running.Image != two {
					t.Errorf("%+v: the plan's images are %+v", way, plan.Images[0])
				}
				_, err = w.engine().Restore(t.Context(), req)
				w.must(err)
				want := one
				if way.warns != "" {
					want = two
				}
				if got := runs(); got != want || next != want || !strings.Contains(w.generationOf(0), "of one") {
					t.Errorf("%+v: %s runs, %s was planned, on data %q", way, got, next, w.generationOf(0))
				}
			}
		})
	}
}

// status returns the containers of the workload.
func (w *world) status() ([]runtime.Container, error) {
	list, err := w.engine().Status(w.Context(), w.name)
	if err != nil {
		return nil, err
	}
	return list[0].Containers, nil
}

// generationOf returns the file generation of a volume.
func (w *world) generationOf(i int) string {
	w.Helper()
	text, err := os.ReadFile(filepath.Join(w.volumes[i], "generation"))
	w.must(err)
	return string(text)
}

// A container that ran, and that nobody can bring back, is named: the data is new.
func TestAServiceThatIsMissingAfterARestoreIsNamed(t *testing.T) {
	dockertest.NeedCompose(t)
	ref := image(t)
	w := newWorld(t, t.TempDir(), 1)
	file := filepath.Join(w.dir, "compose.yaml")
	text := "name: " + w.name + "\nservices:\n  web: {image: '" + ref + "', volumes: ['" + w.volumes[0] + ":/data']}\n"
	w.must(os.WriteFile(file, []byte(text+"  extra: {image: '"+ref+"'}\n"), 0o600))
	w.write(map[string][]string{w.name: {"compose: " + file, "volumes:", "  - {name: v0, scope: absolute, source: " + w.volumes[0] + ", target: /data}"}})
	w.fill("new")
	t.Cleanup(func() { disktest.Run(t, "docker", "compose", "-f", file, "down", "-t", "1", "--remove-orphans") })
	disktest.Run(t, "docker", "compose", "-f", file, "up", "-d")
	sid := w.capture()
	w.fill("old")
	w.must(os.WriteFile(file, []byte(text), 0o600)) // extra is an orphan now
	err := w.during("commit", sid, func() { disktest.Run(t, "docker", "rm", "-f", w.name+"-extra-1") })
	if fault.KindOf(err) != fault.Pending || codeOf(err) != "service_missing" || !strings.Contains(err.Error(), w.name+"-extra-1") {
		t.Errorf("the restore returned %v (%q), expected service_missing", err, codeOf(err))
	}
	if got := w.generationOf(0); got != "new" {
		t.Errorf("the data is %s", got)
	}
	if left := w.services(); len(left) != 1 || left["web"] == "" {
		t.Errorf("the running services are %v", left)
	}
	w.clean()
}

// What a restore refuses before it stops anything keeps its code and its hint, and a
// capture that would stop such a container is refused too.
func TestContainersThatWouldNotComeBackAreRefused(t *testing.T) {
	ref := image(t)
	w := newWorld(t, t.TempDir(), 1)
	w.fill("new")
	sid := w.capture()
	also := w.name + "-also"
	w.write(map[string][]string{w.name: {"also_stop: [" + also + "]", "volumes:", "  - {name: v0, scope: absolute, source: " + w.volumes[0] + "}"}})
	for code, flags := range map[string][]string{
		"auto_remove": {"--rm"},
		"managed":     {"--label", "com.docker.swarm.task.id=x", "--label", "com.docker.swarm.service.name=shop_db"},
	} {
		disktest.Run(t, "docker", append(append([]string{"run", "-d", "--name", also}, flags...), ref)...)
		_, restored := w.engine().Restore(t.Context(), w.request(sid))
		_, stopped := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.Stop})
		for what, err := range map[string]error{"restore": restored, "capture": stopped} {
			var e *fault.Error
			if !errors.As(err, &e) || e.Kind != fault.Refused || e.Code != code || e.Remedy.Empty() {
				t.Errorf("%s: %v, expected %s", what, err, code)
			}
		}
		_, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.Pause})
		w.must(err)
		if now := dockertest.Inspect(t, also); !now.Running || now.Paused {
			t.Errorf("it was touched: %+v", now)
		}
		disktest.Run(t, "docker", "rm", "-f", also)
	}
}

// A second config with the same workload's name.
func TestAnotherConfigsWorkloadIsRefused(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1, appLines(image(t))...)
	w.fill("new")
	w.deploy()
	sid, before := w.capture(), w.appRuns()
	text, err := os.ReadFile(w.config)
	w.must(err)
	w.config = filepath.Join(t.TempDir(), "snap.yaml")
	w.must(os.WriteFile(w.config, text, 0o600))
	_, restored := w.engine().Restore(t.Context(), w.request(sid))
	_, deployed := w.engine().Deploy(t.Context(), DeployRequest{Workload: w.name})
	_, captured := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.Pause})
	for what, err := range map[string]error{"restore": restored, "deploy": deployed, "capture": captured} {
		if fault.KindOf(err) != fault.Refused || codeOf(err) != "other_config" {
			t.Errorf("%s: %v, expected other_config", what, err)
		}
	}
	if now := w.appRuns(); now.Run() != before.Run() {
		t.Error("the container was touched")
	}
	r, err := w.engine().Deploy(t.Context(), DeployRequest{Workload: w.name, TakeOver: true})
	w.must(err)
	if !r.Changed || w.capture() == "" {
		t.Errorf("taken over: %+v", r)
	}
}
