//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writeConfig writes a config with the host's workload: an image, its volumes below the
// host's directory, and more lines.
func (h *host) writeConfig(t *testing.T, more string) {
	t.Helper()
	config := fmt.Sprintf("version: 1\nstate: %[1]s/state\nstore: %[1]s/store\nbase: %[1]s/apps\nworkloads:\n  %[2]s:\n    image: %[3]s\n", h.dir, h.workload, databases(t))
	for line := range strings.Lines(more) {
		config += "    " + line
	}
	err := errors.Join(os.MkdirAll(filepath.Join(h.dir, "apps"), 0o755), os.WriteFile(h.config, []byte(config), 0o600))
	if err != nil {
		t.Fatal(err)
	}
}

// TestRedisIsSavedByAHook: this Redis writes nothing by itself. What it has in memory is in
// the snapshot because the hook of docs/operating.md has it write.
func TestRedisIsSavedByAHook(t *testing.T) {
	h := newHost(t)
	h.writeConfig(t, fmt.Sprintf(`entrypoint: [redis-server, --dir, /data, --save, "", --appendonly, "no"]
healthcheck: {test: [CMD, redis-cli, PING], interval: 500ms}
volumes: [{scope: stage, source: data, target: /data}]
hooks:
  before_quiesce: {container: %s, command: [redis-cli, SAVE], timeout: 5m}
`, h.workload))
	h.do(t, "", "deploy", h.workload)
	docker(t, "exec", h.workload, "redis-cli", "SET", "key", "captured")
	sid := h.do(t, "", "capture", h.workload).str("sid")
	docker(t, "exec", h.workload, "redis-cli", "SET", "key", "later")
	h.do(t, "", "restore", h.workload, sid, "--confirm", sid)
	if got := docker(t, "exec", h.workload, "redis-cli", "GET", "key"); got != "captured" {
		t.Errorf("after the restore Redis has %q", got)
	}

	// In a container that does not answer as it should, the capture fails and nothing changes.
	h.writeConfig(t, fmt.Sprintf(`entrypoint: [redis-server, --dir, /data, --save, "", --appendonly, "no"]
healthcheck: {test: [CMD, redis-cli, PING], interval: 500ms}
volumes: [{scope: stage, source: data, target: /data}]
hooks:
  before_quiesce: {container: %s, command: [redis-cli, -e, NOSUCHCOMMAND], timeout: 5m}
`, h.workload))
	code, o := h.run(t, "error exit", "capture", h.workload)
	failure, _ := o["error"].(map[string]any)
	if code != 1 || object(failure).str("code") != "hook_failed" {
		t.Errorf("with a hook that fails the capture ended with %d: %v", code, o)
	}
	if got := docker(t, "inspect", "--format", "{{.State.Status}}", h.workload); got != "running" {
		t.Errorf("the container is %s", got)
	}
}

// TestADumpOfPostgresIsInTheSnapshot: the hook of docs/operating.md writes a dump into a
// volume, and pg_restore reads it out of the snapshot.
func TestADumpOfPostgresIsInTheSnapshot(t *testing.T) {
	h := newHost(t)
	h.writeConfig(t, fmt.Sprintf(`healthcheck: {test: [CMD, pg_isready, -q], interval: 1s, start_period: 60s}
environment: {TABLESPACE: /dumps}
volumes:
  - {scope: stage, source: data, target: /var/lib/postgresql/data}
  - {scope: stage, source: dumps, target: /dumps}
hooks:
  before_quiesce:
    - {container: %s, user: postgres, command: [pg_dump, --format=custom, --file=/dumps/shop.dump, postgres], timeout: 30m}
`, h.workload))
	h.do(t, "", "deploy", h.workload)
	pg := &postgres{host: h}
	pg.psql(t, "CREATE TABLE orders (n int); INSERT INTO orders SELECT generate_series(1, 1234)")
	sid := h.do(t, "", "capture", h.workload).str("sid")
	pg.psql(t, "DROP TABLE orders")

	out := filepath.Join(h.dir, "out")
	h.do(t, "", "restore", h.workload, sid, "--to", out, "dumps:shop.dump")
	docker(t, "cp", filepath.Join(out, "dumps", "shop.dump"), h.workload+":/tmp/shop.dump")
	docker(t, "exec", "-u", "postgres", h.workload, "sh", "-c", "createdb again && pg_restore --dbname=again /tmp/shop.dump")
	if got := docker(t, "exec", "-u", "postgres", h.workload, "psql", "-XAtqc", "SELECT count(*) FROM orders", "again"); got != "1234" {
		t.Errorf("out of the dump come %q orders", got)
	}
}
