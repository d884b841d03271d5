package workload

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Hooks are commands that run before and after the data of a workload is touched.
type Hooks struct {
	// BeforeQuiesce run in a capture after the first pass, while the app runs. AfterThaw
	// run in each capture that has begun, when the app runs again, whatever became of it;
	// if snap is killed, in its recovery.
	BeforeQuiesce HookList `yaml:"before_quiesce"`
	AfterThaw     HookList `yaml:"after_thaw"`
	// BeforeRestore run in a restore before the app is stopped. AfterRestore run in each
	// restore that has begun, when the app is up again, whatever became of it; if snap is
	// killed, in its recovery.
	BeforeRestore HookList `yaml:"before_restore"`
	AfterRestore  HookList `yaml:"after_restore"`
}

// HookList are hooks in their order: in the config a list of them, or only one.
type HookList []Hook

// Hook is one command.
type Hook struct {
	Command   Command  `yaml:"command"`
	Container string   `yaml:"container"`  // where it runs; "" for the host
	User      string   `yaml:"user"`       // in the container; "" for the container's own
	Timeout   Duration `yaml:"timeout"`    // when it is killed
	OnFailure string   `yaml:"on_failure"` // HookFails or HookWarns
}

// Command is an argument vector. No shell sees it.
type Command []string

// UnmarshalYAML takes a list only: of one string nobody could tell whether a shell was
// meant to read it.
func (c *Command) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.SequenceNode || slices.ContainsFunc(n.Content, func(word *yaml.Node) bool { return word.Kind != yaml.ScalarNode }) {
		return fmt.Errorf("line %d: command is a list of words; for a shell write [sh, -c, '…']", n.Line)
	}
	return n.Decode((*[]string)(c))
}

// What the failure of a hook means.
const (
	HookFails = "fail" // before: the operation fails. After: it is done, and something is pending
	HookWarns = "warn" // a warning
)

// hookTimeout is how long a hook may take that says nothing of it.
const hookTimeout = time.Minute

// UnmarshalYAML takes a hook or a list of them.
func (l *HookList) UnmarshalYAML(n *yaml.Node) error {
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		nodes = n.Content
	}
	for _, n := range nodes {
		if n.Kind != yaml.MappingNode {
			return fmt.Errorf("line %d: a hook is a mapping with a command", n.Line)
		}
		if err := knownKeys(n, "a hook", "command", "container", "user", "timeout", "on_failure"); err != nil {
			return err
		}
		var h Hook
		if err := n.Decode(&h); err != nil {
			return err
		}
		*l = append(*l, h)
	}
	return nil
}

// knownKeys refuses other keys: the decoder of a node does not.
func knownKeys(n *yaml.Node, of string, known ...string) error {
	for pair := range slices.Chunk(n.Content, 2) {
		if !slices.Contains(known, pair[0].Value) {
			return fmt.Errorf("line %d: unknown key %s in %s (it knows %s)", pair[0].Line, pair[0].Value, of, strings.Join(known, ", "))
		}
	}
	return nil
}

func (h *Hooks) check() error {
	for where, list := range map[string]HookList{"before_quiesce": h.BeforeQuiesce, "after_thaw": h.AfterThaw, "before_restore": h.BeforeRestore, "after_restore": h.AfterRestore} {
		for i := range list {
			if err := list[i].check(); err != nil {
				return fmt.Errorf("hooks: %s: %w", where, err)
			}
		}
	}
	return nil
}

func (h *Hook) check() error {
	if len(h.Command) == 0 || h.Command[0] == "" {
		return errors.New("a hook needs a command")
	}
	if slices.ContainsFunc(h.Command, func(word string) bool { return strings.ContainsRune(word, 0) }) {
		return errors.New("a word of the command holds a NUL byte")
	}
	if h.User != "" && h.Container == "" {
		return errors.New("user is for a hook in a container; on the host use sudo or runuser")
	}
	h.Timeout = cmp.Or(h.Timeout, Duration(hookTimeout))
	h.OnFailure = cmp.Or(h.OnFailure, HookFails)
	if h.OnFailure != HookFails && h.OnFailure != HookWarns {
		return fmt.Errorf("on_failure is %q: use %s or %s", h.OnFailure, HookFails, HookWarns)
	}
	return nil
}
