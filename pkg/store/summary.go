package store

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"reflect"
	"time"

	"github.com/tiny-forge/snap/pkg/disk"
)

const (
	summaryFormat  = "snap-summary"
	summaryVersion = 1
	summaryFile    = "summary.json"
	// maxSummary bounds a summary, in bytes. A snapshot with more to say has none.
	maxSummary = 4 << 20
)

// Summary is what a manifest says of a snapshot, without its members, which may be
// hundreds of thousands.
type Summary struct {
	disk.Seal
	Manifest Of              `json:"manifest"`
	Workload string          `json:"workload"`
	SID      string          `json:"sid"`
	Created  time.Time       `json:"created"`
	Reason   Reason          `json:"reason"`
	Note     string          `json:"note"`
	Tags     []string        `json:"tags,omitempty"`
	Quiesce  string          `json:"quiesce"`
	Volumes  []VolumeSummary `json:"volumes"`

	whole bool // it was made of the manifest, which is intact
	lacks bool // no intact summary lies beside the manifest
}

// Of names the manifest that a summary is of, and no other one.
type Of struct {
	Version  int    `json:"version"`
	Bytes    int64  `json:"bytes"`
	Checksum string `json:"checksum"`
}

// VolumeSummary is a volume. In place of its members it has what they come to.
type VolumeSummary struct {
	Volume
	Members int   `json:"members"` // how many
	Tar     int64 `json:"tar"`     // bytes of the tar stream
	Stored  int64 `json:"stored"`  // bytes of the members in the store
}

// Totals returns the files and bytes of all volumes.
func (s *Summary) Totals() (files, bytes, stored int64) {
	for i := range s.Volumes {
		v := &s.Volumes[i]
		files += v.Files
		bytes += v.Bytes
		stored += v.Stored
	}
	return files, bytes, stored
}

// Summary returns what the manifest says, without the members.
func (m *Manifest) Summary() *Summary {
	list := make([]VolumeSummary, len(m.Volumes))
	for i := range m.Volumes {
		v := &m.Volumes[i]
		list[i] = VolumeSummary{Members: len(v.Members), Tar: v.Tar(), Stored: v.Stored()}
	}
	return m.summary(list)
}

// summary adds to the counts of list, volume by volume, what m says.
func (m *Manifest) summary(list []VolumeSummary) *Summary {
	for i := range list {
		list[i].Volume = m.Volumes[i]
		list[i].Volume.Members = nil
	}
	return &Summary{
		Manifest: Of{Version: m.Version, Checksum: m.Checksum}, Workload: m.Workload, SID: m.SID, Created: m.Created,
		Reason: m.Reason, Note: m.Note, Tags: m.Tags, Quiesce: m.Quiesce, Volumes: list,
	}
}

// sealed returns the file that lies beside the manifest; nil where it would be too long.
func (s *Summary) sealed() ([]byte, error) {
	data, err := disk.MarshalSealed(s, summaryFormat, summaryVersion)
	if len(data) > maxSummary {
		return nil, nil
	}
	return data, err
}

// Summaries goes through the snapshots of a workload, newest first. For one that cannot
// be read it gives an error in its place. It reads the summaries that captures have left
// beside the manifests, and a manifest only where there is no such summary, or one that
// is damaged or of another manifest. A manifest is so much longer that damage to it, but
// for its first lines and its length, does not show here: see [Store.Intact].
func (s *Store) Summaries(workload string) iter.Seq2[*Summary, error] {
	return newestFirst(s, workload, s.Summary, func(x *Summary) time.Time { return x.Created })
}

// Summary returns the summary of a snapshot, with the errors of [Store.Load].
func (s *Store) Summary(workload, sid string) (*Summary, error) {
	dir, err := s.folder(workload, sid)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	beside, why := besideManifest(dir, workload, sid)
	if why == nil {
		return beside, nil
	}
	_, found, err := readManifest(dir, workload, sid, false)
	if err != nil {
		return nil, err
	}
	// One that is intact and of another manifest stays, for who verifies.
	found.lacks = errors.Is(why, fs.ErrNotExist) || errors.Is(why, disk.ErrDamaged)
	return found, nil
}

