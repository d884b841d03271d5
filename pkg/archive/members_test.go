package archive_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/archivetest"
)

// untar unpacks a .tar.gz with GNU tar.
func untar(t *testing.T, gz io.Reader, into string) {
	t.Helper()
	tar := exec.Command("tar", "-xzpf", "-", "--same-owner", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", into)
	tar.Stdin = gz
	if msg, err := tar.CombinedOutput(); err != nil || len(msg) > 0 {
		t.Fatalf("tar: %v: %s", err, msg)
	}
}

func member(tar []byte) archive.Member {
	return archive.Member{ID: archive.MemberID(tar), Tar: int64(len(tar)), Stored: 1}
}

var bothCodecs = []archive.Codec{archive.Gzip, archive.Zstd}

// coded returns m with another codec.
func coded(m archive.Member, codec archive.Codec) archive.Member {
	m.Codec = codec
	return m
}

func TestInflateAcceptsOnlyTheNamedMember(t *testing.T) {
	for _, codec := range bothCodecs {
		t.Run(codec.String(), func(t *testing.T) { exactly(t, codec) })
	}
}

func exactly(t *testing.T, codec archive.Codec) {
	tar := []byte(strings.Repeat("some content of a member\n", 1000))
	good, m := codec.Deflate(nil, tar), coded(member(tar), codec)
	other := member([]byte("other"))
	no := "not " + codec.String()
	flip := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 1
		return b
	}
	for _, c := range []struct {
		name string
		data []byte
		m    archive.Member
		want string // what the refusal says; "" for a member that is taken
	}{
		{"the member itself", good, m, ""},
		{"nothing", nil, m, no},
		{"neither", []byte(strings.Repeat("neither at all", 100)), m, no},
		{"the same of the other codec", (1 - codec).Deflate(nil, tar), m, no},
		{"cut in the head", good[:5], m, no},
		{"cut in the data", good[:len(good)/2], m, ""},
		{"cut in the checksum", good[:len(good)-3], m, ""},
		{"a byte after it", append(bytes.Clone(good), 0), m, "follow"},
		{"a second member after it", append(bytes.Clone(good), good...), m, "follow"},
		{"two members in one", append(codec.Deflate(nil, tar[:100]), codec.Deflate(nil, tar[100:])...), m, ""},
		{"a flipped bit in the data", flip(len(good) / 2), m, ""},
		{"a flipped bit in the checksum", flip(len(good) - 6), m, ""},
		{"a flipped bit in the length", flip(len(good) - 2), m, ""},
		{"another member's data", codec.Deflate(nil, []byte("other")), m, "declared"},
		{"the right length, other content", codec.Deflate(nil, bytes.ToUpper(tar)), m, "checksum"},
		{"a declared size one too small", good, archive.Member{ID: m.ID, Tar: m.Tar - 1, Codec: codec}, "past its declared"},
		{"a declared size one too large", good, archive.Member{ID: m.ID, Tar: m.Tar + 1, Codec: codec}, "declared"},
		{"a declared size of 0", good, archive.Member{ID: m.ID, Codec: codec}, "bytes of tar"},
		{"a negative declared size", good, archive.Member{ID: m.ID, Tar: -1, Codec: codec}, "bytes of tar"},
		{"a declared size over the cap", good, archive.Member{ID: m.ID, Tar: archive.MaxMember + 1, Codec: codec}, "bytes of tar"},
		{"another name", good, archive.Member{ID: other.ID, Tar: m.Tar, Codec: codec}, "checksum"},
		{"a name in capitals", good, archive.Member{ID: strings.ToUpper(m.ID), Tar: m.Tar, Codec: codec}, "checksum"},
		{"no name", good, archive.Member{Tar: m.Tar, Codec: codec}, "checksum"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := archive.Inflate(nil, c.data, c.m)
			if c.name == "the member itself" {
				if err != nil || !bytes.Equal(got, tar) {
					t.Errorf("the member is not taken: %v", err)
				}
				return
			}
			if !errors.Is(err, archive.ErrRefused) || !strings.Contains(err.Error(), c.want) || got != nil {
				t.Errorf("%d bytes and %v; expected none and a refusal that says %q", len(got), err, c.want)
			}
		})
	}
}

