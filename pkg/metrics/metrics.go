// Package metrics writes how a host's captures go, for the textfile collector of
// Prometheus.
//
// [Host.Write] looks at the journal and the store and writes the whole file. It asks no
// engine, so one that hangs does not keep it. The file is replaced at once: whoever reads
// it sees the old one or the new one.
package metrics

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/store"
)

// Host is what the metrics are of.
type Host struct {
	Workloads []string
	Journal   *journal.Journal
	Store     *store.Store // nil if there is none
	// ExitCode is the exit code of a run that has failed.
	ExitCode func(journal.Run) int
}

// metric is one metric, with its value for each workload that has one.
type metric struct {
	name, help string
	values     []value
}

type value struct {
	workload string
	number   float64
}

// The order of the metrics in the file.
const (
	lastSuccess = iota
	lastRun
	lastExit
	duration
	bytesOf
	storedOf
	snapshots
	damaged
	pending
)

func all() []metric {
	return []metric{
		lastSuccess: {name: "snap_capture_last_success_timestamp_seconds", help: "When the last capture that succeeded ended, in Unix time."},
		lastRun:     {name: "snap_capture_last_run_timestamp_seconds", help: "When the last capture ended, in Unix time."},
		lastExit:    {name: "snap_capture_last_exit_code", help: "The exit code of the last capture."},
		duration:    {name: "snap_capture_last_duration_seconds", help: "How long the last capture took."},
		bytesOf:     {name: "snap_snapshot_last_size_bytes", help: "How much data the last snapshot of a capture holds."},
		storedOf:    {name: "snap_snapshot_last_stored_bytes", help: "How much of the store the last snapshot of a capture names."},
		snapshots:   {name: "snap_snapshots", help: "How many snapshots the store has."},
		damaged:     {name: "snap_snapshots_damaged", help: "How many of them cannot be read."},
		pending:     {name: "snap_pending", help: "Whether an operation has not ended: it runs, or waits for snap recover."},
	}
}

// collect looks at everything.
func (h *Host) collect() ([]metric, error) {
	list := all()
	unfinished, err := h.unfinished()
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(slices.Values(h.Workloads)) {
		set := func(of int, number float64) { list[of].values = append(list[of].values, value{name, number}) }
		runs, err := h.Journal.Runs(name)
		if err != nil {
			return nil, err
		}
		h.captures(runs, set)
		found := 0.0
		if unfinished[name] || unfinished[""] {
			found = 1
		}
		set(pending, found)
		if h.Store == nil {
			continue
		}
		count, bad := 0.0, 0.0
		for _, err := range h.Store.Summaries(name) {
			count++
			if err != nil {
				bad++
			}
		}
		set(snapshots, count)
		set(damaged, bad)
	}
	return list, nil
}

// captures sets what the history tells.
func (h *Host) captures(runs []journal.Run, set func(int, float64)) {
	var last, good *journal.Run
	for i := range runs {
		if r := &runs[i]; r.Verb == "capture" {
			if last = r; r.Result == "ok" {
				good = r
			}
		}
	}
	if good != nil {
		set(lastSuccess, seconds(good.Time))
		set(bytesOf, float64(good.Bytes))
		set(storedOf, float64(good.Stored))
	}
	if last == nil {
		return
	}
	code := 0
	if last.Result != "ok" {
		code = h.ExitCode(*last)
	}
	set(lastRun, seconds(last.Time))
	set(lastExit, float64(code))
	set(duration, last.Seconds)
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// unfinished are the workloads with a transaction that has not ended; "" where one cannot
// be read, and may be of any.
func (h *Host) unfinished() (map[string]bool, error) {
	found := map[string]bool{}
	unended, err := h.Journal.Unended()
	if err != nil {
		return nil, err
	}
	for tx, err := range unended {
		if err != nil {
			found[journal.WorkloadOf(err)] = true
		} else {
			found[tx.Begin.Workload] = true
		}
	}
	return found, nil
}

// text is the file: the text format of Prometheus, version 0.0.4.
func text(list []metric) string {
	escape := strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
	var b strings.Builder
	for _, m := range list {
		if len(m.values) == 0 {
			continue
		}
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n", m.name, m.help, m.name)
		for _, v := range m.values {
			fmt.Fprintf(&b, "%s{workload=\"%s\"} %s\n", m.name, escape.Replace(v.workload), strconv.FormatFloat(v.number, 'f', -1, 64))
		}
	}
	return b.String()
}

// Write writes the file at an absolute path whose directory exists. Another process that
// writes it is waited for, two seconds at most.
func (h *Host) Write(path string) error {
	dir, err := disk.OpenRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if err = dir.Flock(unix.LOCK_EX | unix.LOCK_NB); err == nil {
			break
		}
		if time.Since(start) > 2*time.Second {
			return err
		}
	}
	defer func() { _ = dir.Flock(unix.LOCK_UN) }()
	list, err := h.collect()
	if err != nil {
		return err
	}
	return publish(dir, filepath.Base(path), text(list))
}

// publish is [disk.Dir.Publish] for a file that everybody may read: the collector is
// another user.
func publish(dir *disk.Dir, name, text string) error {
	tmp := name + ".tmp"
	if err := dir.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := dir.CreateFile(tmp)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, dir.Remove(tmp))
	}
	return dir.RenameSync(tmp, dir, name)
}
