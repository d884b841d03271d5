package store

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
)

// MaxKept bounds the document that a snapshot keeps, in bytes.
const MaxKept = 64 << 20

// Keep gives the batch a document that is published with the snapshot: what it keeps of the
// workload's config. It is called once, before Publish. Nothing is durable before that.
func (b *Batch) Keep(document []byte) error {
	if len(document) > MaxKept {
		return fmt.Errorf("the config has %d bytes: at most %d are kept", len(document), MaxKept)
	}
	if err := b.scratch.WriteUnsynced(configFile, document); err != nil {
		return fmt.Errorf("keep the config: %w", err)
	}
	b.kept = archive.MemberID(document)
	return nil
}

// Kept returns the document that a snapshot keeps, nil where it keeps none. The error wraps
// [disk.ErrDamaged] where it is not the one that the manifest means.
func (s *Store) Kept(m *Manifest) ([]byte, error) {
	if m.Config == "" {
		return nil, nil
	}
	data, err := s.snapshots.ReadFile(m.Workload+"/"+m.SID+"/"+configFile, MaxKept)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", disk.ErrDamaged, err)
	}
	if err == nil && archive.MemberID(data) != m.Config {
		err = fmt.Errorf("%w: %s is not the one that the manifest means", disk.ErrDamaged, configFile)
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", m.SID, damaged(err))
	}
	return data, nil
}
