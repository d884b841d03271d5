package archive_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/archivetest"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// noisy is the content of a member. Half of it is incompressible.
func noisy() []byte { return append(noise()[:5000], bytes.Repeat([]byte("a member\n"), 500)...) }

func TestOnlyTheOneZstdFrameOfTheMemberIsAccepted(t *testing.T) {
	tar := noisy()
	m := coded(member(tar), archive.Zstd)
	list := archivetest.ZstdMembers(tar)
	refused := 0
	for _, c := range list {
		var got []byte
		took, err := allocated(func() (err error) {
			got, err = archive.Inflate(nil, c.Data, m)
			return err
		})
		switch {
		case c.Taken && (err != nil || !bytes.Equal(got, tar)):
			t.Errorf("%s: not taken: %v", c.Name, err)
		case !c.Taken && (!errors.Is(err, archive.ErrRefused) || got != nil):
			t.Errorf("%s: %d bytes and %v", c.Name, len(got), err)
		case !c.Taken:
			refused++
		}
		if took > 4<<20 { // a decoder's own tables, when it is its first time
			t.Errorf("%s: took %d bytes of memory", c.Name, took)
		}
	}
	if refused < 40 || len(list)-refused < 7 {
		t.Errorf("only %d of %d were refused", refused, len(list))
	}
}

func TestATruncatedOrFlippedZstdFrameIsRefused(t *testing.T) {
	tar := noisy()
	m := coded(member(tar), archive.Zstd)
	good := archive.Zstd.Deflate(nil, tar)
	for at := range good {
		if got, err := archive.Inflate(nil, good[:at], m); !errors.Is(err, archive.ErrRefused) || got != nil {
			t.Fatalf("cut at byte %d of %d: %v", at, len(good), err)
		}
		damaged := bytes.Clone(good)
		damaged[at] ^= 1 << (at % 8)
		// A bit of the head says nothing of the content (RFC 8878, section
		// 3.1.1.1.1.4): what is taken must be true all the same.
		if got, err := archive.Inflate(nil, damaged, m); err == nil && !bytes.Equal(got, tar) || err != nil && !errors.Is(err, archive.ErrRefused) {
			t.Fatalf("a flipped bit in byte %d: %v", at, err)
		}
	}
}

