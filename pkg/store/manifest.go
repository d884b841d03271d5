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
	Compression archive.Codec    `json:"compression,omitempty"` // absent for gzip
	Members     []archive.Member `json:"members"`
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
func (m *Manifest) Totals() (files, bytes, stored int64) {
	for i := range m.Volumes {
		v := &m.Volumes[i]
		files += v.Files
		bytes += v.Bytes
		stored += v.Stored()
	}
	return files, bytes, stored
}

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
// their fifos and devices, version 4 also their kind, and tags, version 5 also config.
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
			version = 4
		}
	}
	if m.Config != "" {
		version = 5
	}
	return version
}

// ValidTag reports whether a snapshot may have the tag: 1 to 64 letters, digits and
// characters of "._:/@+-".
func ValidTag(tag string) bool { return tagForm.MatchString(tag) }

var tagForm = regexp.MustCompile(`^[\pL\pN._:/@+-]{1,64}$`)

// validate refuses a manifest that no capture writes. A forged manifest may have
// a correct checksum.
func (m *Manifest) validate(workload, sid string) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %w", disk.ErrDamaged, fmt.Errorf(format, args...))
	}
	if m.Workload != workload || m.SID != sid {
		return bad("it is of snapshot %q of workload %q", m.SID, m.Workload)
	}
	if m.Reason != Manual && m.Reason != PreRestore {
		return bad("unknown reason %q", m.Reason)
	}
	for _, tag := range m.Tags {
		if !ValidTag(tag) {
			return bad("the tag %q", tag)
		}
	}
	if m.Config != "" && !archive.ValidMemberID(m.Config) {
		return bad("the checksum of its config %q", m.Config)
	}
	if len(m.Volumes) > maxVolumes {
		return bad("%d volumes", len(m.Volumes))
	}
	names := map[string]bool{}
	var sum int64
	for i := range m.Volumes {
		v := &m.Volumes[i]
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

func (v *Volume) validate() error {
	if len(v.Members) == 0 {
		return errors.New("it has no members")
	}
	var tar int64
	for i, m := range v.Members {
		if !archive.ValidMemberID(m.ID) {
			return fmt.Errorf("member %d has no valid id", i)
		}
		if m.Tar < 1 || m.Tar > archive.MaxMember || m.Stored < 1 || m.Stored > 2*archive.MaxMember {
			return fmt.Errorf("member %s has %d bytes, %d stored", m.ID, m.Tar, m.Stored)
		}
		tar += m.Tar // cannot overflow: 2^39 members of 2^24 bytes are no 512 MiB of JSON
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
	if !disk.ValidID(sid) {
		return nil, fmt.Errorf("%q is not the id of a snapshot", sid)
	}
	dir, err := s.snapshots.OpenIfThere(workload)
	if err != nil {
		return nil, err
	}
	if dir == nil {
		return nil, fmt.Errorf("workload %s has no snapshots: %w", workload, fs.ErrNotExist)
	}
	defer dir.Close()
	data, err := dir.ReadFile(sid+"/"+manifestFile, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", sid, damaged(err))
	}
	m := &Manifest{}
	err = disk.UnmarshalSealed(data, m, manifestFormat, manifestVersion)
	if err == nil && m.Version < m.needs() {
		err = fmt.Errorf("%w: version %d has no field for what it holds", disk.ErrDamaged, m.Version)
	}
	if err == nil {
		err = m.renamed(dir, workload)
	}
	if err == nil {
		err = m.validate(workload, sid)
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: its manifest: %w", sid, err)
	}
	for i := range m.Volumes {
		v := &m.Volumes[i]
		for j := range v.Members {
			v.Members[j].Codec = v.Compression
		}
	}
	return m, nil
}

// All goes through the snapshots of a workload, newest first. For one that cannot be
// read it gives an error in its place.
func (s *Store) All(workload string) iter.Seq2[*Manifest, error] {
	return func(yield func(*Manifest, error) bool) {
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
			for _, found := range s.load(workload, names[:n]) {
				if !yield(found.m, found.err) {
					return
				}
			}
			names = names[n:]
		}
	}
}

// sidTime is the form of the time that a sid begins with.
const sidTime = "20060102T150405Z"

type found struct {
	m   *Manifest
	err error
}

// load returns the manifests of these snapshots, newest first, and the
// unreadable ones after them.
func (s *Store) load(workload string, sids []string) []found {
	var read, unreadable []found
	for _, sid := range sids {
		m, err := s.Load(workload, sid)
		switch {
		case errors.Is(err, fs.ErrNotExist): // without a manifest it does not exist
		case err != nil:
			unreadable = append(unreadable, found{nil, err})
		default:
			read = append(read, found{m, nil})
		}
	}
	slices.SortStableFunc(read, func(a, b found) int { return b.m.Created.Compare(a.m.Created) })
	return append(read, unreadable...)
}

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
