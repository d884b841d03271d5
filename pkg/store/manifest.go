package store

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"regexp"
	"slices"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
)

const (
	manifestFormat  = "snap-manifest"
	manifestVersion = 5 // the newest that is read; see Manifest.needs
	manifestFile    = "manifest.json"
	indexFile       = "index.gz"
	configFile      = "config.json"
	sumVersion      = 5 // the first whose volumes have sums
	// maxManifest bounds a manifest, in bytes: that of some 4 TiB.
	maxManifest = 512 << 20
	maxVolumes  = 1000
)

// Reason is why a snapshot was made.
type Reason string

const (
	Manual     Reason = "manual"
	PreRestore Reason = "pre-restore"
)

// BeforeRestore begins the note of a pre-restore snapshot that holds all that a restore
// replaced. Others hold what was taken back, or what was written meanwhile.
const BeforeRestore = "before the restore of "

// Manifest describes one snapshot. It is untrusted: it says what there is, and
// the current config says where that goes.
type Manifest struct {
	disk.Seal
	Workload string    `json:"workload"`
	SID      string    `json:"sid"`
	Created  time.Time `json:"created"`
	Reason   Reason    `json:"reason"`
	Note     string    `json:"note"`
	Tags     []string  `json:"tags,omitempty"`
	Quiesce  string    `json:"quiesce"`
	Snap     string    `json:"snap"` // the program's version
	Images   []Image   `json:"images"`
	// Index is the SHA-256 of the file index.gz beside the manifest, in hexadecimal; "" where
	// there is none, and in versions 1 to 4.
	Index string `json:"index,omitempty"`
	// Config is the SHA-256 of the file config.json beside the manifest, in hexadecimal; ""
	// where there is none. See Kept.
	Config  string   `json:"config,omitempty"`
	Volumes []Volume `json:"volumes"`
}

// Image is what a container of the workload ran when the snapshot was made.
type Image struct {
	Service string `json:"service,omitempty"`
	Image   string `json:"image"`
	ImageID string `json:"image_id"`
	Digest  string `json:"digest,omitempty"`
}

// Volume is one volume of a snapshot.
type Volume struct {
	Name   string `json:"name"`
	Scope  string `json:"scope"`
	Source string `json:"source"`
	Target string `json:"target"`
	// Kind is File for a volume that is one file, and absent for a directory.
	Kind Kind `json:"kind,omitempty"`
	archive.Stats
	Sockets int64 `json:"sockets"` // left out
	Changed int64 `json:"changed"` // files that changed while they were read
	// Compression is the codec of every member.
	Compression archive.Codec `json:"compression,omitempty"` // absent for gzip
	// Sum is the hash of the whole volume: see [Batch.Publish]. Absent before version 5.
	Sum     string           `json:"sum,omitempty"`
	Members []archive.Member `json:"members"`
}

// Kind is what a volume is.
type Kind string

// The kinds of volumes. The archive of a file has the root directory, and the file
// under its own name.
const (
	Directory Kind = ""
	File      Kind = "file"
)

// KindOf returns the kind of what was opened as the data of a volume.
func KindOf(live *disk.Dir) Kind {
	if live.File() != "" {
		return File
	}
	return Directory
}

// Stored returns the bytes of the volume's members in the store.
func (v *Volume) Stored() int64 {
	var n int64
	for _, m := range v.Members {
		n += m.Stored
	}
	return n
}

// Tar returns the bytes of the volume's tar stream.
func (v *Volume) Tar() int64 {
	var n int64
	for _, m := range v.Members {
		n += m.Tar
	}
	return n
}

// Totals returns the files and bytes of all volumes.
func (m *Manifest) Totals() (files, bytes, stored int64) { return m.Summary().Totals() }

// Volume returns the volume of this name, scope and source, nil if there is none.
func (m *Manifest) Volume(name, scope, source string) *Volume {
	for i := range m.Volumes {
		if v := &m.Volumes[i]; v.Name == name && v.Scope == scope && v.Source == source {
			return v
		}
	}
	return nil
}

