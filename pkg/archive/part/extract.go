package part

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/disk"
)

// Extract makes what was found in the empty directory into, under the rules of
// [archive.Extract]. members are all of the stream.
func Extract(ctx context.Context, from archive.Opener, members []archive.Member, f *Found, into *disk.Dir, opt archive.ExtractOptions) (archive.Stats, error) {
	s := newSource(ctx, from, members, f)
	defer s.close()
	return archive.ExtractFrom(ctx, func(before func()) archive.Source {
		s.before = before
		return s
	}, into, opt)
}

// source gives the entries of a choice: first those of the choice itself, in the order of
// the stream, and then the files that chosen links need. Those come last, because they may
// lie in the stream before the directories that they are made in.
type source struct {
	ctx     context.Context
	from    archive.Opener
	members []archive.Member
	found   *Found
	before  func()

	spans  []span // that are left to read
	reader *archive.Reader
	parser *tarstream.Parser // nil between two spans
	last   string            // the entry before, in the stream
	open   string            // the chosen directory that the entries are in
	seen   map[string]bool   // the chosen names, and the directories above them

	second bool                       // the links' files
	links  map[string][]archive.Entry // of each of these files, the chosen names
	queue  []archive.Entry            // names of the file before, to be given next
}

func newSource(ctx context.Context, from archive.Opener, members []archive.Member, f *Found) *source {
	return &source{ctx: ctx, from: from, members: members, found: f, spans: f.spans, seen: map[string]bool{}, links: map[string][]archive.Entry{}}
}

// Take implements [archive.Source].
func (s *source) Take(n int64) ([]byte, *member.Buffer, error) { return s.parser.Take(n) }

// Next implements [archive.Source].
func (s *source) Next() (*archive.Entry, error) {
	if len(s.queue) > 0 {
		e := s.queue[0]
		s.queue = s.queue[1:]
		return &e, nil
	}
	for {
		e, err := s.read()
		if errors.Is(err, io.EOF) && !s.second {
			if err := s.complete(); err != nil {
				return nil, err
			}
			s.second, s.spans, s.last = true, s.found.first, ""
			continue
		}
		if errors.Is(err, io.EOF) && len(s.links) > 0 {
			return nil, mismatch("a file that chosen names are links to is not where it says")
		}
		if err != nil {
			return nil, err
		}
		wanted := s.choose
		if s.second {
			wanted = s.rename
		}
		wants, err := wanted(e)
		if err != nil {
			return nil, err
		}
		if wants {
			return e, nil
		}
		if err := s.parser.Pass(); err != nil {
			return nil, err
		}
	}
}

// read returns the next entry of the spans, and io.EOF after the last.
func (s *source) read() (*archive.Entry, error) {
	for {
		if s.parser == nil {
			if len(s.spans) == 0 {
				return nil, io.EOF
			}
			s.reader = archive.NewReader(s.ctx, s.from, s.members[s.spans[0].from:s.spans[0].to])
			s.parser = tarstream.NewPart(s.reader, s.before)
			s.spans = s.spans[1:]
		}
		e, err := s.parser.Next()
		if errors.Is(err, io.EOF) {
			if s.open != "" && !s.parser.Ended() && !s.found.exact {
				return nil, mismatch("%q goes on after the members that it names", s.open)
			}
			s.open = ""
			s.close()
			continue
		}
		if err != nil {
			return nil, err
		}
		if s.last != "" && tarstream.Order(s.last, e.Name) >= 0 {
			return nil, member.Refuse("%q comes after %q: the names are not sorted", e.Name, s.last)
		}
		s.last = e.Name
		return e, nil
	}
}

func (s *source) close() {
	if s.parser != nil {
		s.parser.Close()
		s.reader.Close()
		s.parser = nil
	}
}

// choose reports whether e belongs to the choice, and keeps the links to other files for
// later.
func (s *source) choose(e *archive.Entry) (bool, error) {
	c := s.found.choice
	top := c.top(e.Name)
	if top != s.open {
		s.open = ""
	}
	if top == "" && !c.above[e.Name] {
		return false, nil
	}
	if top == "" || e.Name == top {
		s.seen[strings.Clone(e.Name)] = true
	}
	if e.Name == top && e.Type == archive.Directory {
		s.open = top
	}
	if e.Type == archive.Hardlink && c.top(e.Link) == "" {
		s.links[e.Link] = append(s.links[e.Link], *e)
		return false, nil
	}
	return true, nil
}

// complete makes sure that everything that was chosen has come up.
func (s *source) complete() error {
	for _, names := range []map[string]bool{s.found.choice.above, s.found.choice.chosen} {
		for name := range names {
			if !s.seen[name] {
				return mismatch("%q is not where it says", name)
			}
		}
	}
	return nil
}

// rename gives a file that chosen names are links to the first of these names. The others
// become links to that one.
func (s *source) rename(e *archive.Entry) (bool, error) {
	names := s.links[e.Name]
	if names == nil {
		return false, nil
	}
	if e.Type != archive.Regular {
		return false, member.Refuse("hardlink %q links to %q, which is not a regular file", names[0].Name, e.Name)
	}
	delete(s.links, e.Name)
	e.Name = names[0].Name
	for _, link := range names[1:] {
		link.Link = e.Name
		s.queue = append(s.queue, link)
	}
	return true, nil
}
