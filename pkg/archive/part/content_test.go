package part_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/part"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// read returns the type and the content of one name, by Found.Read.
func (s *stream) read(t *testing.T, index part.Index, name string) (e *archive.Entry, data []byte, err error) {
	t.Helper()
	choice, err := part.Choose([]string{name})
	must(t, err)
	found, err := choice.Find(index, len(s.members))
	if err != nil {
		return nil, nil, err
	}
	clear(s.opened)
	defer func() {
		for _, m := range found.Members(s.members) {
			delete(s.opened, m.ID)
		}
		if len(s.opened) > 0 {
			t.Errorf("%q: %d members were read that are not of it", name, len(s.opened))
		}
	}()
	err = found.Read(t.Context(), s, s.members, func(got *archive.Entry, content io.Reader) (err error) {
		e = got
		data, err = io.ReadAll(content)
		return err
	})
	return e, data, err
}

// What is read of each name, in any order, is what the live directory has, and no member
// is opened for it that Found does not name.
func TestTheContentOfEachNameIsThatOfTheLiveFile(t *testing.T) {
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 7))
		live := filepath.Join(t.TempDir(), "live")
		must(t, os.Mkdir(live, 0o755))
		grow(t, r, live)
		s := capture(t, live)
		ahead := capture(t, live) // what reads ahead
		inOrder := part.NewContents(t.Context(), ahead, s.members)
		random := part.NewContents(t.Context(), ahead, s.members)
		defer inOrder.Close()
		defer random.Close()
		for i := range s.lines {
			sameAsLive(t, inOrder, &s.lines[i], live, r)
			sameAsLive(t, random, &s.lines[r.IntN(len(s.lines))], live, r)
			l := &s.lines[i]
			if l.Name == "." {
				continue
			}
			e, data, err := s.read(t, s.index(), l.Name)
			must(t, err)
			if l.Type != archive.Regular && l.Type != archive.Hardlink {
				if e.Type != l.Type {
					t.Errorf("%q is a %s, and not a %s", l.Name, e.Type, l.Type)
				}
				continue
			}
			want, err := os.ReadFile(filepath.Join(live, l.Name))
			must(t, err)
			if e.Name != l.Name || e.Type != archive.Regular || !bytes.Equal(data, want) {
				t.Errorf("%q: another content", l.Name)
			}
		}
	}
}

// sameAsLive reads a line, sometimes only in part.
func sameAsLive(t *testing.T, c *part.Contents, l *archive.Line, live string, r *rand.Rand) {
	t.Helper()
	e, content, err := c.Open(l)
	must(t, err)
	if e.Name != l.Name || e.Type != l.Type || e.Mode != l.Mode {
		t.Fatalf("%q %s is %q %s", l.Name, l.Type, e.Name, e.Type)
	}
	if l.Type != archive.Regular {
		return
	}
	want, err := os.ReadFile(filepath.Join(live, l.Name))
	must(t, err)
	if r.IntN(3) == 0 {
		want = want[:r.IntN(len(want)+1)]
		content = io.LimitReader(content, int64(len(want)))
	}
	got, err := io.ReadAll(content)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%q: %d bytes, expected %d, error %v", l.Name, len(got), len(want), err)
	}
}

// A damaged member ends the content before it, and with an error.
func TestDamageEndsTheContentBeforeIt(t *testing.T) {
	live := t.TempDir()
	noise := make([]byte, 5<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	disktest.Write(t, live, map[string]string{"a": "a", "large": string(noise)})
	s := capture(t, live)
	large := s.lines[len(s.lines)-1]
	s.stored[s.members[large.Member+3].ID][500] ^= 1
	_, data, err := s.read(t, s.index(), "large")
	if !errors.Is(err, archive.ErrRefused) || len(data) != 2<<20 || !bytes.Equal(data, noise[:2<<20]) {
		t.Errorf("%d bytes and error %v, expected 2 MiB and damage", len(data), err)
	}
	if _, data, err := s.read(t, s.index(), "a"); err != nil || string(data) != "a" {
		t.Errorf("another file: %q, %v", data, err)
	}
	if _, _, err := s.read(t, part.Scan(t.Context(), s, s.members), "large"); !errors.Is(err, archive.ErrRefused) {
		t.Errorf("by the stream itself: %v", err)
	}
}

// A hole of an exabyte is zeros, as many as somebody asks for.
func TestAHoleIsZerosToItsEnd(t *testing.T) {
	live := t.TempDir()
	path := filepath.Join(live, "hole")
	disktest.Sparse(t, path, 1<<40, 0, 1<<39)
	must(t, unix.Chmod(path, 0o600))
	s := capture(t, live)
	c := part.NewContents(t.Context(), s, s.members)
	defer c.Close()
	_, content, err := c.Open(&s.lines[1])
	must(t, err)
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	got, want := make([]byte, 1<<20), make([]byte, 1<<20)
	for range 4 {
		_, err := io.ReadFull(content, got)
		must(t, err)
		_, err = io.ReadFull(f, want)
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Fatal("other bytes")
		}
	}
}

// A line that is not of the stream is refused, wherever it points.
func TestALineThatLiesIsRefused(t *testing.T) {
	live := t.TempDir()
	for i := range 40 {
		disktest.Write(t, live, map[string]string{fmt.Sprintf("f%02d", i): counted(60_000 + i)})
	}
	s := capture(t, live)
	honest := s.lines[20]
	for what, lie := range map[string]func(l *archive.Line){
		"a member before": func(l *archive.Line) { l.Member = 0; l.Name = "f00x" }, "a member after": func(l *archive.Line) { l.Member++ },
		"no member": func(l *archive.Line) { l.Member = len(s.members) }, "a name before all": func(l *archive.Line) { l.Name = "a" },
		"a name after all": func(l *archive.Line) { l.Name = "z" }, "less than none": func(l *archive.Line) { l.Member = -1 },
	} {
		c := part.NewContents(t.Context(), s, s.members)
		l := honest
		lie(&l)
		if _, _, err := c.Open(&l); !errors.Is(err, part.ErrMismatch) {
			t.Errorf("%s: %v", what, err)
		}
		if e, _, err := c.Open(&honest); err != nil || e.Name != honest.Name {
			t.Errorf("after %s: %v", what, err)
		}
		c.Close()
	}
}
