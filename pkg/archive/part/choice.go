package part

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// ErrName is wrapped by the error for a name that no volume can hold.
var ErrName = errors.New("not a path inside a volume")

// Choice are names of a volume: files and directories, with all that is in them.
type Choice struct {
	names  []string        // none lies below another
	chosen map[string]bool // the same
	above  map[string]bool // the directories above them, the root included
}

// Choose makes a choice of slash-separated paths below the volume, at least one. A slash
// at the end is left out. An error wraps [ErrName].
func Choose(paths []string) (*Choice, error) {
	c := &Choice{chosen: map[string]bool{}, above: map[string]bool{}}
	for _, path := range paths {
		name := path
		if len(name) > 1 {
			name = strings.TrimSuffix(name, "/")
		}
		if err := tarstream.CheckName(name); err != nil {
			return nil, fmt.Errorf("%w: %q", ErrName, path)
		}
		c.chosen[name] = true
	}
	for name := range c.chosen {
		if dir := directory(name); dir != tarstream.Root && c.top(dir) != "" { // a part of another
			continue
		}
		c.names = append(c.names, name)
		for dir := directory(name); ; dir = directory(dir) {
			c.above[dir] = true
			if dir == tarstream.Root {
				break
			}
		}
	}
	c.chosen = map[string]bool{}
	for _, name := range c.names {
		c.chosen[name] = true
	}
	slices.SortFunc(c.names, tarstream.Order)
	return c, nil
}

// Names returns what was chosen, sorted, without what lies below another.
func (c *Choice) Names() []string { return c.names }

// directory returns the name of the directory that a name is in.
func directory(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return tarstream.Root
}

// top returns the chosen name that name is, or lies below, and "" where there is none.
func (c *Choice) top(name string) string {
	for name != tarstream.Root {
		if c.chosen[name] {
			return name
		}
		name = directory(name)
	}
	return ""
}

// Lines are the lines of an index, in the order of the stream.
type Lines interface {
	// Next returns the next line, and io.EOF after the last.
	Next() (*archive.Line, error)
	Close() error
}

// Index opens the lines of a volume. It may be called several times.
type Index func() (Lines, error)
