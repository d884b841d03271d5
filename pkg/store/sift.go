package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strconv"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
)

// volumeSum computes the hash of a whole volume: the SHA-256 of the ids of its members,
// in order, each followed by a newline. The ids are the SHA-256 of what is in them, so
// this hash stands for the whole stream and how it is cut, and a capture knows it without
// reading what it uses again.
type volumeSum struct {
	hash.Hash
	line []byte
}

func newVolumeSum() *volumeSum { return &volumeSum{Hash: sha256.New()} }

func (s *volumeSum) add(id string) {
	s.line = append(append(s.line[:0], id...), '\n')
	s.Write(s.line)
}

func (s *volumeSum) String() string { return hex.EncodeToString(s.Sum(nil)) }

func (v *Volume) sum() string {
	s := newVolumeSum()
	for _, m := range v.Members {
		s.add(m.ID)
	}
	return s.String()
}

// sieve reads a manifest. Almost all of it is members, which it takes out line by line;
// the rest is decoded as every sealed document is.
type sieve struct {
	keep    bool // keep the members
	text    *bufio.Reader
	rest    []byte
	list    []VolumeSummary // what the members of each volume come to
	sums    []string        // the hash of each volume, as its members are
	members [][]archive.Member
}

// errOdd means that members are not written as snap writes them.
var errOdd = errors.New("it is written in another way")

// readManifest reads and checks a manifest, and makes its summary. With keep the manifest
// has its members; else no more than one is in memory at a time.
func readManifest(dir *disk.Dir, workload, sid string, keep bool) (*Manifest, *Summary, error) {
	s := &sieve{keep: keep}
	m, size, err := s.read(dir, sid+"/"+manifestFile)
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot %s: its manifest: %w", sid, damaged(err))
	}
	if m.Version < m.needs() {
		err = fmt.Errorf("%w: version %d has no field for what it holds", disk.ErrDamaged, m.Version)
	}
	for i := range m.Volumes {
		v := &m.Volumes[i]
		switch {
		case v.Sum == "" && m.Version >= sumVersion:
			err = fmt.Errorf("%w: volume %q has no sum", disk.ErrDamaged, v.Name)
		case v.Sum != "" && v.Sum != s.sums[i]:
			err = fmt.Errorf("%w: volume %q was captured with other members, or with these in another order", disk.ErrDamaged, v.Name)
		}
		for j := range v.Members {
			v.Members[j].Codec = v.Compression
		}
	}
	for what, sum := range map[string]string{"config": m.Config, "index": m.Index} {
		if err == nil && sum != "" && !archive.ValidMemberID(sum) {
			err = fmt.Errorf("%w: the checksum of its %s is %q", disk.ErrDamaged, what, sum)
		}
	}
	if err == nil {
		err = renamed(dir, &m.Workload, workload)
	}
	sum := m.summary(s.list)
	sum.Manifest.Bytes, sum.whole = size, true
	if err == nil {
		err = sum.validate(workload, sid)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot %s: its manifest: %w", sid, err)
	}
	return m, sum, nil
}

func (s *sieve) read(dir *disk.Dir, rel string) (*Manifest, int64, error) {
	f, err := dir.OpenFile(rel)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	r, err := disk.NewSealedReader(f)
	if err == nil && st.Size() <= maxManifest {
		m, err := s.sift(r)
		if bad := r.Verify(); bad != nil {
			return nil, 0, bad
		}
		if err == nil {
			return m, st.Size(), nil
		}
	}
	// What follows takes any JSON, a few times its size in memory, and says what is wrong.
	data, err := dir.ReadFile(rel, maxManifest)
	if err != nil {
		return nil, 0, err
	}
	m := &Manifest{}
	if err := disk.UnmarshalSealed(data, m, manifestFormat, manifestVersion); err != nil {
		return nil, 0, err
	}
	return m, int64(len(data)), s.count(m)
}

