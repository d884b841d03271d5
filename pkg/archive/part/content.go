package part

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// Read calls do with the entry of the only name of a choice, and with the content that it
// has if it is a file, holes as zeros. members are all of the stream; only those of the
// name are read, and each is checked before a byte of it comes out. Of a link to a file,
// do gets the file. The error wraps [ErrMismatch] only where do was not called.
func (f *Found) Read(ctx context.Context, from archive.Opener, members []archive.Member, do func(*archive.Entry, io.Reader) error) error {
	s := newSource(ctx, from, members, f)
	s.before = func() {}
	defer s.close()
	for {
		e, err := s.Next()
		if errors.Is(err, io.EOF) { // Next has seen to it that every name has come up
			return mismatch("%q is not where it says", f.choice.names[0])
		}
		if err != nil {
			return err
		}
		if e.Name == f.choice.names[0] {
			return do(e, newContent(e, s.parser))
		}
		if err := s.parser.Pass(); err != nil {
			return err
		}
	}
}

// Contents reads entries of a stream by their lines: quickly in the order of the stream,
// and from anew where a line lies before the last one.
type Contents struct {
	ctx     context.Context
	from    archive.Opener
	members []archive.Member

	reader *archive.Reader
	parser *tarstream.Parser // nil before the first entry
	first  int               // the member with which reader begins
	last   string            // the entry before
}

// NewContents returns the contents of a stream of these members.
func NewContents(ctx context.Context, from archive.Opener, members []archive.Member) *Contents {
	return &Contents{ctx: ctx, from: from, members: members}
}

// ahead is how many members Open passes over rather than begin anew. So many may have been
// read ahead.
const ahead = 4

// Open returns the entry of a line, and the content that it has if it is a file, holes as
// zeros. The content is good until the next call. The error wraps [ErrMismatch] where the
// line is not of the stream.
func (c *Contents) Open(l *archive.Line) (*archive.Entry, io.Reader, error) {
	if l.Member < 0 || l.Member >= len(c.members) {
		return nil, nil, mismatch("%q is in member %d of %d", l.Name, l.Member, len(c.members))
	}
	if c.parser == nil || tarstream.Order(c.last, l.Name) >= 0 || l.Member > c.first+c.reader.At()+ahead {
		c.Close()
		c.first, c.last = l.Member, ""
		c.reader = archive.NewReader(c.ctx, c.from, c.members[l.Member:])
		c.parser = tarstream.NewPart(c.reader, func() {})
	} else if err := c.parser.Pass(); err != nil {
		return nil, nil, err
	}
	for {
		e, err := c.parser.Next()
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return nil, nil, err
		case err != nil || tarstream.Order(e.Name, l.Name) > 0:
			c.Close()
			return nil, nil, mismatch("%q is not where it says", l.Name)
		case e.Name == l.Name:
			c.last = e.Name
			return e, newContent(e, c.parser), nil
		}
		if err := c.parser.Pass(); err != nil {
			return nil, nil, err
		}
	}
}

// Close ends what the last Open has begun. Open may be called again.
func (c *Contents) Close() {
	if c.parser != nil {
		c.parser.Close()
		c.reader.Close()
		c.parser = nil
	}
}

// content is the content of a file, as it would be read from the file.
type content struct {
	from *tarstream.Parser
	data []archive.Extent // that is left, the first in part
	at   int64            // in the file
	size int64
}

func newContent(e *archive.Entry, from *tarstream.Parser) *content {
	c := &content{from: from, data: slices.Clone(e.Extents), size: e.Size}
	if !e.Sparse() {
		c.data = []archive.Extent{{Length: e.Size}}
	}
	return c
}

// Read implements [io.Reader].
func (c *content) Read(p []byte) (int, error) {
	for len(c.data) > 0 && c.data[0].Length == 0 {
		c.data = c.data[1:]
	}
	if c.at == c.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), c.size-c.at)]
	n := len(p)
	switch {
	case len(c.data) > 0 && c.at == c.data[0].Offset:
		b, _, err := c.from.Take(min(int64(n), c.data[0].Length))
		if err != nil {
			return 0, err
		}
		n = copy(p, b)
		c.data[0].Offset += int64(n)
		c.data[0].Length -= int64(n)
	case len(c.data) > 0:
		n = int(min(int64(n), c.data[0].Offset-c.at))
		fallthrough
	default:
		clear(p[:n])
	}
	c.at += int64(n)
	return n, nil
}
