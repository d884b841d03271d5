package part

import (
	"context"
	"errors"
	"io"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// Scan is the index of a stream as the stream itself says it. To read its lines is to
// read all members but those that hold the content of large files.
func Scan(ctx context.Context, from archive.Opener, members []archive.Member) Index {
	return func() (Lines, error) {
		r := archive.NewReader(ctx, from, members)
		return &scan{reader: r, parser: tarstream.NewParser(r, func() {})}, nil
	}
}

// scan is one entry ahead of the lines that it gives: only the next entry shows in which
// member the one before ends.
type scan struct {
	reader *archive.Reader
	parser *tarstream.Parser
	ahead  *archive.Line
	begun  bool
	first  int // the last member that began with an entry: a part can begin there
}

func (s *scan) Next() (*archive.Line, error) {
	if !s.begun {
		s.begun = true
		if _, err := s.advance(); err != nil {
			return nil, err
		}
	}
	l := s.ahead
	if l == nil {
		return nil, io.EOF
	}
	end, err := s.advance()
	if err != nil {
		return nil, err
	}
	l.Span = max(end-1-l.Member, 0)
	return l, nil
}

// advance goes on to the next entry, and returns after which member the one before ends.
func (s *scan) advance() (end int, err error) {
	if err := s.parser.Pass(); err != nil { // over the content of the entry before
		return 0, err
	}
	e, err := s.parser.Next()
	if errors.Is(err, io.EOF) {
		s.ahead = nil
		return s.reader.At(), nil
	}
	if err != nil {
		return 0, err
	}
	at, first := s.parser.Began()
	end = at
	if first {
		s.first = at
	} else {
		end++ // it is in the same member
	}
	s.ahead = &archive.Line{Entry: *e, Member: s.first, Data: e.Stored()}
	return end, nil
}

func (s *scan) Close() error {
	s.parser.Close()
	s.reader.Close()
	return nil
}