// count does for a manifest that is in memory what sift does.
func (s *sieve) count(m *Manifest) error {
	s.list, s.sums = nil, nil
	for i := range m.Volumes {
		v := &m.Volumes[i]
		if at := slices.IndexFunc(v.Members, func(m archive.Member) bool { return !validMember(m) }); at >= 0 {
			return fmt.Errorf("%w: volume %q: its member %d is %+v", disk.ErrDamaged, v.Name, at, v.Members[at])
		}
		s.list = append(s.list, VolumeSummary{Members: len(v.Members), Tar: v.Tar(), Stored: v.Stored()})
		s.sums = append(s.sums, v.sum())
		if !s.keep {
			v.Members = nil
		}
	}
	return nil
}

// sift reads a manifest that is written as docs/formats.md says, one key a line. An error
// says nothing but that it is not. The caller verifies the checksum.
//
// In place of the members it leaves their number among the lists, which shows whether the
// decoder has found them where they were. A line break in a string is not JSON, so none
// of the lines is a part of a string.
func (s *sieve) sift(r io.Reader) (*Manifest, error) {
	s.text = bufio.NewReaderSize(r, 256<<10)
	for {
		line, err := s.text.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			s.rest = append(s.rest, line...)
			break
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		if string(trim(line)) != `"members": [` {
			s.rest = append(s.rest, line...)
			continue
		}
		s.rest = fmt.Appendf(s.rest, "\"members\": [{\"tar\": %d}\n", len(s.list))
		if err := s.block(); err != nil {
			return nil, err
		}
	}
	m := &Manifest{}
	if err := disk.UnmarshalUnsealed(s.rest, m, manifestFormat, manifestVersion); err != nil {
		return nil, err
	}
	if len(m.Volumes) != len(s.list) {
		return nil, errOdd
	}
	for i := range m.Volumes {
		v := &m.Volumes[i]
		if len(v.Members) != 1 || v.Members[0] != (archive.Member{Tar: int64(i)}) {
			return nil, errOdd
		}
		v.Members = s.members[i]
	}
	return m, nil
}

// trim takes away what JSON may have around its tokens. bytes.Trim takes twice as long.
func trim(line []byte) []byte {
	for len(line) > 0 && blank(line[0]) {
		line = line[1:]
	}
	for len(line) > 0 && blank(line[len(line)-1]) {
		line = line[:len(line)-1]
	}
	return line
}

func blank(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

// line returns the next line; "" is not a line of a list.
func (s *sieve) line() []byte {
	line, err := s.text.ReadSlice('\n')
	if err != nil {
		return nil
	}
	return trim(line)
}

// block reads the members of a volume, and the end of the list.
func (s *sieve) block() error {
	var v VolumeSummary
	var list []archive.Member
	sum := newVolumeSum()
	for more := true; more; {
		var m archive.Member
		var err error
		if m, more, err = s.member(); err != nil {
			return err
		}
		v.Members++
		v.Tar += m.Tar // cannot overflow: a file of 512 MiB has no 2^39 members
		v.Stored += m.Stored
		sum.add(m.ID)
		if s.keep {
			list = append(list, m)
		}
	}
	end := s.line()
	if string(end) != "]" && string(end) != "]," {
		return errOdd
	}
	s.rest = append(append(s.rest, end...), '\n')
	s.list, s.sums, s.members = append(s.list, v), append(s.sums, sum.String()), append(s.members, list)
	return nil
}

// member reads one member, and reports whether another follows.
func (s *sieve) member() (m archive.Member, more bool, err error) {
	if string(s.line()) != "{" {
		return m, false, errOdd
	}
	for i := range 3 {
		line, comma := bytes.CutSuffix(s.line(), []byte(","))
		key, value, _ := bytes.Cut(line, []byte(": "))
		switch string(key) {
		case `"id"`:
			if len(value) == 66 && value[0] == '"' && value[65] == '"' {
				m.ID = string(value[1:65])
			}
		case `"tar"`:
			m.Tar = number(value)
		case `"stored"`:
			m.Stored = number(value)
		}
		if comma != (i < 2) {
			return m, false, errOdd
		}
	}
	end := string(s.line())
	if end != "}" && end != "}," || !validMember(m) {
		return m, false, errOdd
	}
	return m, end == "},", nil
}

// number is a number as JSON has it, 0 for anything else.
func number(text []byte) int64 {
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || text[0] < '1' || text[0] > '9' {
		return 0
	}
	return n
}
