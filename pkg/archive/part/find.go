package part

import (
	"errors"
	"fmt"
	"io"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// ErrMismatch says that an index does not fit its stream.
var ErrMismatch = errors.New("the index does not fit the stream")

func mismatch(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrMismatch, fmt.Errorf(format, args...))
}

// span are members that follow one another: from the first, up to one that is not read.
type span struct{ from, to int }

// Found says where a choice lies in a stream.
type Found struct {
	Stats   archive.Stats // of what will be made, as the index has it
	Missing []Missing     // what was chosen and is not there; then nothing can be extracted

	choice *Choice
	exact  bool // the stream itself says it
	spans  []span
	first  []span         // the first names of files of which only other names are chosen
	links  map[string]int // these names, and how many others each has
	names  map[string]bool
}

// Missing is a chosen name that is not there.
type Missing struct {
	Name string
	In   string   // the directory above it that is there
	Near []string // names that resemble it
}

// Members returns those that will be read.
func (f *Found) Members(all []archive.Member) (list []archive.Member) {
	for _, spans := range [][]span{f.spans, f.first} {
		for _, s := range spans {
			list = append(list, all[s.from:s.to]...)
		}
	}
	return list
}

// Find looks a choice up in an index of a stream of so many members.
func (c *Choice) Find(index Index, members int) (*Found, error) {
	f := &Found{choice: c, links: map[string]int{}, names: map[string]bool{}}
	s := &search{Found: f, members: members}
	exact, err := each(index, s.line)
	if err != nil {
		return nil, err
	}
	if f.exact = exact; s.open != "" { // up to the end of the stream
		s.spans = extend(s.spans, span{s.end, members})
	}
	for _, name := range c.names {
		if !f.names[name] {
			f.Missing = append(f.Missing, Missing{Name: name, In: f.nearest(name)})
		}
	}
	if len(f.Missing) > 0 {
		return f, c.near(index, f.Missing)
	}
	if len(f.links) == 0 {
		return f, nil
	}
	return f, f.findFirst(index, members)
}

// findFirst looks up the files of which only other names are chosen.
func (f *Found) findFirst(index Index, members int) error {
	left := len(f.links)
	s := &search{Found: f, members: members}
	_, err := each(index, func(l *archive.Line) error {
		if err := s.check(l); err != nil || f.links[l.Name] == 0 {
			return err
		}
		left--
		f.first = extend(f.first, span{l.Member, l.Member + 1 + l.Span})
		f.Stats.Hardlinks--
		f.Stats.Count(tarstream.Root, archive.Regular, l.Size, l.Data) // it gets another name, which is counted
		return nil
	})
	if err == nil && left > 0 {
		err = mismatch("it lacks a name that others are links to")
	}
	return err
}

// nearest returns the closest directory above a name that is there.
func (f *Found) nearest(name string) string {
	for name != tarstream.Root {
		if name = directory(name); f.names[name] {
			break
		}
	}
	return name
}

// search is one pass over an index.
type search struct {
	*Found
	members int
	before  string // the name of the line before
	from    int    // the member in which that begins
	end     int    // the members up to here hold the lines so far
	open    string // the chosen directory that the lines are in
}

// check refuses lines that no stream has.
func (s *search) check(l *archive.Line) error {
	if s.before != "" && tarstream.Order(s.before, l.Name) >= 0 {
		return mismatch("%q comes after %q", l.Name, s.before)
	}
	if l.Member < s.from || l.Span < 0 || l.Span >= s.members || l.Member+l.Span >= s.members {
		return mismatch("%q is in member %d and %d more of %d", l.Name, l.Member, l.Span, s.members)
	}
	s.before, s.from, s.end = l.Name, l.Member, max(s.end, l.Member+1+l.Span)
	return nil
}

func (s *search) line(l *archive.Line) error {
	if err := s.check(l); err != nil {
		return err
	}
	top := s.choice.top(l.Name)
	if s.open != "" && top != s.open { // this entry shows that the directory is whole
		s.spans = extend(s.spans, span{l.Member, l.Member + 1})
		s.open = ""
	}
	if top == "" && !s.choice.above[l.Name] {
		return nil
	}
	s.Stats.Count(l.Name, l.Type, l.Size, l.Data)
	if top == "" || l.Name == top {
		s.names[l.Name] = true
	}
	s.spans = extend(s.spans, span{l.Member, l.Member + 1 + l.Span})
	if top == "" {
		return nil
	}
	if l.Name == top && l.Type == archive.Directory {
		s.open = top
	}
	if l.Type == archive.Hardlink && s.choice.top(l.Link) == "" {
		s.links[l.Link]++
	}
	return nil
}

// extend appends a span, as a part of the last one where they touch.
func extend(list []span, s span) []span {
	if n := len(list) - 1; n >= 0 && s.from <= list[n].to {
		list[n].to = max(list[n].to, s.to)
		return list
	}
	return append(list, s)
}

// each calls do with each line of an index, up to an error, and reports whether the lines
// are those of the stream itself.
func each(index Index, do func(*archive.Line) error) (exact bool, err error) {
	lines, err := index()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, lines.Close()) }()
	_, exact = lines.(*scan)
	for {
		l, err := lines.Next()
		if errors.Is(err, io.EOF) {
			return exact, nil
		}
		if err == nil {
			err = do(l)
		}
		if err != nil {
			return exact, err
		}
	}
}
