package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Run is a line of <state>/history/<workload>.jsonl: how a capture or a restore went.
type Run struct {
	Time     time.Time `json:"time"` // of its end
	Verb     string    `json:"verb"`
	SID      string    `json:"sid,omitempty"`
	Result   string    `json:"result"` // "ok", or the code of the error
	Error    string    `json:"error,omitempty"`
	Left     string    `json:"left,omitempty"` // of an error: what it has left, as pkg/fault names the kinds
	Seconds  float64   `json:"seconds"`
	Downtime float64   `json:"downtime_seconds,omitempty"` // how long the app was down or at rest
	Bytes    int64     `json:"bytes,omitempty"`            // of the data
	Stored   int64     `json:"stored_bytes,omitempty"`     // of the snapshot
	Added    int64     `json:"added_bytes,omitempty"`      // by how much the store grew

	// Of a restore that began, or its recovery: the snapshot of the data from before, if it
	// was made, and which data is live since then, KeepOld or KeepNew; "" where nobody knows.
	PreRestoreSID string `json:"pre_restore_sid,omitempty"`
	Live          string `json:"live,omitempty"`
}

// The history of a workload is cut to its newer half when it is longer than this, in
// bytes: some thousand runs.
const maxHistory = 1 << 20

// historyLimit bounds what is read of a history.
const historyLimit = 4 * maxHistory

// AddRun appends a run to the history of a workload. It is not made durable: of a run
// right before a power cut the audit log knows.
func (j *Journal) AddRun(workload string, r Run) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := j.addLine(workload+".jsonl", append(line, '\n')); err != nil {
		return fmt.Errorf("the history of %s: %w", workload, err)
	}
	return nil
}

func (j *Journal) addLine(name string, line []byte) error {
	dir, err := j.root.Ensure("history", 0o700)
	if err != nil {
		return err
	}
	defer dir.Close()
	// Two captures of a workload that are busy may end at the same time.
	if err := dir.Flock(unix.LOCK_EX); err != nil {
		return err
	}
	defer func() { _ = dir.Flock(unix.LOCK_UN) }()
	f, err := dir.OpenShared(name)
	if err != nil {
		return err
	}
	err = appendLine(f, line)
	info, statErr := f.Stat()
	if err := errors.Join(err, statErr, f.Close()); err != nil {
		return err
	}
	if info.Size() <= maxHistory {
		return nil
	}
	text, err := dir.ReadFile(name, historyLimit)
	if err != nil {
		return err
	}
	return dir.Publish(name, newer(text))
}

// newer is the newer half of a history that is too long.
func newer(text []byte) []byte {
	if len(text) <= maxHistory {
		return text
	}
	_, text, _ = bytes.Cut(text[len(text)-maxHistory/2:], []byte("\n")) // the first line was cut
	return text
}

// MoveRuns puts the history of a workload before that of another, and ends it. It may run
// again after a crash: no line is there twice.
func (j *Journal) MoveRuns(from, to string) error {
	dir, err := j.root.OpenIfThere("history")
	if err != nil || dir == nil {
		return err
	}
	defer dir.Close()
	if err := dir.Flock(unix.LOCK_EX); err != nil {
		return err
	}
	defer func() { _ = dir.Flock(unix.LOCK_UN) }()
	old, err := dir.ReadFile(from+".jsonl", historyLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	now, err := dir.ReadFile(to+".jsonl", historyLimit)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	there := map[string]bool{}
	for line := range bytes.Lines(now) {
		there[string(line)] = true
	}
	var all []byte
	for line := range bytes.Lines(old) {
		if !there[string(line)] && bytes.HasSuffix(line, []byte("\n")) {
			all = append(all, line...)
		}
	}
	if err := dir.Publish(to+".jsonl", newer(append(all, now...))); err != nil {
		return err
	}
	return errors.Join(dir.Remove(from+".jsonl"), dir.Sync())
}

// Runs returns the runs of a workload, the oldest first. A line that is none is passed
// over: nothing depends on it.
func (j *Journal) Runs(workload string) ([]Run, error) {
	dir, err := j.root.OpenIfThere("history")
	if err != nil || dir == nil {
		return nil, err
	}
	defer dir.Close()
	text, err := dir.ReadFile(workload+".jsonl", historyLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var runs []Run
	for line := range bytes.Lines(text) {
		var r Run
		if json.Unmarshal(line, &r) == nil && !r.Time.IsZero() {
			runs = append(runs, r)
		}
	}
	return runs, nil
}

// LastFailure returns the last run of an operation that failed, nil if one has succeeded
// since.
func LastFailure(runs []Run, verb string) (failure *Run) {
	for i := range runs {
		switch r := &runs[i]; {
		case r.Verb != verb:
		case r.Result == "ok":
			failure = nil
		default:
			failure = r
		}
	}
	return failure
}

// Recovered reports whether the last run of an operation has succeeded after the one
// before it had failed.
func Recovered(runs []Run, verb string) bool {
	var last, before *Run
	for i := range runs {
		if runs[i].Verb == verb {
			before, last = last, &runs[i]
		}
	}
	return last != nil && last.Result == "ok" && before != nil && before.Result != "ok"
}

// Growth is the most that one of the last ten runs has added to the store.
func Growth(runs []Run) (most int64) {
	for _, r := range runs[max(0, len(runs)-10):] {
		most = max(most, r.Added)
	}
	return most
}

// LastRestore returns the last restore that began, nil if none is known.
func LastRestore(runs []Run) (last *Run) {
	for i := range runs {
		if runs[i].Live != "" {
			last = &runs[i]
		}
	}
	return last
}

// Downtimes returns how long the app was down at the last restores that succeeded, the last
// one first, five at most.
func Downtimes(runs []Run) (seconds []float64) {
	const most = 5
	for _, r := range slices.Backward(runs) {
		if r.Verb == "restore" && r.Result == "ok" && r.Downtime > 0 && len(seconds) < most {
			seconds = append(seconds, r.Downtime)
		}
	}
	return seconds
}