// needs returns the oldest version of the format that can express m, so that older
// programs read what they can. Version 2 has the compression of volumes, version 3 also
// their fifos and devices, version 4 also their kind, and tags, version 5 also their sums,
// index and config.
func (m *Manifest) needs() int {
	version := 1
	if len(m.Tags) > 0 {
		version = 4
	}
	for i := range m.Volumes {
		if m.Volumes[i].Compression != archive.Gzip {
			version = max(version, 2)
		}
		if m.Volumes[i].Specials != 0 {
			version = max(version, 3)
		}
		if m.Volumes[i].Kind != Directory {
			version = max(version, 4)
		}
		if m.Volumes[i].Sum != "" {
			version = sumVersion
		}
	}
	if m.Config != "" || m.Index != "" {
		version = 5
	}
	return version
}

// ValidTag reports whether a snapshot may have the tag: 1 to 64 letters, digits and
// characters of "._:/@+-".
func ValidTag(tag string) bool { return tagForm.MatchString(tag) }

var tagForm = regexp.MustCompile(`^[\pL\pN._:/@+-]{1,64}$`)

// validate refuses a summary whose manifest no capture writes. A forged one may have
// a correct checksum.
func (s *Summary) validate(workload, sid string) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %w", disk.ErrDamaged, fmt.Errorf(format, args...))
	}
	if s.Workload != workload || s.SID != sid {
		return bad("it is of snapshot %q of workload %q", s.SID, s.Workload)
	}
	if s.Reason != Manual && s.Reason != PreRestore {
		return bad("unknown reason %q", s.Reason)
	}
	for _, tag := range s.Tags {
		if !ValidTag(tag) {
			return bad("the tag %q", tag)
		}
	}
	if len(s.Volumes) > maxVolumes {
		return bad("%d volumes", len(s.Volumes))
	}
	names := map[string]bool{}
	var sum int64
	for i := range s.Volumes {
		v := &s.Volumes[i]
		if v.Name == "" || names[v.Name] {
			return bad("volume name %q is empty or not unique", v.Name)
		}
		names[v.Name] = true
		if err := v.validate(); err != nil {
			return bad("volume %q: %w", v.Name, err)
		}
		if sum += v.Bytes; sum < 0 { // the apparent sizes of sparse files have no other bound
			return bad("more bytes than can be counted")
		}
	}
	return nil
}

func validMember(m archive.Member) bool {
	return archive.ValidMemberID(m.ID) && m.Tar >= 1 && m.Tar <= archive.MaxMember && m.Stored >= 1 && m.Stored <= 2*archive.MaxMember
}

func (v *VolumeSummary) validate() error {
	n, tar := int64(v.Members), v.Tar
	if n < 1 || n > maxManifest || tar < n || tar > n*archive.MaxMember || v.Stored < n || v.Stored > 2*n*archive.MaxMember {
		return fmt.Errorf("%d members of %d bytes, %d stored", n, tar, v.Stored)
	}
	for _, n := range []int64{v.Files, v.Dirs, v.Symlinks, v.Hardlinks, v.Specials, v.Bytes, v.DataBytes, v.Sockets, v.Changed} {
		if n < 0 {
			return errors.New("a negative count")
		}
	}
	// Every name takes a header of 512 bytes at least, and content its size.
	const most = 1 << 53
	if v.Files > most || v.Dirs > most || v.Symlinks > most || v.Hardlinks > most || v.Specials > most || v.Entries() > tar/512 {
		return fmt.Errorf("%d entries in %d bytes", v.Entries(), tar)
	}
	if v.DataBytes > tar || v.DataBytes > v.Bytes {
		return fmt.Errorf("%d bytes of data in %d bytes", v.DataBytes, tar)
	}
	if v.Dirs < 1 || v.Depth < 0 || v.Depth > archive.MaxDepth {
		return fmt.Errorf("%d directories, depth %d", v.Dirs, v.Depth)
	}
	if v.Kind != Directory && v.Kind != File {
		return fmt.Errorf("it is of the unknown kind %q", v.Kind)
	}
	if v.Kind == File && (v.Files != 1 || v.Entries() != 2 || v.Depth != 1) {
		return fmt.Errorf("it is one file, and holds %d files and %d entries", v.Files, v.Entries())
	}
	return nil
}