// errOther means that a summary is intact and not of the manifest that it lies beside.
var errOther = errors.New("it is of another manifest")

// besideManifest returns the summary that lies beside a manifest.
func besideManifest(dir *disk.Dir, workload, sid string) (*Summary, error) {
	of, err := manifestOf(dir, sid)
	if err != nil {
		return nil, err
	}
	data, err := dir.ReadFile(sid+"/"+summaryFile, maxSummary)
	if err != nil {
		return nil, err
	}
	found := &Summary{}
	if err := disk.UnmarshalSealed(data, found, summaryFormat, summaryVersion); err != nil {
		return nil, err
	}
	of.Version = found.Manifest.Version // the checksum covers it
	if found.Manifest != of || of.Version < 1 || of.Version > manifestVersion {
		return nil, errOther
	}
	if err := renamed(dir, &found.Workload, workload); err != nil {
		return nil, err
	}
	return found, found.validate(workload, sid)
}

// manifestOf reads the head of a manifest.
func manifestOf(dir *disk.Dir, sid string) (of Of, err error) {
	f, err := dir.OpenFile(sid + "/" + manifestFile)
	if err != nil {
		return of, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return of, err
	}
	r, err := disk.NewSealedReader(f)
	if err != nil {
		return of, err
	}
	return Of{Bytes: st.Size(), Checksum: r.Checksum()}, nil
}

// Intact reads the manifest that a summary is of, if that was not read yet, and compares
// its checksum. The error wraps [disk.ErrDamaged] where it is damaged.
func (s *Store) Intact(sum *Summary) error {
	if sum.whole {
		return nil
	}
	dir, err := s.folder(sum.Workload, sum.SID)
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := dir.OpenFile(sum.SID + "/" + manifestFile)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := disk.NewSealedReader(f)
	if err == nil {
		err = r.Verify()
	}
	if err != nil {
		return fmt.Errorf("snapshot %s: its manifest: %w", sum.SID, damaged(err))
	}
	return nil
}

// WriteSummary writes a summary beside the manifest that it was made of, where there is
// none, or a damaged one. That is durable when it returns nil; after an error it is as it
// was. The caller has the stores' lock alone, or the workload's.
func (s *Store) WriteSummary(sum *Summary) error {
	if !sum.lacks {
		return nil
	}
	data, err := sum.sealed()
	if err != nil || data == nil {
		return err
	}
	dir, err := s.snapshots.OpenSameMount(sum.Workload)
	if err != nil {
		return err
	}
	defer dir.Close()
	snapshot, err := dir.OpenSameMount(sum.SID)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	return snapshot.Publish(summaryFile, data)
}

// LoadHonest is [Store.Load] for whoever has decided by summaries what to delete. It
// fails where the summary that lies beside the manifest is intact and of this manifest,
// and yet does not say the same: only a forger makes such a summary.
func (s *Store) LoadHonest(workload, sid string) (*Manifest, error) {
	m, err := s.Load(workload, sid)
	if err != nil {
		return nil, err
	}
	if err := s.CheckSummary(m); errors.Is(err, errLies) {
		return nil, fmt.Errorf("snapshot %s: %w", sid, err)
	}
	return m, nil
}

// CheckSummary returns what is wrong with the summary that lies beside the manifest of a
// snapshot. That there is none is not wrong.
func (s *Store) CheckSummary(m *Manifest) error {
	dir, err := s.folder(m.Workload, m.SID)
	if err != nil {
		return err
	}
	defer dir.Close()
	beside, err := besideManifest(dir, m.Workload, m.SID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	want := m.Summary()
	want.Seal, want.Manifest.Bytes = beside.Seal, beside.Manifest.Bytes
	if !reflect.DeepEqual(beside, want) {
		return errLies
	}
	return nil
}

var errLies = fmt.Errorf("%w: its summary does not say what its manifest says", disk.ErrDamaged)
