package diff

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/catalog"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
)

// Kind is what has become of a name. The letters are restic's.
type Kind string

// The kinds.
const (
	Added    Kind = "+"
	Removed  Kind = "-"
	Modified Kind = "M" // another content
	Metadata Kind = "U" // the same content, as far as was looked
	Retyped  Kind = "T" // a file has become a directory, or the like
)

// Change is a name that differs.
type Change struct {
	Kind     Kind
	Name     string
	From, To *archive.Line // nil where the name is not there. Size is that of the file for each of its names
}

// Side is a volume as it is in a snapshot, or now. The zero Side has nothing in it.
type Side struct {
	Manifest *store.Manifest
	Volume   *store.Volume

	Live    *disk.Dir // of live data, which can only be the second side
	Options archive.WriteOptions
}

// Request is one volume to compare.
type Request struct {
	Store    *store.Store
	From, To Side
	Back     bool                // say what leads from the second side to the first
	Content  bool                // read what stat cannot tell
	Scan     bool                // read the stream where an index cannot be used, or else fail
	See      func(*Change) error // may be nil
	Line     func(text string)   // is given text for the person at the terminal
}

// Compare compares one volume of two sides. Without Scan the error wraps [store.ErrIndex]
// or [part.ErrMismatch] where the index of a snapshot cannot be used.
func Compare(ctx context.Context, r Request) (*Totals, error) {
	c := &comparison{Request: r, ctx: ctx}
	if r.To.Live != nil {
		c.exclude, c.skipsSpecial = r.To.Options.Exclude, r.To.Options.Special == archive.SkipSpecial
	}
	var err error
	if c.from, err = c.open(r.From); err != nil {
		return nil, err
	}
	defer c.from.close()
	if err := c.step(); err != nil {
		return nil, err
	}
	if r.To.Live != nil {
		err = c.walk()
	} else {
		err = c.others()
	}
	if err == nil {
		err = c.upTo("")
	}
	return &c.totals, err
}

// comparison is a pass over both sides.
type comparison struct {
	Request
	ctx      context.Context
	from, to *stored
	next     *catalog.Name // of from; nil after the last
	proves   bool          // the times of live files prove something
	totals   Totals
	buffers  [2][]byte

	exclude      func(name string) bool
	skipsSpecial bool
	excluded     string // the last excluded name: all below it is excluded too
	cache        string // the last cache directory
}

// open opens the names of a side that is in a snapshot.
func (c *comparison) open(s Side) (*stored, error) {
	if s.Volume == nil {
		return &stored{}, nil
	}
	open := func() (*catalog.Names, error) {
		of := snapshot.Origin()
		if !c.Scan {
			return catalog.OpenNames(c.ctx, c.Store, s.Manifest, s.Volume, of)
		}
		return catalog.NamesOf(c.ctx, c.Store, s.Manifest, s.Volume, of, c.Line)
	}
	names, err := open()
	if err != nil {
		return nil, err
	}
	return newStored(c.ctx, c.Store, s.Volume, names), nil
}

// step goes on to the next name of the first side.
func (c *comparison) step() (err error) {
	if c.next, err = c.from.next(); errors.Is(err, io.EOF) {
		c.next, err = nil, nil
	}
	return err
}

// excludes reports whether a name of the first side is one that the walk of the second
// leaves out. It is asked in order of all names that the second side does not have.
func (c *comparison) excludes(n *catalog.Name) bool {
	switch {
	case c.excluded != "" && strings.HasPrefix(n.Name, c.excluded+"/"):
	case c.skipsSpecial && n.Type.Special():
	case c.cache != "" && strings.HasPrefix(n.Name, c.cache+"/") && n.Name != c.cache+"/"+archive.CacheTag:
	case c.exclude != nil && n.Name != tarstream.Root && c.exclude(n.Name):
		c.excluded = n.Name
	default:
		return false
	}
	return true
}

// walk compares with live data.
func (c *comparison) walk() error {
	if c.from.names != nil {
		proves, err := c.To.Live.TimesProve()
		if err != nil {
			return err
		}
		fsid, err := c.To.Live.Filesystem()
		if err != nil {
			return err
		}
		p := c.from.names.Proof
		c.proves = proves && p != nil && p.FSID == fsid
	}
	return archive.Walk(c.ctx, c.To.Live, c.To.Options, func(s *archive.Seen) error {
		return c.see(&item{Line: &s.Line, seen: s})
	}, func(dir string) { c.cache = dir })
}

// others compares with another snapshot.
func (c *comparison) others() (err error) {
	if c.to, err = c.open(c.To); err != nil {
		return err
	}
	defer c.to.close()
	for {
		n, err := c.to.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = c.see(&item{Line: &n.Line, first: n.First, in: c.to})
		}
		if err != nil {
			return err
		}
	}
}

// upTo reports the names of the first side before name, all for "", as removed.
func (c *comparison) upTo(name string) error {
	for c.next != nil && (name == "" || tarstream.Order(c.next.Name, name) < 0) {
		if c.excludes(c.next) {
			c.totals.Excluded++
		} else if err := c.report(Removed, &c.next.Line, nil); err != nil {
			return err
		}
		if err := c.step(); err != nil {
			return err
		}
	}
	return nil
}

// see compares the next name of the second side.
func (c *comparison) see(to *item) error {
	if err := c.upTo(to.Name); err != nil {
		return err
	}
	if c.next == nil || c.next.Name != to.Name {
		return c.report(Added, nil, to.Line)
	}
	from := &item{Line: &c.next.Line, first: c.next.First, in: c.from}
	kind, err := c.judge(from, to)
	if err == nil && kind != "" {
		err = c.report(kind, from.Line, to.Line)
	}
	if err != nil {
		return err
	}
	return c.step()
}

func (c *comparison) report(kind Kind, from, to *archive.Line) error {
	if c.Back {
		from, to = to, from
		kind = map[Kind]Kind{Added: Removed, Removed: Added, Modified: Modified, Metadata: Metadata, Retyped: Retyped}[kind]
	}
	one := &Change{Kind: kind, From: from, To: to}
	line := to
	if line == nil {
		line = from
	}
	one.Name = line.Name
	c.totals.count(kind, line)
	if c.See == nil {
		return nil
	}
	return c.See(one)
}
