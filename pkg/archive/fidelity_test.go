package archive_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// memory is a store in memory.
type memory struct {
	mu      sync.Mutex
	members map[string][]byte
	codec   archive.Codec
}

func newMemory() *memory { return &memory{members: map[string][]byte{}} }

func (m *memory) Put(tar []byte) (archive.Member, error) {
	data := m.codec.Deflate(nil, tar)
	id := archive.MemberID(tar)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.members[id] = data
	return archive.Member{ID: id, Tar: int64(len(tar)), Stored: int64(len(data)), Codec: m.codec}, nil
}

func (m *memory) has(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.members[id]
	return ok
}

func (m *memory) Open(_ context.Context, member archive.Member, buf []byte) ([]byte, error) {
	return append(buf[:0], m.members[member.ID]...), nil
}

// extractTar extracts a stream, in members of 256 KiB.
func extractTar(ctx context.Context, tar []byte, into *disk.Dir, opt archive.ExtractOptions) (archive.Stats, error) {
	m := newMemory()
	var members []archive.Member
	for piece := range slices.Chunk(tar, 256<<10) {
		member, err := m.Put(piece)
		if err != nil {
			return archive.Stats{}, err
		}
		members = append(members, member)
	}
	r := archive.NewReader(ctx, m, members)
	defer r.Close()
	return archive.Extract(ctx, r, into, opt)
}

// rest returns what a reader still has.
func rest(r *archive.Reader) ([]byte, error) {
	var tar []byte
	for {
		buf, err := r.Stretch()
		if errors.Is(err, io.EOF) {
			return tar, nil
		}
		if err != nil {
			return tar, err
		}
		tar = append(tar, buf.Bytes...)
		buf.Release()
	}
}

func open(t *testing.T, path string) *disk.Dir {
	t.Helper()
	d, err := disk.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func capture(t *testing.T, dir string, opt archive.WriteOptions) (*memory, *archive.Result) {
	t.Helper()
	m := newMemory()
	result, err := archive.Write(context.Background(), open(t, dir), m, opt)
	if err != nil {
		t.Fatal(err)
	}
	return m, result
}

func mkdir(t *testing.T, path string) string {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestACapturedTreeIsRestoredIdentically(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, dir string) {
		live, staged := mkdir(t, filepath.Join(dir, "live")), mkdir(t, filepath.Join(dir, "staged"))
		disktest.Rich(t, live)
		want := disktest.Tree(t, live)
		m, result := capture(t, live, archive.WriteOptions{})
		r := archive.NewReader(context.Background(), m, result.Members)
		defer r.Close()
		stats, err := archive.Extract(context.Background(), r, open(t, staged), archive.ExtractOptions{
			MaxEntries: result.Stats.Entries(), MaxBytes: result.Stats.Bytes, MaxDepth: result.Stats.Depth,
		})
		if err != nil {
			t.Fatal(err)
		}
		if stats != result.Stats {
			t.Errorf("extracted %+v, captured %+v", stats, result.Stats)
		}
		disktest.Same(t, "restored", want, disktest.Tree(t, staged))
		disktest.Same(t, "the live directory itself", want, disktest.Tree(t, live))
	})
}

func TestMembersInOrderAreATarballForGNUTar(t *testing.T) {
	dir := disktest.Mount(t, "ext4", 256)
	live, out := mkdir(t, filepath.Join(dir, "live")), mkdir(t, filepath.Join(dir, "out"))
	disktest.Rich(t, live)
	m, result := capture(t, live, archive.WriteOptions{})
	var cat bytes.Buffer
	for _, member := range result.Members {
		cat.Write(m.members[member.ID])
	}
	tar := exec.Command("tar", "-xzpf", "-", "--same-owner", "--numeric-owner", "--xattrs", "--xattrs-include=*",
		"--warning=no-timestamp", "-C", out) // "implausibly old", of a file from before 1970
	tar.Stdin = &cat
	if msg, err := tar.CombinedOutput(); err != nil || len(msg) > 0 {
		t.Fatalf("tar: %v: %s", err, msg)
	}
	disktest.Same(t, "unpacked by tar", disktest.Tree(t, live), disktest.Tree(t, out))
}

func TestAForeignTarballIsRestoredIdentically(t *testing.T) {
	for name, args := range map[string][]string{
		"dot":    {"--format=posix", "--xattrs", "--xattrs-include=*", "."},
		"gnu":    {"--format=gnu", "."},
		"sparse": {"--format=posix", "-S", "."},
		"plain":  nil, // names without ./ and without the root
	} {
		t.Run(name, func(t *testing.T) {
			dir := disktest.Mount(t, "ext4", 256)
			live, out := mkdir(t, filepath.Join(dir, "live")), mkdir(t, filepath.Join(dir, "out"))
			disktest.Write(t, live, map[string]string{"a": "a", "d/e/f": "f", "empty/": "", "z\nz": "z"})
			disktest.Sparse(t, filepath.Join(live, "sparse"), 4<<20, 1<<20)
			if err := os.Link(filepath.Join(live, "a"), filepath.Join(live, "d/hard")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("a", filepath.Join(live, "soft")); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "x.tar.gz")
			if args == nil {
				disktest.Run(t, "sh", "-c", "cd "+live+" && tar czf "+file+" --format=posix *")
			} else {
				disktest.Run(t, "tar", append([]string{"czf", file, "-C", live}, args...)...)
			}
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			st, err := os.Stat(live)
			if err != nil {
				t.Fatal(err)
			}
			_, err = archive.ExtractForeign(context.Background(), f, open(t, out), archive.ExtractOptions{
				MaxEntries: 100, MaxBytes: 100 << 20, MaxDepth: 10,
				Default: archive.Entry{Mode: 0o755, Mtime: archive.Timespec{Sec: st.ModTime().Unix(), Nsec: int64(st.ModTime().Nanosecond())}},
			})
			if err != nil {
				t.Fatal(err)
			}
			want, got := disktest.Tree(t, live), disktest.Tree(t, out)
			if name != "dot" { // the GNU format keeps seconds, and without -S holes are zeros
				want, got = coarse(want), coarse(got)
			}
			if name == "dot" {
				want, got = dense(want), dense(got)
			}
			disktest.Same(t, "imported", want, got)
		})
	}
}

var (
	nanoseconds = regexp.MustCompile(`(mtime=\d+)\.\d+`)
	holes       = regexp.MustCompile(` sparse=\w+`)
)

func coarse(lines []string) []string {
	return rewrite(dense(lines), nanoseconds, "$1")
}

func dense(lines []string) []string { return rewrite(lines, holes, "") }

func rewrite(lines []string, what *regexp.Regexp, with string) []string {
	out := make([]string, len(lines))
	for i, line := range lines {
		out[i] = what.ReplaceAllString(line, with)
	}
	return out
}
