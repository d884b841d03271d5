//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// postgres is a server on two volumes: its data directory, and a tablespace with
// some of the tables. The data directory has the WAL and the transaction status, so
// a tablespace of another moment is noticed.
type postgres struct {
	*host
	data, side string // the volumes on this host
	uid        uint32 // of the server in its container
}

// TestPostgres captures a server under load, by pause and by stop, restores both
// snapshots, and kills a restore between the two volumes. Each part needs the one
// before it.
func TestPostgres(t *testing.T) {
	pg := deploy(t)
	trace := filepath.Join(pg.dir, "trace")
	for _, part := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"captured by pause under load", func(t *testing.T) { pg.pause(t, trace) }},
		{"captured by stop under load", func(t *testing.T) { pg.stop(t, trace) }},
		{"restore killed after the first volume", func(t *testing.T) { pg.kill(t, trace) }},
	} {
		if !t.Run(part.name, part.run) {
			t.Fatalf("server log:\n%s", pg.log())
		}
	}
}

func deploy(t *testing.T) *postgres {
	h := newHost(t)
	pg := &postgres{host: h, data: filepath.Join(h.dir, "apps", h.workload, "default", "data"), side: filepath.Join(h.dir, "apps", h.workload, "side")}
	for _, dir := range []string{pg.data, pg.side} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	config := fmt.Sprintf(`version: 1
state: %[1]s/state
store: %[1]s/store
base: %[1]s/apps
workloads:
  %[2]s:
    image: %[3]s
    command: [-c, max_wal_size=128MB, -c, min_wal_size=32MB]
    restart: unless-stopped
    stop_signal: SIGINT        # a fast shutdown: it does not wait for clients
    stop_grace_period: 60s
    healthcheck: {test: [CMD, pg_isready, -q], interval: 1s, start_period: 60s}
    volumes:
      - {scope: stage,   source: data, target: /var/lib/postgresql/data}
      - {scope: project, source: side, target: /var/lib/postgresql/side}
`, h.dir, h.workload, databases(t))
	if err := os.WriteFile(h.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	h.do(t, "", "deploy", h.workload)
	uid, err := strconv.ParseUint(docker(t, "exec", h.workload, "id", "-u", "postgres"), 10, 32)
	if err != nil || uid == 0 {
		t.Fatalf("uid of postgres: %d, %v", uid, err)
	}
	pg.uid = uint32(uid)
	pg.check(t)

	pg.psql(t, "CREATE TABLESPACE side LOCATION '/var/lib/postgresql/side'")
	docker(t, "exec", "-u", "postgres", h.workload, "pgbench", "-i", "-q", "-s", "5")
	// A pgbench transaction writes accounts, tellers, branches and history. Each
	// volume now has two of these tables.
	pg.psql(t, "ALTER TABLE pgbench_accounts SET TABLESPACE side")
	pg.psql(t, "ALTER TABLE pgbench_tellers SET TABLESPACE side")
	pg.psql(t, "CREATE TABLE mark_data (epoch int); CREATE TABLE mark_side (epoch int) TABLESPACE side")
	return pg
}

// databases builds the image of the servers and returns its name.
func databases(t *testing.T) string {
	t.Helper()
	build := exec.Command("../databases/image.sh")
	build.Stderr = os.Stderr
	image, err := build.Output()
	if err != nil {
		t.Fatalf("build the image: %v", err)
	}
	return strings.TrimSpace(string(image))
}

// pause restores a capture by pause, whose data is that after a power cut at that
// moment. The server recovers it, and both volumes are of the same moment.
func (pg *postgres) pause(t *testing.T, trace string) {
	pg.mark(t, 1)
	pg.load(t)
	before := pg.count(t, "pgbench_history")
	sid := pg.capture(t, "pause")
	pg.mark(t, 2)
	after := pg.count(t, "pgbench_history")
	waitFor(t, "pgbench going on after the capture", func() bool { return pg.count(t, "pgbench_history") > after })

	pg.restore(t, sid, trace)
	pg.check(t)
	pg.marks(t, "1")
	if n := pg.count(t, "pgbench_history"); n < before || n > after {
		t.Errorf("there are %d transactions, want between %d (before the capture) and %d (after it)", n, before, after)
	}
	pg.balanced(t)
	// Compare every index with its table, and verify page checksums.
	docker(t, "exec", "-u", "postgres", pg.workload, "pg_amcheck", "--all", "--install-missing", "--heapallindexed", "--parent-check")
}

// stop restores a capture by stop. After that capture the server comes back without
// its clients, so it still has exactly the captured rows.
func (pg *postgres) stop(t *testing.T, trace string) {
	client := pg.load(t)
	sid := pg.capture(t, "stop")
	pg.check(t)
	select {
	case <-client:
	case <-time.After(30 * time.Second):
		t.Fatal("pgbench survived a capture by stop")
	}
	captured := pg.sums(t)
	pg.balanced(t)

	pg.mark(t, 3)
	pg.psql(t, "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid % 7 = 0; DELETE FROM pgbench_tellers WHERE tid % 2 = 0")
	pg.psql(t, "DROP TABLE pgbench_history; CREATE TABLE later AS SELECT generate_series(1, 1000) AS n; CHECKPOINT")

	pg.restore(t, sid, trace)
	pg.check(t)
	pg.equal(t, captured, pg.sums(t))
	pg.marks(t, "1")
}

// kill kills a restore between its two volumes. The data on disk is then of two
// moments, and nothing may run on it. Recovery brings both volumes back to the old
// one.
func (pg *postgres) kill(t *testing.T, trace string) {
	second := secondSwap(t, trace, filepath.Base(pg.data), filepath.Base(pg.side))
	pg.mark(t, 4)
	captured := pg.sums(t)
	sid := pg.capture(t, "stop")
	pg.check(t)
	pg.mark(t, 5)
	pg.psql(t, "UPDATE pgbench_accounts SET abalance = 0; UPDATE pgbench_branches SET bbalance = 0")
	current := pg.sums(t)
	data, side := inode(t, pg.data), inode(t, pg.side)

	pg.killed(t, second, sid)
	swapped := [2]bool{inode(t, pg.data) != data, inode(t, pg.side) != side}
	if swapped[0] == swapped[1] {
		t.Fatalf("the volumes are swapped: %v, want exactly one of two", swapped)
	}
	if got := docker(t, "inspect", "--format", "{{.State.Running}} {{.HostConfig.RestartPolicy.Name}}", pg.workload); got != "false no" {
		t.Errorf("container after the kill: %q, want it stopped and kept from starting", got)
	}
	status := pg.do(t, "workloads", "status", pg.workload).first("workloads")
	need(t, status, statusFields)
	if status["pending"] == nil || status["pending"] == false {
		t.Errorf("status shows nothing pending: %v", status)
	}
	for _, verb := range [][]string{{"capture", pg.workload}, {"deploy", pg.workload}, {"restore", pg.workload, sid, "--confirm", sid}} {
		if code, o := pg.run(t, "error exit", verb...); code != 6 || o.num("exit") != 6 {
			t.Errorf("%s before recovery: exit %d, want 6", verb[0], code)
		}
	}

	found := pg.do(t, "transactions", "recover").list("transactions")
	need(t, objectAt(found, 0), recoverFields)
	if len(found) != 1 || objectAt(found, 0).str("action") != "rolled_back" {
		t.Errorf("recovered %v, want one transaction rolled back", found)
	}
	pg.check(t)
	pg.marks(t, "1 4 5")
	pg.equal(t, current, pg.sums(t))

	started := docker(t, "inspect", "--format", "{{.Id}} {{.State.StartedAt}}", pg.workload)
	if again := pg.do(t, "transactions", "recover").list("transactions"); len(again) != 0 {
		t.Errorf("a second recovery found %v", again)
	}
	if now := docker(t, "inspect", "--format", "{{.Id}} {{.State.StartedAt}}", pg.workload); now != started {
		t.Errorf("a second recovery touched the container: %s, was %s", now, started)
	}
	if left, _ := filepath.Glob(filepath.Join(pg.dir, "apps", pg.workload, "*", ".snap-*")); len(left) != 0 {
		t.Errorf("left over beside the volumes: %v", left)
	}

	// The same restore, not killed, brings the captured data.
	pg.restore(t, sid, trace)
	pg.check(t)
	pg.marks(t, "1 4")
	pg.equal(t, captured, pg.sums(t))
}

// psql runs SQL as the server's superuser and returns the rows.
func (pg *postgres) psql(t *testing.T, sql string) string {
	t.Helper()
	return docker(t, "exec", "-u", "postgres", pg.workload, "psql", "-X", "-v", "ON_ERROR_STOP=1", "-Atqc", sql)
}

func (pg *postgres) count(t *testing.T, table string) int {
	t.Helper()
	n, err := strconv.Atoi(pg.psql(t, "SELECT count(*) FROM "+table))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// mark writes an epoch to a table in each volume, in one transaction.
func (pg *postgres) mark(t *testing.T, epoch int) {
	t.Helper()
	pg.psql(t, fmt.Sprintf("BEGIN; INSERT INTO mark_data VALUES (%[1]d); INSERT INTO mark_side VALUES (%[1]d); COMMIT", epoch))
}

// marks checks the epochs in both volumes.
func (pg *postgres) marks(t *testing.T, want string) {
	t.Helper()
	for _, table := range []string{"mark_data", "mark_side"} {
		if got := pg.psql(t, "SELECT string_agg(epoch::text, ' ' ORDER BY epoch) FROM "+table); got != want {
			t.Errorf("%s has epochs %q, want %q", table, got, want)
		}
	}
}

// load starts pgbench, which runs until the container stops, and returns once it has
// made transactions.
func (pg *postgres) load(t *testing.T) <-chan error {
	t.Helper()
	before := pg.count(t, "pgbench_history")
	cmd := exec.Command("docker", "exec", "-u", "postgres", pg.workload, "pgbench", "-n", "-c", "4", "-T", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() }) // no effect on a process that has ended
	waitFor(t, "1000 transactions of pgbench", func() bool { return pg.count(t, "pgbench_history") > before+1000 })
	return ended
}

// balanced checks the invariant of pgbench: the four sums are equal. Each volume has
// two of the tables.
func (pg *postgres) balanced(t *testing.T) {
	t.Helper()
	sums := strings.Split(pg.psql(t, `SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
		(SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history)`), "|")
	for _, sum := range sums {
		if sum != sums[0] || sum == "" {
			t.Errorf("sums of accounts, tellers, branches, history are %v, want the same four times", sums)
			return
		}
	}
}

// sums returns the row count and a checksum of every table.
func (pg *postgres) sums(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, table := range strings.Fields(pg.psql(t, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")) {
		all[table] = pg.psql(t, fmt.Sprintf(
			"SELECT count(*) || ' ' || md5(coalesce(string_agg(sum, '' ORDER BY sum), '')) FROM (SELECT md5(t::text) AS sum FROM %s t) AS s", table))
	}
	if len(all) < 6 {
		t.Fatalf("there are too few tables: %v", all)
	}
	return all
}

func (pg *postgres) equal(t *testing.T, want, got map[string]string) {
	t.Helper()
	if !maps.Equal(want, got) {
		t.Errorf("the tables are %v\nwant %v", got, want)
	}
}

// check checks that the server is up, and that both volumes belong to its user
// alone. The server itself refuses a wrong data directory, but does not look at
// every file.
func (pg *postgres) check(t *testing.T) {
	t.Helper()
	pg.runs(t)
	owned(t, pg.data, pg.uid)
	owned(t, pg.side, pg.uid)
}

func (pg *postgres) log() string {
	out, _ := exec.Command("docker", "logs", "--tail", "60", pg.workload).CombinedOutput()
	return string(out)
}

// waitFor waits up to a minute until done returns true.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after a minute still not: %s", what)
		}
	}
}
