package archive_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive"
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

func TestInflateTakesExactlyTheMemberThatWasNamed(t *testing.T) {
	tar := []byte(strings.Repeat("some content of a member\n", 1000))
	good, m := archive.Deflate(tar), member(tar)
	other := member([]byte("other"))
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
		{"nothing", nil, m, "not gzip"},
		{"no gzip", []byte(strings.Repeat("no gzip at all", 100)), m, "not gzip"},
		{"cut in the head", good[:5], m, "not gzip"},
		{"cut in the data", good[:len(good)/2], m, ""},
		{"cut in the checksum", good[:len(good)-3], m, ""},
		{"a byte behind it", append(bytes.Clone(good), 0), m, "follow"},
		{"a second member behind it", append(bytes.Clone(good), good...), m, "follow"},
		{"two members in one", append(archive.Deflate(tar[:100]), archive.Deflate(tar[100:])...), m, "declared"},
		{"a flipped bit in the data", flip(len(good) / 2), m, ""},
		{"a flipped bit in the checksum", flip(len(good) - 6), m, ""},
		{"a flipped bit in the length", flip(len(good) - 2), m, ""},
		{"another member's data", archive.Deflate([]byte("other")), m, "declared"},
		{"the right length, other content", archive.Deflate(bytes.ToUpper(tar)), m, "checksum"},
		{"a declared size one too small", good, archive.Member{ID: m.ID, Tar: m.Tar - 1}, "past its declared"},
		{"a declared size one too large", good, archive.Member{ID: m.ID, Tar: m.Tar + 1}, "declared"},
		{"a declared size of 0", good, archive.Member{ID: m.ID}, "bytes of tar"},
		{"a negative declared size", good, archive.Member{ID: m.ID, Tar: -1}, "bytes of tar"},
		{"a declared size over the cap", good, archive.Member{ID: m.ID, Tar: archive.MaxMember + 1}, "bytes of tar"},
		{"another name", good, archive.Member{ID: other.ID, Tar: m.Tar}, "checksum"},
		{"a name in capitals", good, archive.Member{ID: strings.ToUpper(m.ID), Tar: m.Tar}, "checksum"},
		{"no name", good, archive.Member{Tar: m.Tar}, "checksum"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := archive.Inflate(c.data, c.m)
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

// A megabyte of zeros is a kilobyte of gzip.
func TestABombInflatesNoFurtherThanDeclared(t *testing.T) {
	var bomb bytes.Buffer
	zw, _ := gzip.NewWriterLevel(&bomb, gzip.BestSpeed)
	zeros := make([]byte, 1<<20)
	for range 32 {
		if _, err := zw.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	zw.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := archive.Inflate(bomb.Bytes(), archive.Member{ID: archive.MemberID(zeros), Tar: 1 << 20})
	runtime.ReadMemStats(&after)
	if !errors.Is(err, archive.ErrRefused) {
		t.Errorf("a bomb: %v", err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 4<<20 {
		t.Errorf("inflating 1 MiB of a bomb took %d bytes of memory", took)
	}
}

func TestDeflateGivesTheSameBytesAndStoresWhatDoesNotCompress(t *testing.T) {
	noise := make([]byte, 1<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	a, b := archive.Deflate(noise), archive.Deflate(noise)
	if !bytes.Equal(a, b) {
		t.Error("the same bytes gave two members")
	}
	if len(a) > len(noise)+len(noise)/100 {
		t.Errorf("%d bytes that do not compress became %d", len(noise), len(a))
	}
}

// opener gives members from memory and fails on request.
type opener struct {
	data map[string][]byte
	err  map[string]error
}

func (o opener) Open(m archive.Member) ([]byte, error) { return o.data[m.ID], o.err[m.ID] }

func TestTheReaderGivesNoByteOfAMemberThatIsNotTrue(t *testing.T) {
	var members []archive.Member
	o := opener{map[string][]byte{}, map[string]error{}}
	var want []byte
	for i := range 40 {
		tar := bytes.Repeat([]byte{byte(i)}, 10_000+i)
		m := member(tar)
		members, o.data[m.ID] = append(members, m), archive.Deflate(tar)
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
			got, err := io.ReadAll(r)
			n, again := r.Read(make([]byte, 1))
			r.Close() // nothing is opened any more: what follows is no race
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes were given out; the %d before the bad member were expected", len(got), len(want))
			}
			if errors.Is(err, archive.ErrRefused) == (name == "unreadable") || err == nil {
				t.Errorf("the error is %v", err)
			}
			if n != 0 || again == nil {
				t.Errorf("after the error: %d bytes, %v", n, again)
			}
			o.data[bad] = whole
			delete(o.err, bad)
		})
	}
}

func TestAReaderThatIsCancelledDoesNotEndAsIfItWereWhole(t *testing.T) {
	var members []archive.Member
	o := opener{map[string][]byte{}, nil}
	for i := range 200 {
		tar := bytes.Repeat([]byte{byte(i)}, 1000+i)
		members = append(members, member(tar))
		o.data[members[i].ID] = archive.Deflate(tar)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := archive.NewReader(ctx, o, members)
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
		t.Errorf("the stream of a cancelled reader ended with %v", err)
	}
}
