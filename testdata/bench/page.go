package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// What lies between these lines of docs/performance.md is written by a run.
const (
	beginMark = "<!-- bench: from here on written by make bench -->"
	endMark   = "<!-- bench: until here -->"
)

// writeDocs writes a report into performance.md, whose other text stays, and
// draws downtime.svg beside it.
func writeDocs(dir string, r *report) error {
	if !r.Complete {
		return errors.New("a part alone does not go into the docs")
	}
	path := filepath.Join(dir, "performance.md")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	now, err := between(string(text), tables(r))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(now), 0o644); err != nil {
		return err
	}
	drawing, err := draw(r)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "downtime.svg"), []byte(drawing), 0o644)
}

// between replaces what lies between the marks.
func between(text, body string) (string, error) {
	before, rest, begins := strings.Cut(text, beginMark)
	_, after, ends := strings.Cut(rest, endMark)
	if !begins || !ends {
		return "", fmt.Errorf("the lines %q and %q are not there", beginMark, endMark)
	}
	return before + beginMark + "\n\n" + strings.TrimSpace(body) + "\n\n" + endMark + after, nil
}
