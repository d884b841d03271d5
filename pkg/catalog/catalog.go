// Package catalog reads snapshots out of a store for whoever asks for one by name. It
// checks the id ([ValidSID]) or finds it by a word ([Find]), loads the manifest ([Load]),
// writes a volume as one archive ([Export]), and puts a snapshot, or chosen files of it,
// into a directory beside the live data ([Extract]). [Kept] reads the config that a
// snapshot keeps, and [ExtractConfig] puts that into a directory. [Look] lists the files of
// a snapshot, and writes one of them; it and a comparison go by [Names]. [Undo] finds what
// an undo restores. Its errors are [*fault.Error], with a way out for the operator.
//
// It takes no lock: the caller shares the store's, so that no member goes meanwhile. It
// touches no live data: [Guarded] says what an extraction keeps away from.
//
// Not promised: an extraction is not a transaction that a recovery finishes. One that was
// cut leaves a directory that says so ([Extract]), which the operator removes.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/store"
)

// ValidSID refuses what cannot be the id of a snapshot.
func ValidSID(workload, sid string) error {
	if !disk.ValidID(sid) {
		return fault.New(fault.Usage, "bad_sid", remedy.Of(remedy.List(workload)), "%q is not the id of a snapshot", sid)
	}
	return nil
}

// Load reads a manifest. For a snapshot that cannot be used its error is of kind.
func Load(st *store.Store, kind fault.Kind, workload, sid string) (*store.Manifest, error) {
	m, err := st.Load(workload, sid)
	if errors.Is(err, fs.ErrNotExist) {
		sids, _ := st.Published(workload) // only for the hint
		return nil, fault.New(kind, "snapshot_not_found", meant(sids, workload, sid), "there is no snapshot %s of workload %s", sid, workload)
	}
	if err != nil {
		return nil, unusable(kind, workload, err)
	}
	return m, nil
}

// unusable is the error of a manifest that is there.
func unusable(kind fault.Kind, workload string, err error) *fault.Error {
	switch {
	case errors.Is(err, disk.ErrTooNew):
		return fault.New(kind, "snapshot_too_new", remedy.Of("use the version of snap that made it, or a newer one"), "%w", err)
	case errors.Is(err, disk.ErrDamaged):
		return fault.New(kind, "snapshot_damaged", fault.UseAnother(workload), "%w", err)
	}
	return fault.Classify(err)
}

// Exported is a volume as it was written: Compression is that of the file.
type Exported struct {
	*store.Volume
	Compression string
}

// Export writes a volume of a snapshot to w as one .tar.gz or .tar.zst. volume may be
// "" if the snapshot has only one; with compression "" the snapshot's is used. Every
// byte is checked against the store's checksums before it is written. After an error
// w holds only a part.
func Export(ctx context.Context, st *store.Store, m *store.Manifest, volume, compression string, w io.Writer) (*Exported, error) {
	v, err := pick(m, volume)
	if err != nil {
		return nil, err
	}
	codec := v.Compression
	if compression != "" {
		if codec, err = archive.ParseCodec(compression); err != nil {
			return nil, fault.New(fault.Usage, "usage", remedy.Remedy{}, "%w", err)
		}
	}
	if err := archive.Join(ctx, w, st, v.Members, codec); err != nil {
		err := fault.Classify(fault.Because(ctx, fmt.Errorf("export volume %s: %w", v.Name, err)))
		if err.Code == "snapshot_damaged" { // no pre-flight has refused it
			err.Kind, err.Remedy = fault.Failed, remedy.Of("export another snapshot (", remedy.List(m.Workload), "), or copy the store's files back from a backup")
		}
		return nil, err
	}
	return &Exported{v, codec.String()}, nil
}

// pick returns the volume of that name; for "" the only one.
func pick(m *store.Manifest, name string) (*store.Volume, error) {
	var names []string
	for i := range m.Volumes {
		if v := &m.Volumes[i]; v.Name == name || name == "" && len(m.Volumes) == 1 {
			return v, nil
		}
		names = append(names, fmt.Sprintf("%q", m.Volumes[i].Name))
	}
	if name == "" {
		return nil, fault.New(fault.Usage, "volume_required", remedy.Of("choose one with --volume"), "the snapshot has %d volumes: %v", len(names), names)
	}
	return nil, unknown(m, name)
}