// Inflating the largest possible member takes memory of its size once, even if the
// declared size is wrong.
func TestTheLargestZstdMemberTakesNoMoreMemoryThanItsSize(t *testing.T) {
	honest := make([]byte, archive.MaxMember)
	copy(honest, noise())
	for name, data := range map[string][]byte{
		"honest": archive.Zstd.Deflate(nil, honest),
		"a bomb": archivetest.ZstdBomb(64),
		"other":  archivetest.ZstdBomb(16),
	} {
		m := coded(member(honest), archive.Zstd)
		took, err := allocated(func() error {
			_, err := archive.Inflate(nil, data, m)
			return err
		})
		if took > archive.MaxMember+2<<20 {
			t.Errorf("%s: took %d bytes of memory", name, took)
		}
		if (err == nil) != (name == "honest") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestInflateUsesTheBufferOfItsCaller(t *testing.T) {
	for _, codec := range bothCodecs {
		tar := noisy()
		data, m := codec.Deflate(nil, tar), coded(member(tar), codec)
		buf := bytes.Repeat([]byte("x"), 1<<20)
		got, err := archive.Inflate(buf, data, m)
		if err != nil || !bytes.Equal(got, tar) || &got[0] != &buf[0] {
			t.Errorf("%s: %d bytes, in the buffer %v: %v", codec, len(got), &got[0] == &buf[0], err)
		}
		if buf[2*len(tar)] != 'x' {
			t.Errorf("%s: wrote after what the member may take", codec)
		}
		if got, err := archive.Inflate(make([]byte, 10), data, m); err != nil || !bytes.Equal(got, tar) {
			t.Errorf("%s, into a buffer that is too small: %d bytes, %v", codec, len(got), err)
		}
	}
}

func TestCodecsLeaveNoGoroutineBehind(t *testing.T) {
	stage := t.TempDir()
	before := runtime.NumGoroutine()
	for i := range 20 {
		tar := bytes.Repeat([]byte{byte(i)}, 100_000)
		m := coded(member(tar), archive.Zstd)
		_, _ = archive.Inflate(nil, archive.Zstd.Deflate(nil, tar), m)
		_, _ = archive.Inflate(nil, []byte("forged"), m)
		into := filepath.Join(stage, string(rune('a'+i)))
		disktest.Write(t, stage, map[string]string{filepath.Base(into) + "/": ""})
		// Refused with most of it unread, from a pipe that stays open.
		r, w := io.Pipe()
		defer w.Close()
		go func() { _, _ = w.Write(archivetest.PackZstd(noise())) }()
		if _, err := archive.ExtractForeign(context.Background(), r, open(t, into), archivetest.Limits()); !errors.Is(err, archive.ErrRefused) {
			t.Errorf("the archive was taken: %v", err)
		}
		r.Close()
	}
	for range 100 {
		if runtime.NumGoroutine() <= before+1 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, before there were %d", runtime.NumGoroutine(), before)
}

// foreignZstd returns variants of a .tar.zst, and whether each is an archive.
func foreignZstd(tar []byte) map[string]struct {
	data []byte
	ok   bool
} {
	type form = struct {
		data []byte
		ok   bool
	}
	pack := archivetest.PackZstd
	skipped := []byte("\x53\x2a\x4d\x18\x03\x00\x00\x00abc")
	window := func(log byte) []byte { // an empty frame that wants a window
		return []byte{0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3, 1, 0, 0}
	}
	segment := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0x40, 0, 0, 0, 0, 2, 0, 0x20} // of 1 GiB
	good := pack(tar)
	return map[string]form{
		"one frame":                         {good, true},
		"several frames":                    {append(pack(tar[:1000]), pack(tar[1000:])...), true},
		"a frame to be skipped in front":    {append(bytes.Clone(skipped), good...), true},
		"a frame to be skipped after":       {append(bytes.Clone(good), skipped...), true},
		"an empty frame after":              {append(bytes.Clone(good), window(10)...), true},
		"a frame of zeros after":            {append(bytes.Clone(good), pack(make([]byte, 512))...), true},
		"a window of 128 MiB after":         {append(bytes.Clone(good), window(27)...), true},
		"a window of 256 MiB after":         {append(bytes.Clone(good), window(28)...), false},
		"a window of 256 MiB":               {append(window(28), good...), false},
		"a window of 2 TiB":                 {append(window(41), good...), false},
		"a single segment of 1 GiB":         {append(bytes.Clone(segment), make([]byte, 1<<10)...), false},
		"cut by a byte":                     {good[:len(good)-1], false},
		"cut by half":                       {good[:len(good)/2], false},
		"a wrong checksum":                  {flipped(good, -1), false},
		"a byte after":                      {append(bytes.Clone(good), 'x'), false},
		"three bytes after":                 {append(bytes.Clone(good), "xyz"...), false},
		"half a frame after":                {append(bytes.Clone(good), good[:9]...), false},
		"a zero after":                      {append(bytes.Clone(good), 0), true},
		"zeros after":                       {append(bytes.Clone(good), make([]byte, 10240)...), true},
		"zeros and a byte after":            {append(append(bytes.Clone(good), make([]byte, 10240)...), 'x'), false},
		"zeros and a frame after":           {append(append(bytes.Clone(good), make([]byte, 10240)...), window(10)...), false},
		"gzip after":                        {append(bytes.Clone(good), packed(make([]byte, 512))...), false},
		"zstd after gzip":                   {append(packed(tar), pack(make([]byte, 512))...), false},
		"zstd inside zstd":                  {pack(good), false},
		"zstd of nothing":                   {pack(nil), false},
		"a frame to be skipped alone":       {skipped, false},
		"a frame to be skipped that is cut": {skipped[:9], false},
		"the end of an archive, 64 MiB":     {append(bytes.Clone(good), archivetest.ZstdBomb(64)...), true},
		"the end of an archive alone":       {archivetest.ZstdBomb(64), false},
		"a byte in the zeros of the end":    {pack(append(bytes.Clone(tar), 'x')), false},
	}
}

func TestAForeignArchiveMayBeZstd(t *testing.T) {
	for name, c := range foreignZstd(plain(t)) {
		stage, _, untouched := sandbox(t)
		_, err := importing(t, c.data, stage)
		if c.ok && err != nil || !c.ok && !errors.Is(err, archive.ErrRefused) {
			t.Errorf("%s: the answer is %v", name, err)
		}
		untouched()
	}
}

func TestJoinWritesAFileThatTarReads(t *testing.T) {
	source := t.TempDir()
	disktest.Rich(t, source)
	want := disktest.Tree(t, source)
	for _, stored := range bothCodecs {
		m := newMemory()
		m.codec = stored
		result, err := archive.Write(context.Background(), open(t, source), m, archive.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var own []byte
		for _, member := range result.Members {
			own = append(own, m.members[member.ID]...)
		}
		for _, to := range bothCodecs {
			var out bytes.Buffer
			if err := archive.Join(context.Background(), &out, m, result.Members, to); err != nil {
				t.Fatal(err)
			}
			if (stored == to) != bytes.Equal(out.Bytes(), own) {
				t.Errorf("%s as %s: the file is that of the members: %v", stored, to, stored != to)
			}
			if _, err := exec.LookPath("zstd"); err != nil && to == archive.Zstd {
				t.Skip("without zstd: testdata/setup.sh installs it")
			}
			unpack := exec.Command(to.String(), "-dc")
			unpack.Stdin = &out
			tar, err := unpack.Output()
			if err != nil {
				t.Fatalf("%s -dc: %v", to, err)
			}
			into := t.TempDir()
			file := filepath.Join(t.TempDir(), "tar")
			if err := os.WriteFile(file, tar, 0o600); err != nil {
				t.Fatal(err)
			}
			disktest.Run(t, "tar", "-xpf", file, "--numeric-owner", "--xattrs", "--xattrs-include=*", "--warning=no-timestamp", "-C", into)
			disktest.Same(t, stored.String()+" as "+to.String(), want, disktest.Tree(t, into))
		}
	}
}

func TestJoinWritesNoByteOfAWrongMember(t *testing.T) {
	for _, stored := range bothCodecs {
		for _, to := range bothCodecs {
			o := opener{map[string][]byte{}, nil}
			var members []archive.Member
			for i := range 40 {
				tar := bytes.Repeat([]byte{byte(i)}, 10_000+i)
				members = append(members, coded(member(tar), stored))
				o.data[members[i].ID] = stored.Deflate(nil, tar)
			}
			want := 0
			for _, m := range members[:20] {
				want += len(to.Deflate(nil, bytes.Repeat([]byte{byte(m.Tar - 10_000)}, int(m.Tar))))
			}
			o.data[members[20].ID] = append(o.data[members[20].ID], 0)
			var out bytes.Buffer
			err := archive.Join(context.Background(), &out, o, members, to)
			if !errors.Is(err, archive.ErrRefused) || !strings.Contains(err.Error(), members[20].ID) || out.Len() != want {
				t.Errorf("%s as %s: %d bytes, expected %d: %v", stored, to, out.Len(), want, err)
			}
		}
	}
}
