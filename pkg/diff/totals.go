package diff

import (
	"context"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/store"
)

// Totals are the changes of a volume in numbers.
type Totals struct {
	Added    Number `json:"added"`
	Removed  Number `json:"removed"`
	Changed  Number `json:"changed"`  // content or type; bytes as they are afterwards
	Metadata Number `json:"metadata"` // nothing else
	Excluded int64  `json:"excluded"` // names of the snapshot that the config excludes, with live data
}

// Number counts names. A file with several names is one file, and its further names are
// others.
type Number struct {
	Files  int64 `json:"files"`
	Dirs   int64 `json:"dirs"`
	Others int64 `json:"others"`
	Bytes  int64 `json:"bytes"` // of the files
}

// Any reports whether anything differs.
func (t *Totals) Any() bool {
	return t.Added.names()+t.Removed.names()+t.Changed.names()+t.Metadata.names() > 0
}

func (n Number) names() int64 { return n.Files + n.Dirs + n.Others }

func (t *Totals) count(kind Kind, l *archive.Line) {
	n := map[Kind]*Number{Added: &t.Added, Removed: &t.Removed, Metadata: &t.Metadata}[kind]
	if n == nil {
		n = &t.Changed
	}
	switch l.Type {
	case archive.Regular:
		n.Files++
		n.Bytes += l.Size
	case archive.Directory:
		n.Dirs++
	default:
		n.Others++
	}
}

// Counts counts what a restore of a volume would do to its live data, which may be nil, by
// stat alone. It takes about as long as two readings of the index and one walk, and no
// member is read: the error wraps [store.ErrIndex] or [part.ErrMismatch] where the index
// cannot be used.
func Counts(ctx context.Context, st *store.Store, m *store.Manifest, v *store.Volume, live *disk.Dir, opt archive.WriteOptions) (*Totals, error) {
	if live == nil {
		return &Totals{Added: Number{v.Files, v.Dirs, v.Symlinks + v.Hardlinks + v.Specials, v.Bytes}}, nil
	}
	return Compare(ctx, Request{Store: st, From: Side{Manifest: m, Volume: v}, To: Side{Live: live, Options: opt}, Back: true})
}
