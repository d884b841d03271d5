package runtime

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// Exec is a command to run in a container.
type Exec struct {
	Container string // by its name, or by the service of a Compose workload
	User      string // "" for the container's own
	Command   []string
	Env       []string
	// Mark is one of Env, and of no other process: by it the command is killed together
	// with all that it has started.
	Mark string
}

// Mark is the variable in the environment of the commands of an operation that has the
// id of its transaction.
const Mark = "SNAP_WATCHED_TX"

// Marked returns the processes that have the mark, NAME=value, in their environment, also
// those in containers. The caller releases each.
func Marked(proc, mark string) []*os.Process {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil
	}
	var list []*os.Process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		environ := filepath.Join(proc, entry.Name(), "environ")
		if err != nil || !bears(environ, mark) {
			continue
		}
		p, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		// Asked again: another process may have got the number meanwhile. From here
		// on a descriptor holds the process (pidfd_open(2)).
		if bears(environ, mark) {
			list = append(list, p)
		} else {
			_ = p.Release()
		}
	}
	return list
}

func bears(environ, mark string) bool {
	env, err := os.ReadFile(environ)
	return err == nil && bytes.Contains(append([]byte{0}, env...), []byte("\x00"+mark+"\x00"))
}

// KillMarked kills the processes that have the mark, and what they start meanwhile.
func KillMarked(mark string) {
	for range 10 { // a process may fork while the list is read
		list := Marked("/proc", mark)
		for _, p := range list {
			_ = p.Kill()
			_ = p.Release()
		}
		if len(list) == 0 {
			return
		}
	}
}

// End keeps the end of what is written to it: of an error message the last line counts.
type End struct {
	mu   sync.Mutex
	text []byte
}

// Write implements [io.Writer]. It never fails.
func (e *End) Write(p []byte) (int, error) {
	const most = 8 << 10
	e.mu.Lock()
	defer e.mu.Unlock()
	e.text = append(e.text, p[max(0, len(p)-most):]...)
	if len(e.text) > 2*most {
		e.text = append(e.text[:0], e.text[len(e.text)-most:]...)
	}
	return len(p), nil
}

func (e *End) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return string(e.text)
}
