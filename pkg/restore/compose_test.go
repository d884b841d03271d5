package restore

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
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
	w.must(os.WriteFile(file, []byte(strings.Join([]string{
		"name: " + w.name, "services:",
		"  web: {image: '" + web + "', restart: always, " + mount(0) + ", healthcheck: {test: [CMD, /app, check], interval: 200ms, retries: 1}}",
		"  db: {image: '" + db + "', restart: always, " + mount(1) + ", healthcheck: {test: [CMD, /app, check], interval: 200ms, retries: 1}}",
	}, "\n")), 0o600))
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
	w.expect(states, "old", err, RolledBack, "in_use")
	same("started meanwhile")

	err = w.during("fence", sid, func() { removeImage(t, db) })
	w.expect(states, "old", err, RolledBack, "image_missing")
	same("an image is gone")
}
