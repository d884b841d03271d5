package journal

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
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

// Record appends a line to the audit log and makes it durable.
func (j *Journal) Record(a Audit) error {
	a.User = cmp.Or(os.Getenv("SUDO_USER"), fmt.Sprint(os.Getuid()))
	line, err := json.Marshal(a)
	if err != nil {
		return err
	}
	f, err := j.root.OpenShared("audit.jsonl")
	if err != nil {
		return fmt.Errorf("open the audit log: %w", err)
	}
	_, err = f.Write(append(line, '\n')) // one write: lines of two processes do not mix
	return errors.Join(err, f.Sync(), f.Close())
}
