package catalog

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/keep"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/store"
)

// Kept returns what a snapshot keeps of its workload's config, nil where it is from before
// that was kept. For one that cannot be used its error is of kind.
func Kept(st *store.Store, kind fault.Kind, m *store.Manifest) (*keep.Document, error) {
	data, err := st.Kept(m)
	if data == nil && err == nil {
		return nil, nil
	}
	var d *keep.Document
	if err == nil {
		d, err = keep.Read(data)
	}
	switch {
	case errors.Is(err, disk.ErrTooNew):
		return nil, fault.New(kind, "snapshot_too_new", remedy.Of("use the version of snap that made it, or a newer one"), "%w", err)
	case errors.Is(err, disk.ErrDamaged):
		return nil, fault.New(kind, "config_damaged", remedy.Of("the data is not hit; another snapshot may have its config: ", remedy.List(m.Workload)), "%w", err)
	case err != nil:
		return nil, fault.Classify(err)
	}
	return d, nil
}

// NoConfig refuses to show what a snapshot does not have.
func NoConfig(kind fault.Kind, m *store.Manifest) error {
	return fault.New(kind, "no_config", remedy.Of("a later snapshot may have it: ", remedy.List(m.Workload)), "snapshot %s keeps no config: an earlier version of snap made it", m.SID)
}

// kept are the names of what ExtractConfig makes.
const (
	keptConfig = "snap.yaml"
	keptFiles  = "files"
)

// ExtractConfig puts what a snapshot keeps of its workload's config into a directory, under
// the rules of [Extract]: snap.yaml, and in files each file at the path that it had. All are
// root's alone, since there may be secrets in them.
func ExtractConfig(ctx context.Context, x *Extraction) (*Extracted, error) {
	d, err := Kept(x.Store, fault.Refused, x.Manifest)
	if err == nil && d == nil {
		err = NoConfig(fault.Refused, x.Manifest)
	}
	if err != nil {
		return nil, err
	}
	text, err := d.Paste(x.Guarded.Config, x.Manifest.Workload)
	if err != nil {
		return nil, fault.Classify(err)
	}
	t, err := openTarget(x.Dir, x.Guarded.admit)
	if err != nil {
		return nil, fault.Classify(err)
	}
	return x.carryOut(ctx, t, &Extracted{Dir: t.path}, func() error {
		err := t.stage.WriteUnsynced(keptConfig, []byte(text))
		for i := range d.Files {
			if f := &d.Files[i]; err == nil && f.Left == "" {
				err = write(t.stage, keptFiles+f.Path, f.Content)
			}
		}
		return err
	})
}

// write makes a file below d that is not there, and the directories that it lies in.
func write(d *disk.Dir, rel string, content []byte) error {
	first, rest, deeper := strings.Cut(rel, "/")
	if !deeper {
		return d.WriteUnsynced(filepath.Base(rel), content)
	}
	in, err := d.EnsureUnsynced(first, 0o700)
	if err != nil {
		return err
	}
	defer in.Close()
	return write(in, rest, content)
}
