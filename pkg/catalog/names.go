package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/part"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/store"
)

// Names are the names of a volume of a snapshot, in the order of the stream. No member is
// read for them, unless the index of the snapshot cannot be used. Memory is bounded, but
// for the files with several names.
type Names struct {
	// Proof begins the lines of the index. It is nil where they prove nothing about live
	// files, because they are of another boot or another machine.
	Proof *store.IndexVolume

	lines  part.Lines
	linked map[string]*archive.Line // the files that other names are links to; nil until they have passed
}

// Name is one name of a volume. Of a further name of a file, too, Size is that of the file.
type Name struct {
	archive.Line
	First *archive.Line // where the content is: the line of the file; nil where there is none
}

// OpenNames opens the names of a volume. The index is read twice, for only its end shows
// that it is whole. An error wraps [store.ErrIndex] or [part.ErrMismatch] where it cannot
// be used. The caller closes the names.
func OpenNames(ctx context.Context, st *store.Store, m *store.Manifest, v *store.Volume, of store.Origin) (*Names, error) {
	n := &Names{}
	open := indexOf(ctx, st, m, v)
	var err error
	if n.linked, err = check(open, v); err != nil {
		return nil, err
	}
	if n.lines, err = open(); err != nil {
		return nil, err
	}
	n.Proof = proof(st, m, v, of)
	return n, nil
}

// ScanNames is OpenNames out of the stream itself, nearly all of which is read, twice.
func ScanNames(ctx context.Context, st *store.Store, v *store.Volume) (*Names, error) {
	n := &Names{}
	open := part.Scan(ctx, st, v.Members)
	var err error
	if n.linked, err = check(open, v); errors.Is(err, part.ErrMismatch) {
		return nil, fmt.Errorf("%w: %w", archive.ErrRefused, err)
	} else if err != nil {
		return nil, err
	}
	n.lines, err = open()
	return n, err
}

// NamesOf is OpenNames, and ScanNames where the index cannot be used. line is told so.
func NamesOf(ctx context.Context, st *store.Store, m *store.Manifest, v *store.Volume, of store.Origin, line func(string)) (*Names, error) {
	n, err := OpenNames(ctx, st, m, v, of)
	if errors.Is(err, store.ErrIndex) || errors.Is(err, part.ErrMismatch) {
		line(scanNotice(m, err))
		return ScanNames(ctx, st, v)
	}
	return n, err
}

func scanNotice(m *store.Manifest, err error) string {
	return fmt.Sprintf("notice: the index of snapshot %s cannot be used, so the whole stream is looked through: %v", m.SID, err)
}

func proof(st *store.Store, m *store.Manifest, v *store.Volume, of store.Origin) *store.IndexVolume {
	r, err := st.OpenIndex(m, of)
	if err != nil {
		return nil
	}
	defer r.Close()
	found, err := r.Find(v.Name)
	if err != nil {
		return nil
	}
	return found
}

// Next returns the next name, and io.EOF after the last.
func (n *Names) Next() (*Name, error) {
	l, err := n.lines.Next()
	if err != nil {
		return nil, err
	}
	name := &Name{Line: *l, First: l}
	if _, is := n.linked[l.Name]; is {
		n.linked[l.Name] = l
	}
	if l.Type == archive.Hardlink {
		if name.First = n.linked[l.Link]; name.First != nil {
			name.Size, name.Data = name.First.Size, name.First.Data
		}
	}
	return name, nil
}

// Close closes the names.
func (n *Names) Close() error { return n.lines.Close() }

// check reads lines to their end, and refuses those that are not of the volume: with
// names that no volume has, in another order, or others than the manifest counts. It
// returns the names of files that other names are links to.
func check(open part.Index, v *store.Volume) (linked map[string]*archive.Line, err error) {
	lines, err := open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lines.Close()) }()
	linked = map[string]*archive.Line{}
	var stats archive.Stats
	for before := ""; ; {
		l, err := lines.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := checkLine(before, l, len(v.Members)); err != nil {
			return nil, fmt.Errorf("volume %q: %w: %w", v.Name, part.ErrMismatch, err)
		}
		if l.Type == archive.Hardlink {
			linked[l.Link] = nil
		}
		stats.Count(l.Name, l.Type, l.Size, l.Data)
		before = l.Name
	}
	if stats != v.Stats {
		return nil, fmt.Errorf("volume %q: %w: it has %+v, and the manifest %+v", v.Name, part.ErrMismatch, stats, v.Stats)
	}
	return linked, nil
}

func checkLine(before string, l *archive.Line, members int) error {
	switch {
	case before == "" && l.Name == tarstream.Root && l.Type == archive.Directory:
		return nil
	case before == "":
		return fmt.Errorf("%q comes first", l.Name)
	case tarstream.Order(before, l.Name) >= 0:
		return fmt.Errorf("%q comes after %q", l.Name, before)
	case l.Member < 0 || l.Span < 0 || l.Span >= members || l.Member+l.Span >= members:
		return fmt.Errorf("%q is in member %d and %d more of %d", l.Name, l.Member, l.Span, members)
	case l.Mode > 0o7777:
		return fmt.Errorf("%q has mode %#o", l.Name, l.Mode)
	case l.Type == archive.Hardlink && tarstream.Order(l.Link, l.Name) >= 0:
		return fmt.Errorf("%q is a link to %q", l.Name, l.Link)
	}
	return tarstream.CheckName(l.Name)
}
