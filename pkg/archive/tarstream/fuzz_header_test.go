package tarstream

import (
	"bytes"
	"context"
	"reflect"
	"slices"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive/member"
)

// FuzzHeader: an entry that the parser takes is one that the writer could have
// written. Encoded again and parsed again it is the same, so no header means
// one thing to the capture and another to the restore.
func FuzzHeader(f *testing.F) {
	for _, e := range []*Entry{
		{Name: Root, Type: Directory, Mode: 0o755},
		{Name: "dir/name", Type: Regular, Mode: 0o4644, UID: 1, GID: 2, Size: 3, Mtime: Timespec{1, 2}},
		{Name: "large", Type: Regular, Size: maxOctal11 + 1, UID: 1<<32 - 2, Mtime: Timespec{-1, 5}},
		{Name: "link", Type: Symlink, Link: "../target"},
		{Name: "hard", Type: Hardlink, Link: "dir/name"},
		{Name: "attrs", Type: Regular, Xattrs: []Xattr{{"user.a=%", []byte("v\x00=\n")}, {ACLAccess, nil}}},
		{Name: "sparse", Type: Regular, Size: 1 << 40, Extents: []Extent{{512, 3}, {1 << 40, 0}}},
		{Name: string(bytes.Repeat([]byte("n"), 200)), Type: Directory},
	} {
		data, err := AppendHeader(nil, e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(resummed(data))
	}
	f.Add(make([]byte, 2*Block))
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := parsed(t, resummed(data))
		if err != nil {
			return
		}
		if first.Name != Root && CheckName(first.Name) != nil {
			t.Fatalf("the name %q was taken", first.Name)
		}
		again, err := AppendHeader(nil, first)
		if err != nil {
			t.Fatalf("%+v cannot be written: %v", first, err)
		}
		second, err := parsed(t, again)
		if err != nil {
			t.Fatalf("%+v, written again, is refused: %v", first, err)
		}
		if !reflect.DeepEqual(first, second) {
			t.Errorf("read as\n%+v\nwritten and read again\n%+v", first, second)
		}
	})
}

// parsed returns the first entry of a stream.
func parsed(t *testing.T, data []byte) (*Entry, error) {
	var members []member.Member
	var from pieces
	for piece := range slices.Chunk(data, 64<<10) {
		members = append(members, member.Member{ID: member.IDOf(piece), Tar: int64(len(piece)), Stored: int64(len(from))})
		from = append(from, piece)
	}
	r := member.NewReader(t.Context(), from, members)
	defer r.Close()
	return NewParser(r, func() {}).Next()
}

// pieces are the members of a stream. Stored of a member is its index.
type pieces [][]byte

func (p pieces) Open(_ context.Context, m member.Member, buf []byte) ([]byte, error) {
	return m.Codec.Deflate(buf[:0], p[m.Stored]), nil
}

// resummed gives each header block a true checksum.
func resummed(data []byte) []byte {
	all := bytes.Clone(data)
	for b := all; len(b) >= Block; b = b[Block:] {
		if string(b[offMagic:offMagic+5]) == magic[:5] {
			copy(b[offChecksum:], octalSum(checksum(b)))
		}
	}
	return all
}

func octalSum(n int64) []byte {
	field := make([]byte, lenChecksum)
	octal(field[:lenChecksum-1], n)
	field[lenChecksum-1] = ' '
	return field
}
