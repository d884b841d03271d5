package journal

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
)

// Audit is one line of <state>/audit.jsonl: what was done, by whom, with what
// result.
type Audit struct {
	Time     time.Time `json:"time"`
	Verb     string    `json:"verb"`
	Workload string    `json:"workload"`
	SID      string    `json:"sid,omitempty"`
	Tx       string    `json:"tx,omitempty"`
	Action   string    `json:"action,omitempty"` // what a recovery did
	To       string    `json:"to,omitempty"`     // the directory of an extraction
	Result   string    `json:"result"`
	Error    string    `json:"error,omitempty"`
	Seconds  float64   `json:"seconds"`
	User     string    `json:"user"` // SUDO_USER where there is one, else the uid
}

// The audit log is audit.jsonl. At maxAudit bytes it becomes audit.jsonl.1, and what was
// .1 becomes .2; the oldest of keptAudits is dropped.
const (
	auditLog   = "audit.jsonl"
	maxAudit   = 10 << 20
	keptAudits = 5
)

// Record appends a line to the audit log and makes it durable.
func (j *Journal) Record(a Audit) error {
	a.User = cmp.Or(os.Getenv("SUDO_USER"), fmt.Sprint(os.Getuid()))
	line, err := json.Marshal(a)
	if err != nil {
		return err
	}
	f, err := j.lockAudit()
	if err != nil {
		return fmt.Errorf("open the audit log: %w", err)
	}
	return errors.Join(appendLine(f, append(line, '\n')), f.Sync(), f.Close())
}

// appendLine adds a line, which ends with its line break, to a file that is locked. It gives
// the last line its end first, where a power cut or a full disk has cut that.
func appendLine(f *os.File, line []byte) error {
	info, err := f.Stat()
	if err == nil && info.Size() > 0 {
		last := make([]byte, 1)
		if _, err = f.ReadAt(last, info.Size()-1); last[0] != '\n' {
			line = append([]byte{'\n'}, line...)
		}
	}
	if err == nil {
		_, err = f.Write(line)
	}
	return err
}

// lockAudit opens the log for one line, alone: another process that adds a line waits.
// Whoever finds it full makes room first.
func (j *Journal) lockAudit() (*os.File, error) {
	for {
		f, err := j.root.OpenShared(auditLog)
		if err != nil {
			return nil, err
		}
		current, full := false, false
		if err = disk.Retry(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX) }); err == nil {
			current, full, err = j.auditIs(f)
		}
		if err == nil && full {
			err = j.rotateAudit()
		}
		if err == nil && current && !full {
			return f, nil
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
}

// auditIs reports whether f is still the log, and not one that another process has put
// aside while this one waited for the lock, and whether it is full.
func (j *Journal) auditIs(f *os.File) (current, full bool, err error) {
	var ours unix.Stat_t
	if err := disk.Retry(func() error { return unix.Fstat(int(f.Fd()), &ours) }); err != nil {
		return false, false, err
	}
	now, err := j.root.Lstat(auditLog)
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	current = now.Ino == ours.Ino && now.Dev == ours.Dev
	return current, current && ours.Size >= maxAudit, nil
}

// rotateAudit puts the log aside. Cut anywhere, it leaves a number without a file, and
// the next one moves only those before that number: no other log is dropped.
func (j *Journal) rotateAudit() error {
	name := func(n int) string {
		if n == 0 {
			return auditLog
		}
		return fmt.Sprintf("%s.%d", auditLog, n)
	}
	free := 1
	for ; free < keptAudits; free++ {
		there, err := j.root.Exists(name(free))
		if err != nil {
			return err
		}
		if !there {
			break
		}
	}
	for ; free > 0; free-- {
		if err := j.root.RenameSync(name(free-1), j.root, name(free)); err != nil {
			return err
		}
	}
	return nil
}