// A megabyte of zeros is a kilobyte in either codec.
func TestABombInflatesNoFurtherThanDeclared(t *testing.T) {
	var gz bytes.Buffer
	zw, _ := gzip.NewWriterLevel(&gz, gzip.BestSpeed)
	zeros := make([]byte, 1<<20)
	for range 32 {
		if _, err := zw.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	zw.Close()
	for codec, bomb := range map[archive.Codec][]byte{archive.Gzip: gz.Bytes(), archive.Zstd: archivetest.ZstdBomb(32)} {
		m := archive.Member{ID: archive.MemberID(zeros), Tar: 1 << 20, Codec: codec}
		took, err := allocated(func() error {
			_, err := archive.Inflate(nil, bomb, m)
			return err
		})
		if !errors.Is(err, archive.ErrRefused) {
			t.Errorf("a bomb of %s: %v", codec, err)
		}
		if took > 4<<20 {
			t.Errorf("inflating 1 MiB of a bomb of %s took %d bytes of memory", codec, took)
		}
	}
}

// allocated returns how many bytes f allocated, in all.
func allocated(f func() error) (uint64, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, err
}

func TestDeflateIsDeterministicAndStoresIncompressibleData(t *testing.T) {
	for _, codec := range bothCodecs {
		for _, in := range inputs {
			tar := in.make()
			a, b := codec.Deflate(nil, tar), codec.Deflate([]byte("in front"), tar)
			if !bytes.Equal(a, bytes.TrimPrefix(b, []byte("in front"))) {
				t.Errorf("%s, %s: the same bytes gave two members", codec, in.name)
			}
			if in.name == "noise" && len(a) > len(tar)+len(tar)/1000 || in.name != "noise" && len(a) > len(tar)/2 {
				t.Errorf("%s, %s: %d bytes became %d", codec, in.name, len(tar), len(a))
			}
		}
	}
}

// opener returns members from memory, and fails on request.
type opener struct {
	data map[string][]byte
	err  map[string]error
}

func (o opener) Open(_ context.Context, m archive.Member, buf []byte) ([]byte, error) {
	return append(buf[:0], o.data[m.ID]...), o.err[m.ID]
}

func TestTheReaderReturnsNoByteOfAWrongMember(t *testing.T) {
	var members []archive.Member
	o := opener{map[string][]byte{}, map[string]error{}}
	var want []byte
	for i := range 40 {
		tar := bytes.Repeat([]byte{byte(i)}, 10_000+i)
		m := member(tar)
		members, o.data[m.ID] = append(members, m), archive.Gzip.Deflate(nil, tar)
		if i < 20 {
			want = append(want, tar...)
		}
	}
	bad := members[20].ID
	whole := o.data[bad]
	eio := errors.New("input/output error")
	for name, damage := range map[string]func(){
		"damaged at its last byte": func() { o.data[bad] = append(bytes.Clone(whole[:len(whole)-1]), whole[len(whole)-1]^1) },
		"another's content":        func() { o.data[bad] = o.data[members[21].ID] },
		"cut":                      func() { o.data[bad] = whole[:len(whole)-9] },
		"unreadable":               func() { o.err[bad] = eio },
	} {
		t.Run(name, func(t *testing.T) {
			damage()
			r := archive.NewReader(context.Background(), o, members)
			got, err := rest(r)
			buf, again := r.Stretch()
			r.Close() // nothing is opened any more: what follows is no race
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes were given out; the %d before the bad member were expected", len(got), len(want))
			}
			if errors.Is(err, archive.ErrRefused) == (name == "unreadable") || err == nil {
				t.Errorf("the error is %v", err)
			}
			if buf != nil || again == nil || errors.Is(again, io.EOF) {
				t.Errorf("after the error: %v, %v", buf, again)
			}
			o.data[bad] = whole
			delete(o.err, bad)
		})
	}
}

func TestACancelledReaderReturnsAnErrorAndNotEOF(t *testing.T) {
	var members []archive.Member
	o := opener{map[string][]byte{}, nil}
	for i := range 200 {
		tar := bytes.Repeat([]byte{byte(i)}, 1000+i)
		members = append(members, member(tar))
		o.data[members[i].ID] = archive.Gzip.Deflate(nil, tar)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := archive.NewReader(ctx, o, members)
	defer r.Close()
	buf, err := r.Stretch()
	if err != nil {
		t.Fatal(err)
	}
	buf.Release()
	cancel()
	if _, err := rest(r); !errors.Is(err, context.Canceled) {
		t.Errorf("the stream of a cancelled reader ended with %v", err)
	}
}
