package metrics

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/store"
)

func host(t *testing.T, workloads ...string) *Host {
	t.Helper()
	dir, err := disk.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close(); dir.Close() })
	return &Host{Workloads: workloads, Journal: j, ExitCode: func(r journal.Run) int { return map[string]int{"no_space": 1, "busy": 4}[r.Result] }}
}

func (h *Host) text(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "snap.prom")
	if err := h.Write(path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestTheFileIsWritten(t *testing.T) {
	h := host(t, "web", "blog", "new")
	at := time.Date(2026, 11, 23, 3, 17, 2, 250e6, time.UTC)
	add := func(workload string, r journal.Run) {
		if err := h.Journal.AddRun(workload, r); err != nil {
			t.Fatal(err)
		}
	}
	add("blog", journal.Run{Time: at, Verb: "capture", Result: "ok", Seconds: 1.5, Bytes: 1 << 40, Stored: 1 << 30})
	add("blog", journal.Run{Time: at.Add(24 * time.Hour), Verb: "capture", Result: "no_space", Seconds: 0.25})
	add("blog", journal.Run{Time: at.Add(25 * time.Hour), Verb: "restore", Result: "busy"})
	add("web", journal.Run{Time: at, Verb: "capture", Result: "busy"})
	held, err := h.Journal.Lock("web", "test")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release()
	tx, err := h.Journal.Begin(held, &journal.Begin{Kind: journal.Capture, SID: "20261123T031702Z-3f9a2c"})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	const want = `# HELP snap_capture_last_success_timestamp_seconds When the last capture that succeeded ended, in Unix time.
# TYPE snap_capture_last_success_timestamp_seconds gauge
snap_capture_last_success_timestamp_seconds{workload="blog"} 1795403822.25
# HELP snap_capture_last_run_timestamp_seconds When the last capture ended, in Unix time.
# TYPE snap_capture_last_run_timestamp_seconds gauge
snap_capture_last_run_timestamp_seconds{workload="blog"} 1795490222.25
snap_capture_last_run_timestamp_seconds{workload="web"} 1795403822.25
# HELP snap_capture_last_exit_code The exit code of the last capture.
# TYPE snap_capture_last_exit_code gauge
snap_capture_last_exit_code{workload="blog"} 1
snap_capture_last_exit_code{workload="web"} 4
# HELP snap_capture_last_duration_seconds How long the last capture took.
# TYPE snap_capture_last_duration_seconds gauge
snap_capture_last_duration_seconds{workload="blog"} 0.25
snap_capture_last_duration_seconds{workload="web"} 0
# HELP snap_snapshot_last_size_bytes How much data the last snapshot of a capture holds.
# TYPE snap_snapshot_last_size_bytes gauge
snap_snapshot_last_size_bytes{workload="blog"} 1099511627776
# HELP snap_snapshot_last_stored_bytes How much of the store the last snapshot of a capture names.
# TYPE snap_snapshot_last_stored_bytes gauge
snap_snapshot_last_stored_bytes{workload="blog"} 1073741824
# HELP snap_pending Whether an operation has not ended: it runs, or waits for snap recover.
# TYPE snap_pending gauge
snap_pending{workload="blog"} 0
snap_pending{workload="new"} 0
snap_pending{workload="web"} 1
`
	if got := h.text(t); got != want {
		t.Errorf("the file is\n%s", got)
	}
}

// A manifest that cannot be read is counted, and a transaction that cannot be read may be
// of any workload.
func TestWhatCannotBeReadIsCounted(t *testing.T) {
	h := host(t, "blog")
	dir := t.TempDir()
	st, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	h.Store = st
	spoiled := dir + "/snapshots/blog/20261123T031702Z-3f9a2c"
	if err := os.MkdirAll(spoiled, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(spoiled+"/manifest.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`snap_snapshots{workload="blog"} 1`, `snap_snapshots_damaged{workload="blog"} 1`} {
		if got := h.text(t); !strings.Contains(got, "\n"+line+"\n") {
			t.Errorf("there is no %s in\n%s", line, got)
		}
	}
}

// line is a sample of the text format, as its specification has it: a name, labels whose
// values escape backslash, quote and line feed alone, and a number.
var line = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)\{workload="((?:[^"\\\n]|\\\\|\\"|\\n)*)"\} (\S+)$`)

// Whatever a workload's name is, each line is one sample, with the name as its label. A
// metric has one HELP and one TYPE, before all of its samples, and no sample twice.
func TestTheFormatIsThatOfPrometheus(t *testing.T) {
	names := []string{"plain", `a "quoted" \name\`, "two\nlines", `ends in \`, "ünï", ""}
	list := all()
	for i := range list {
		for _, name := range names {
			list[i].values = append(list[i].values, value{name, 1e18 + 0.5})
		}
	}
	var order []string
	seen := map[string]bool{}
	now := ""
	written := text(list)
	if !strings.HasSuffix(written, "\n") {
		t.Error("the last line has no end")
	}
	for _, l := range strings.Split(strings.TrimSuffix(written, "\n"), "\n") {
		if help, ok := strings.CutPrefix(l, "# HELP "); ok {
			now, help, _ = strings.Cut(help, " ")
			if help == "" || slices.Contains(order, now) {
				t.Errorf("%q", l)
			}
			order = append(order, now)
			continue
		}
		if l == "# TYPE "+now+" gauge" {
			continue
		}
		found := line.FindStringSubmatch(l)
		if found == nil || found[1] != now || seen[found[1]+found[2]] {
			t.Errorf("%q", l)
			continue
		}
		seen[found[1]+found[2]] = true
		name := strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\"`, `"`).Replace(found[2])
		if _, err := strconv.ParseFloat(found[3], 64); err != nil || !slices.Contains(names, name) {
			t.Errorf("%q is of %q: %v", l, name, err)
		}
	}
	if len(order) != len(list) || len(seen) != len(list)*len(names) {
		t.Errorf("%d metrics and %d samples", len(order), len(seen))
	}
	for _, m := range order {
		if !strings.HasPrefix(m, "snap_") || strings.Contains(m, "seconds_") || strings.Contains(m, "bytes_") {
			t.Errorf("%s is not a name by the conventions: the unit comes last", m)
		}
	}
}

// The file is replaced whole: whoever reads it meanwhile sees one of the two, and after an
// error the old one stays.
func TestTheFileIsReplacedAtOnce(t *testing.T) {
	h := host(t, "blog")
	dir := t.TempDir()
	path := dir + "/snap.prom"
	if err := os.WriteFile(path, []byte("old\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := os.Symlink("/etc/passwd", path+".tmp"); err != nil { // the directory is somebody else's
		t.Fatal(err)
	}
	if err := h.Write(path); err != nil {
		t.Fatal(err)
	}
	old := make([]byte, 10)
	n, _ := reader.Read(old)
	data, _ := os.ReadFile(path)
	if string(old[:n]) != "old\n" || !strings.Contains(string(data), "snap_pending") {
		t.Errorf("the reader saw %q, and the file is %q", old[:n], data)
	}
	names, _ := os.ReadDir(dir)
	if len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
	if err := os.Mkdir(dir+"/other.prom", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := h.Write(dir + "/other.prom"); err == nil {
		t.Error("a directory was replaced")
	}
	if err := h.Write(fmt.Sprintf("%s/none/snap.prom", dir)); err == nil {
		t.Error("a directory was made")
	}
}