// Load returns the manifest of a snapshot. The error wraps fs.ErrNotExist when
// there is none, [disk.ErrDamaged] or [disk.ErrTooNew] when it cannot be used.
func (s *Store) Load(workload, sid string) (*Manifest, error) {
	dir, err := s.folder(workload, sid)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	m, _, err := readManifest(dir, workload, sid, true)
	return m, err
}

// folder opens the folder of the snapshots of a workload, one of which is sid.
func (s *Store) folder(workload, sid string) (*disk.Dir, error) {
	if !disk.ValidID(sid) {
		return nil, fmt.Errorf("%q is not the id of a snapshot", sid)
	}
	dir, err := s.snapshots.OpenIfThere(workload)
	if dir == nil && err == nil {
		err = fmt.Errorf("workload %s has no snapshots: %w", workload, fs.ErrNotExist)
	}
	return dir, err
}

// All goes through the snapshots of a workload, newest first. For one that cannot be
// read it gives an error in its place.
func (s *Store) All(workload string) iter.Seq2[*Manifest, error] {
	return newestFirst(s, workload, s.Load, func(m *Manifest) time.Time { return m.Created })
}

func newestFirst[T any](s *Store, workload string, load func(workload, sid string) (*T, error), created func(*T) time.Time) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		names, err := s.SIDs(workload)
		if err != nil {
			yield(nil, err)
			return
		}
		slices.Reverse(names)
		for len(names) > 0 {
			n := 1 // how many are of one second: their names do not tell which came first
			for n < len(names) && names[n][:len(sidTime)] == names[0][:len(sidTime)] {
				n++
			}
			var read []*T
			var unreadable []error
			for _, sid := range names[:n] {
				one, err := load(workload, sid)
				switch {
				case errors.Is(err, fs.ErrNotExist): // without a manifest it does not exist
				case err != nil:
					unreadable = append(unreadable, err)
				default:
					read = append(read, one)
				}
			}
			slices.SortStableFunc(read, func(a, b *T) int { return created(b).Compare(created(a)) })
			for _, one := range read {
				if !yield(one, nil) {
					return
				}
			}
			for _, err := range unreadable {
				if !yield(nil, err) {
					return
				}
			}
			names = names[n:]
		}
	}
}

// sidTime is the form of the time that a sid begins with.
const sidTime = "20060102T150405Z"

// Workloads returns the workloads that have a folder of snapshots.
func (s *Store) Workloads() ([]string, error) {
	names, err := s.snapshots.Names()
	slices.Sort(names)
	return names, err
}

// SIDs returns the ids of the snapshots of a workload, the oldest first. What has no
// manifest is among them: a capture that was cut.
func (s *Store) SIDs(workload string) ([]string, error) {
	dir, err := s.snapshots.OpenIfThere(workload)
	if err != nil || dir == nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Names()
	names = slices.DeleteFunc(names, func(name string) bool { return !disk.ValidID(name) })
	slices.Sort(names)
	return names, err
}

// Published returns the ids of the snapshots of a workload that have a manifest, be it
// damaged, the oldest first.
func (s *Store) Published(workload string) (sids []string, err error) {
	all, err := s.SIDs(workload)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	dir, err := s.snapshots.OpenIfThere(workload)
	if err != nil || dir == nil {
		return nil, err
	}
	defer dir.Close()
	for _, sid := range all {
		snapshot, err := dir.OpenIfThere(sid)
		if err != nil {
			return nil, err
		}
		if snapshot == nil { // deleted meanwhile
			continue
		}
		there, err := snapshot.Exists(manifestFile)
		snapshot.Close()
		if err != nil {
			return nil, err
		}
		if there {
			sids = append(sids, sid)
		}
	}
	return sids, nil
}
