// Package intake turns the archive of another program into a tree that can be captured.
//
// [Extract] makes the tree beside the live directory of the volume for which the archive
// is, where a restore would stage it too: what one filesystem holds, another may not. The
// rules are those of [archive.ExtractForeign]. [Tree.Clear] deletes it. A crash in between
// leaves a transaction, and its recovery deletes the tree. [Fault] says what an operator
// can do about an archive that was refused.
package intake

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/foreign"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Request says what is extracted, and where.
type Request struct {
	Volume *workload.Volume
	// Place is where the volume is, nil where it cannot be opened.
	Place *swap.Volume
	// Begin opens the transaction for a directory beside the volume.
	Begin func(*journal.Begin) (*journal.Tx, error)
	// Elsewhere makes a directory that the caller clears away, for a volume beside which
	// there can be none: it cannot be opened, or the engine has yet to make it.
	Elsewhere func() (*disk.Dir, error)
	Archive   io.Reader
	Wrote     func(bytes int64) // see [archive.ExtractOptions]
}

// Tree is what came of an archive.
type Tree struct {
	Dir *disk.Dir // the volume: its directory, or its one file
	// Dropped is that of [archive.Foreign].
	Dropped  map[string]int64
	NotKept  []snapshot.NotKept
	Warnings []string

	root  *disk.Dir // in which Dir is, where that is a file
	clear func() error
}

// Clear closes the tree and deletes it. It does nothing for nil.
func (t *Tree) Clear() error {
	if t == nil {
		return nil
	}
	t.Dir.Close()
	t.root.Close()
	return t.clear()
}

// Extract extracts an archive. After an error nothing of it is left.
func Extract(ctx context.Context, req *Request) (*Tree, error) {
	t := &Tree{clear: func() error { return nil }}
	var err error
	if req.Place == nil || req.Place.EngineVolume != "" {
		t.root, err = req.Elsewhere()
	} else {
		var s *swap.Scratch
		if s, err = req.Place.MakeScratch(req.Begin); err == nil {
			t.root, t.clear = s.Dir, s.Clear
		}
	}
	if err != nil {
		return nil, err
	}
	if err := t.fill(ctx, req); err != nil {
		if left := t.Clear(); left != nil {
			return nil, fault.New(fault.Pending, "cleanup", remedy.Of(remedy.RecoverAll), "%w; the clean-up is not finished: %w", err, left)
		}
		return nil, err
	}
	return t, nil
}

func (t *Tree) fill(ctx context.Context, req *Request) error {
	free, err := t.root.Space()
	if err != nil {
		return err
	}
	opt := snapshot.ExtractOptions(req.Volume)
	// The app runs on this filesystem: a tenth of what is free stays free.
	opt.MaxEntries, opt.MaxBytes, opt.MaxDepth = int64(min(free.Inodes, 1<<40)), int64(min(free.Bytes-free.Bytes/10, 1<<62)), archive.MaxDepth
	opt.Wrote, opt.Lost = req.Wrote, &archive.Losses{}
	file := ""
	opt.Default = archive.DefaultDirectory(nil)
	if req.Place != nil && req.Place.Live != nil {
		if file = req.Place.Live.File(); file == "" {
			opt.Default = archive.DefaultDirectory(req.Place.Live)
		}
	}
	found, err := archive.ExtractForeign(ctx, req.Archive, t.root, opt)
	if err != nil {
		return err
	}
	t.Dropped = found.Dropped
	t.NotKept, t.Warnings = snapshot.NotKeptOf(req.Volume.Name, opt.Lost.List())
	if t.Dir = t.root; file != "" {
		t.Dir, err = single(req.Volume, found, t.root, file)
	}
	return err
}

// single opens the file that a volume is.
func single(v *workload.Volume, found *archive.Foreign, root *disk.Dir, name string) (*disk.Dir, error) {
	if found.Stats.Files != 1 || found.Stats.Entries() != 2 {
		return nil, fmt.Errorf("%w: %s is one file, and the archive must hold %q and nothing else", archive.ErrRefused, v.Path(), name)
	}
	file, err := root.OpenSingle(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is one file, and the archive does not hold %q: %w", archive.ErrRefused, v.Path(), name, err)
	}
	return file, nil
}

// Fault gives a refused archive its own way out: another snapshot would not help.
func Fault(err error) error {
	e := fault.Classify(err)
	if e.Code != "snapshot_damaged" {
		return e
	}
	e.Code = "archive_refused"
	e.Remedy = remedy.Of("make the archive again without what the error names; or extract it into an empty directory, put that right there, " +
		"and archive what is in it: tar -C DIRECTORY --format=posix --xattrs --xattrs-include='*' -cf ARCHIVE .")
	if damaged := new(foreign.Damaged); errors.As(err, &damaged) {
		e.Remedy = remedy.Of("copy the archive again from where it was made: it was cut, or changed on its way (`tar -tf ARCHIVE` tells whether a copy is whole)")
	}
	return e
}
