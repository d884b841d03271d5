package diff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/part"
	"github.com/tiny-forge/snap/pkg/catalog"
	"github.com/tiny-forge/snap/pkg/store"
)

// stored is a side that is in a snapshot. The zero value has no names.
type stored struct {
	names    *catalog.Names
	members  []archive.Member
	contents *part.Contents
	others   *part.Contents // of files that are read out of order
}

func newStored(ctx context.Context, st *store.Store, v *store.Volume, names *catalog.Names) *stored {
	return &stored{
		names: names, members: v.Members,
		contents: part.NewContents(ctx, st, v.Members), others: part.NewContents(ctx, st, v.Members),
	}
}

func (s *stored) next() (*catalog.Name, error) {
	if s.names == nil {
		return nil, io.EOF
	}
	return s.names.Next()
}

func (s *stored) close() {
	if s.names != nil {
		s.contents.Close()
		s.others.Close()
		_ = s.names.Close() // what could be wrong with it showed when it was checked
	}
}

// item is a name of either side.
type item struct {
	*archive.Line
	first *archive.Line // of one in a snapshot: where its content is
	in    *stored
	seen  *archive.Seen // of a live one
}

// open returns the entry of an item in a snapshot, and its content.
func (i *item) open() (*archive.Entry, io.Reader, error) {
	if i.first == nil { // the check of the names has seen each first name
		return nil, nil, fmt.Errorf("%w: %q is a link to %q, which is not there", archive.ErrRefused, i.Name, i.Link)
	}
	from := i.in.contents
	if i.Type == archive.Hardlink {
		from = i.in.others
	}
	e, content, err := from.Open(i.first)
	if errors.Is(err, part.ErrMismatch) {
		err = fmt.Errorf("%w: %w", archive.ErrRefused, err)
	}
	return e, content, err
}

// file reports whether a name is one of a regular file.
func file(l *archive.Line) bool { return l.Type == archive.Regular || l.Type == archive.Hardlink }

// judge says what has become of a name that both sides have: "" for nothing.
func (c *comparison) judge(from, to *item) (Kind, error) {
	if from.Type != to.Type && !(file(from.Line) && file(to.Line)) {
		return Retyped, nil
	}
	timed := to.Type != archive.Directory && from.Mtime != to.Mtime
	another := timed && (file(to.Line) || to.Type == archive.Symlink) || file(to.Line) && from.Size != to.Size
	if c.Content && !(file(to.Line) && from.Size != to.Size) {
		same, err := c.same(from, to)
		if err != nil {
			return "", fmt.Errorf("%q: %w", to.Name, err)
		}
		another = !same
	}
	switch {
	case another:
		return Modified, nil
	case timed || from.Mode != to.Mode || from.UID != to.UID || from.GID != to.GID || from.Type != to.Type,
		to.Type == archive.Hardlink && from.Link != to.Link:
		return Metadata, nil
	}
	return "", nil
}

// same reports whether two names of the same kind and size have the same content.
func (c *comparison) same(from, to *item) (bool, error) {
	switch {
	case to.Type == archive.Directory, to.Type == archive.Fifo:
		return true, nil
	case c.proven(from, to):
		return true, nil
	case to.seen != nil:
		if same, err := to.seen.Unchanged(from.Line, c.since()); same || err != nil {
			return same, err
		}
	}
	if !file(to.Line) {
		return c.sameTarget(from, to)
	}
	_, a, err := from.open()
	if err != nil {
		return false, err
	}
	if to.seen == nil {
		_, b, err := to.open()
		if err != nil {
			return false, err
		}
		return c.sameBytes(a, b)
	}
	f, err := to.seen.Open()
	if err != nil {
		return false, err
	}
	defer f.Close()
	return c.sameBytes(a, io.LimitReader(f, from.Size+1)) // it may grow meanwhile
}

// since is the time before which the first side proves that a live file is unchanged.
func (c *comparison) since() (zero archive.Timespec) {
	if !c.proves {
		return zero
	}
	return c.from.names.Proof.Since
}

// proven reports whether two files are in the same members of two snapshots. A member is
// named by what is in it, headers included.
func (c *comparison) proven(from, to *item) bool {
	a, b := from.first, to.first
	if a == nil || b == nil || a.Span != b.Span || a.Name != b.Name {
		return false
	}
	first := 0
	if a.Span > 0 { // their content alone counts
		first = 1
	}
	for i := first; i <= a.Span; i++ {
		if c.from.members[a.Member+i].ID != c.to.members[b.Member+i].ID {
			return false
		}
	}
	return true
}

// sameTarget compares symlinks and devices.
func (c *comparison) sameTarget(from, to *item) (bool, error) {
	a, _, err := from.open()
	if err != nil {
		return false, err
	}
	b := &to.Entry
	switch {
	case to.seen == nil:
		if b, _, err = to.open(); err != nil {
			return false, err
		}
	case to.Type == archive.Symlink:
		target, err := to.seen.Target()
		return target == a.Link, err
	}
	return a.Link == b.Link && a.Major == b.Major && a.Minor == b.Minor, nil
}

// sameBytes compares two contents up to the first difference.
func (c *comparison) sameBytes(a, b io.Reader) (bool, error) {
	for i := range c.buffers {
		if c.buffers[i] == nil {
			c.buffers[i] = make([]byte, 256<<10)
		}
	}
	for {
		if c.ctx.Err() != nil {
			return false, context.Cause(c.ctx)
		}
		n, endA := io.ReadFull(a, c.buffers[0])
		m, endB := io.ReadFull(b, c.buffers[1])
		for _, err := range []error{endA, endB} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return false, err
			}
		}
		if !bytes.Equal(c.buffers[0][:n], c.buffers[1][:m]) {
			return false, nil
		}
		if endA != nil || endB != nil {
			return true, nil
		}
	}
}
