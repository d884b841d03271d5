package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive/archivetest"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// forgery is a forged store, or a damaged one, and what a restore says to it.
type forgery struct {
	name  string
	exit  int
	code  string // error.code
	forge func(h *host) *forged
}

const hostile = "\x1b]0;evil\x07\x1b[2J\u009b1m\u202e"

// honest is an archive of all kinds and the counts that are true of it.
func honest(h *host, changes ...func(*forged)) *forged {
	h.Helper()
	return h.forge(archivetest.EveryKind(), append([]func(*forged){set(map[string]any{
		"files": 3, "dirs": 2, "symlinks": 1, "hardlinks": 1, "bytes": 65536 + 1 + 1600, "data_bytes": 1024 + 1 + 1600, "depth": 2,
	})}, changes...)...)
}

// changed is the honest snapshot with a change.
func changed(change func(*forged)) func(*host) *forged {
	return func(h *host) *forged { return honest(h, change) }
}

// stored is the honest snapshot with other bytes under the name of a member.
func stored(change func(good []byte) []byte) func(*host) *forged {
	return func(h *host) *forged {
		f := honest(h)
		good, err := os.ReadFile(f.path(h, 1))
		if err == nil {
			err = os.WriteFile(f.path(h, 1), change(good), 0o600)
		}
		if err != nil {
			h.Fatal(err)
		}
		return f
	}
}

// instead is the honest snapshot with something else than a file at the name of
// a member, or at a part of the way to it.
func instead(what func(h *host, f *forged) string, make func(h *host, path string) error) func(*host) *forged {
	return func(h *host) *forged {
		f := honest(h)
		path := what(h, f)
		if err := os.Rename(path, filepath.Join(h.dir, "store/was")); err != nil {
			h.Fatal(err)
		}
		if err := make(h, path); err != nil {
			h.Fatal(err)
		}
		return f
	}
}

func aMember(h *host, f *forged) string  { return f.path(h, 1) }
func aShard(h *host, f *forged) string   { return filepath.Dir(f.path(h, 1)) }
func manifest(h *host, f *forged) string { return filepath.Join(h.dir, f.folder(), "manifest.json") }
func folder(h *host, f *forged) string   { return filepath.Join(h.dir, f.folder()) }

func mkdir(_ *host, path string) error   { return os.Mkdir(path, 0o700) }
func fifo(_ *host, path string) error    { return unix.Mkfifo(path, 0o600) }
func symlink(h *host, path string) error { return os.Symlink(filepath.Join(h.dir, "store/was"), path) }
func zero(_ *host, path string) error {
	return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5)))
}

func hole(size int64) func(*host, string) error {
	return func(_ *host, path string) error {
		f, err := os.Create(path)
		if err == nil {
			err = f.Truncate(size)
		}
		return err
	}
}

// flagged is a gzip member with a field in its head, set by flag.
func flagged(flag byte, field []byte) func([]byte) []byte {
	return func(good []byte) []byte {
		head := bytes.Clone(good[:10])
		head[3] = flag
		return slices.Concat(head, field, good[10:])
	}
}

func flip(at int) func([]byte) []byte {
	return func(good []byte) []byte {
		b := bytes.Clone(good)
		b[(at+len(b))%len(b)] ^= 1
		return b
	}
}

// zeros is a gzip member of that many MiB of zeros.
func zeros(mib int) []byte {
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	for range mib {
		_, _ = zw.Write(make([]byte, 1<<20)) // into memory
	}
	_ = zw.Close()
	return out.Bytes()
}

var bomb = sync.OnceValue(func() []byte { return zeros(256) })

var forgedMembers = []forgery{
	{"no gzip", 3, "snapshot_damaged", stored(func([]byte) []byte { return []byte(strings.Repeat(hostile, 100)) })},
	{"a byte", 3, "snapshot_damaged", stored(func([]byte) []byte { return []byte{0x1f} })},
	{"nothing", 3, "members_missing", stored(func([]byte) []byte { return nil })},
	{"cut by a byte", 3, "snapshot_damaged", stored(func(good []byte) []byte { return good[:len(good)-1] })},
	{"cut by half", 3, "snapshot_damaged", stored(func(good []byte) []byte { return good[:len(good)/2] })},
	{"a byte behind it", 3, "snapshot_damaged", stored(func(good []byte) []byte { return append(good, 0) })},
	{"an empty gzip member behind it", 3, "snapshot_damaged", stored(func(good []byte) []byte { return append(good, pack(nil)...) })},
	{"itself behind it", 3, "snapshot_damaged", stored(func(good []byte) []byte { return append(good, good...) })},
	{"an empty gzip member before it", 3, "snapshot_damaged", stored(func(good []byte) []byte { return append(pack(nil), good...) })},
	{"a wrong CRC", 3, "snapshot_damaged", stored(flip(-8))},
	{"a wrong ISIZE", 3, "snapshot_damaged", stored(flip(-1))},
	{"a flipped bit", 3, "snapshot_damaged", stored(flip(30))},
	{"other bytes of the same length", 3, "snapshot_damaged", stored(func([]byte) []byte { return pack(make([]byte, pieces)) })},
	{"fewer bytes", 3, "snapshot_damaged", stored(func([]byte) []byte { return pack(make([]byte, pieces-1)) })},
	{"another method than deflate", 3, "snapshot_damaged", stored(flip(2))},
	{"a name in the head that never ends", 3, "snapshot_damaged", stored(func([]byte) []byte {
		return append([]byte{0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3}, bytes.Repeat([]byte("n"), 15<<20)...)
	})},
	{"an extra field that is cut", 3, "snapshot_damaged", stored(func([]byte) []byte { return []byte{0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 3, 0xff, 0xff} })},
	{"a wrong checksum of the head", 3, "snapshot_damaged", stored(flagged(2, []byte{0, 0}))},
	{"a bomb of 256 MiB", 3, "snapshot_damaged", stored(func([]byte) []byte { return bomb() })},
	{"a member of 17 MiB", 3, "snapshot_damaged", instead(aMember, hole(17<<20))},
	{"a member of 1 TiB", 3, "snapshot_damaged", instead(aMember, hole(1<<40))},
	{"a member that is missing", 3, "members_missing", instead(aMember, func(*host, string) error { return nil })},
	{"a directory for a member", 3, "snapshot_damaged", instead(aMember, mkdir)},
	{"a fifo for a member", 3, "snapshot_damaged", instead(aMember, fifo)},
	{"a symlink to the member", 3, "snapshot_damaged", instead(aMember, symlink)},
	{"/dev/zero for a member", 3, "snapshot_damaged", instead(aMember, zero)},
	{"a symlink to the folder of members", 3, "snapshot_damaged", instead(aShard, symlink)},
	{"a fifo for the folder of members", 3, "snapshot_damaged", instead(aShard, fifo)},
	{"a folder of members that is missing", 3, "members_missing", instead(aShard, func(*host, string) error { return nil })},
	// What a head may hold changes nothing of what the member is.
	{"an extra field", 0, "", stored(flagged(4, append(binary.LittleEndian.AppendUint16(nil, 60000), make([]byte, 60000)...)))},
	{"a name and a comment in the head", 0, "", stored(flagged(8|16, []byte("../../evil"+hostile[:4]+"\x00comment\x00")))},
}

// many repeats the manifest's last member.
func many(n int) func(*forged) {
	return func(f *forged) { f.members = append(f.members, slices.Repeat(f.members[len(f.members)-1:], n)...) }
}

func count(field string, n any) func(*host) *forged {
	return changed(set(map[string]any{field: n}))
}

func text(old, new string) func(*host) *forged { return changed(replaced(old, new)) }

var forgedManifests = []forgery{
	{"another workload", 3, "snapshot_damaged", text(`"workload": "files"`, `"workload": "strict"`)},
	{"another sid", 3, "snapshot_damaged", text(`"sid": "2026`, `"sid": "2025`)},
	{"a sid that leads out", 3, "snapshot_damaged", text(`"sid": "2026`, `"sid": "../2026`)},
	{"an unknown field", 3, "snapshot_damaged", text(`"note":`, `"exec": "evil", "note":`)},
	{"an unknown field that the terminal obeys", 3, "snapshot_damaged", text(`"note":`, `"evil\u001b[2J\u009b": 1, "note":`)},
	{"a newer version", 3, "snapshot_too_new", text(`"version": 1`, `"version": 99`)},
	{"version 2 that has nothing of it", 0, "", text(`"version": 1`, `"version": 2`)},
	{"zstd that is none", 3, "members_missing", changed(zstdInName)},
	{"zstd in version 1", 3, "snapshot_damaged", changed(func(f *forged) { zstdInName(f); f.doc["version"] = 1 })},
	{"an unknown compression", 3, "snapshot_damaged", changed(func(f *forged) { zstdInName(f); f.volume["compression"] = hostile })},
	{"a compression that leads out", 3, "snapshot_damaged", changed(func(f *forged) { zstdInName(f); f.volume["compression"] = "/../../gzip" })},
	{"a number for the compression", 3, "snapshot_damaged", changed(func(f *forged) { zstdInName(f); f.volume["compression"] = 1 })},
	{"version 0", 3, "snapshot_damaged", text(`"version": 1`, `"version": 0`)},
	{"version -1", 3, "snapshot_damaged", text(`"version": 1`, `"version": -1`)},
	{"version 1e400", 3, "snapshot_damaged", text(`"version": 1`, `"version": 1e400`)},
	{"another format", 3, "snapshot_damaged", text(`"snap-manifest"`, `"snap-tx-begin"`)},
	{"no checksum", 3, "snapshot_damaged", text(`"checksum"`, `"checksums"`)},
	{"a checksum that is wrong", 3, "snapshot_damaged", changed(func(f *forged) { f.noChecksum = true })},
	{"1e400 files", 3, "snapshot_damaged", text(`"files": 3`, `"files": 1e400`)},
	{"2^63 files", 3, "snapshot_damaged", text(`"files": 3`, `"files": 9223372036854775808`)},
	{"half a file", 3, "snapshot_damaged", text(`"files": 3`, `"files": 3.5`)},
	{"-1 files", 3, "snapshot_damaged", count("files", -1)},
	{"-1 bytes", 3, "snapshot_damaged", count("bytes", -1)},
	{"2^62 files", 3, "snapshot_damaged", count("files", int64(1)<<62)},
	{"one file more than there is", 3, "snapshot_damaged", count("files", 4)},
	{"one file fewer", 3, "snapshot_damaged", count("files", 2)},
	{"one directory more", 3, "snapshot_damaged", count("dirs", 3)},
	{"one byte more", 3, "snapshot_damaged", count("bytes", 65536+1+1600+1)},
	{"one byte fewer", 3, "snapshot_damaged", count("bytes", 65536+1+1600-1)},
	{"no data though there is some", 3, "snapshot_damaged", count("data_bytes", 0)},
	{"deeper than it is", 3, "snapshot_damaged", count("depth", 3)},
	{"less deep than it is", 3, "snapshot_damaged", count("depth", 1)},
	{"a depth of a million", 3, "snapshot_damaged", count("depth", 1000000)},
	{"a text for a number", 3, "snapshot_damaged", count("files", "3")},
	{"a volume of another name", 3, "volume_unresolved", count("name", "other")},
	{"a volume whose name the terminal obeys", 3, "volume_unresolved", count("name", hostile)},
	{"a volume whose name leads out", 3, "volume_unresolved", count("name", "../../outside")},
	{"a volume without a name", 3, "snapshot_damaged", count("name", "")},
	{"a volume of another scope", 3, "volume_unresolved", count("scope", "stage")},
	{"a source that points elsewhere", 3, "volume_unresolved", count("source", "/etc")},
	{"a source that the terminal obeys", 3, "volume_unresolved", count("source", hostile)},
	{"the same volume twice", 3, "snapshot_damaged", changed(func(f *forged) { f.doc["volumes"] = []any{f.volume, f.volume} })},
	{"a second volume that is none of the config", 3, "volume_unresolved", changed(func(f *forged) { second(f, "name", "evil") })},
	{"a second volume with the first one's source", 3, "volume_unresolved", changed(func(f *forged) { second(f, "name", "files2") })},
	{"a volume less than the config has", 3, "volume_missing", changed(func(f *forged) { f.workload, f.doc["workload"] = "two", "two" })},
	{"no volumes", 3, "volume_missing", changed(func(f *forged) { f.doc["volumes"] = []any{} })},
	{"null for volumes", 3, "volume_missing", changed(func(f *forged) { f.doc["volumes"] = nil })},
	{"a thousand and one volumes", 3, "snapshot_damaged", changed(func(f *forged) {
		list := []any{}
		for i := range 1001 {
			list = append(list, map[string]any{"name": fmt.Sprint(i), "dirs": 1, "members": f.members})
		}
		f.doc["volumes"] = list
	})},
	{"no members", 3, "snapshot_damaged", changed(func(f *forged) { f.members = nil })},
	{"members in another order", 3, "snapshot_damaged", changed(func(f *forged) { slices.Reverse(f.members) })},
	{"the first member twice", 3, "snapshot_damaged", changed(func(f *forged) { f.members = append(f.members[:1:1], f.members...) })},
	{"the last member twice", 3, "snapshot_damaged", changed(many(1))},
	{"the last member 200,000 times", 3, "snapshot_damaged", changed(many(200_000))},
	{"the last member left out", 3, "snapshot_damaged", changed(func(f *forged) { f.members = f.members[:len(f.members)-1] })},
	{"a member that leads out", 3, "snapshot_damaged", changed(func(f *forged) { f.members[0]["id"] = "../../../../outside/passwd" })},
	{"a member in capitals", 3, "snapshot_damaged", changed(func(f *forged) { f.members[0]["id"] = strings.Repeat("A", 64) })},
	{"a member one byte shorter than it is", 3, "snapshot_damaged", changed(func(f *forged) { f.members[1]["tar"] = pieces - 1 })},
	{"a member one byte longer than it is", 3, "snapshot_damaged", changed(func(f *forged) { f.members[1]["tar"] = pieces + 1 })},
	{"a member of -1 bytes", 3, "snapshot_damaged", changed(func(f *forged) { f.members[1]["tar"] = -1 })},
	{"a member over the cap", 3, "snapshot_damaged", changed(func(f *forged) { f.members[1]["tar"] = 16<<20 + 1 })},
	{"arrays a million deep", 3, "snapshot_damaged", text(`"note":`, `"deep": `+strings.Repeat("[", 1<<20)+strings.Repeat("]", 1<<20)+`, "note":`)},
	{"objects a million deep that never end", 3, "snapshot_damaged", text(`"note":`, strings.Repeat(`"deep": {`, 1<<20)+`"note":`)},
	{"a document behind the document", 3, "snapshot_damaged", changed(func(f *forged) { f.edit = func(b []byte) []byte { return append(b, "\n{}"...) } })},
	{"a byte order mark", 3, "snapshot_damaged", changed(func(f *forged) { f.edit = func(b []byte) []byte { return append([]byte("\ufeff"), b...) } })},
	{"NUL in the text", 3, "snapshot_damaged", text(`"note":`, "\x00\"note\":")},
	{"no document", 3, "snapshot_damaged", changed(func(f *forged) { f.edit = func([]byte) []byte { return nil } })},
	{"a created that is no time", 3, "snapshot_damaged", text("2026-01-02T03:04:05Z", "now")},
	{"a manifest of 513 MiB", 3, "snapshot_damaged", instead(manifest, hole(513<<20))},
	{"a directory for the manifest", 3, "snapshot_damaged", instead(manifest, mkdir)},
	{"a fifo for the manifest", 3, "snapshot_damaged", instead(manifest, fifo)},
	{"a symlink to the manifest", 3, "snapshot_damaged", instead(manifest, symlink)},
	{"/dev/zero for the manifest", 3, "snapshot_damaged", instead(manifest, zero)},
	{"a manifest that is missing", 3, "snapshot_not_found", instead(manifest, func(*host, string) error { return nil })},
	{"a symlink to the snapshot", 3, "snapshot_damaged", instead(folder, symlink)},
	{"a fifo for the snapshot", 3, "snapshot_damaged", instead(folder, fifo)},
	// The config says where data goes, and the index says nothing.
	{"a target that points elsewhere", 0, "", count("target", "/etc")},
	{"a note and an image that the terminal obeys", 0, "", changed(func(f *forged) {
		f.doc["note"], f.doc["snap"], f.doc["quiesce"] = hostile, hostile, hostile
		f.doc["images"] = []any{map[string]any{"image": hostile, "image_id": hostile}}
	})},
	{"volumes twice", 3, "snapshot_damaged", text(`"volumes": [`, `"volumes": [{"name": "evil", "source": "/etc", "members": [{"id": "evil"}, {"id": "evil"}]}], "volumes": [`)},
	{"volumes in other letters", 3, "snapshot_damaged", text(`"volumes": [`, `"Volumes": [`)},
	{"a volume's name twice", 3, "snapshot_damaged", text(`"name": "files"`, `"name": "evil", "name": "files"`)},
	{"an index that is none", 0, "", changed(func(f *forged) { f.index = []byte(hostile) })},
	{"an index of other files", 0, "", changed(func(f *forged) {
		f.index = pack([]byte("snap-index\t1\tx\nvolume\t\"files\"\tx\n\"../../etc/passwd\"\t0\t-1\t7777\t0\t0\t0.0\t0.0\t1\t-1\n"))
	})},
	{"a bomb for an index", 0, "", changed(func(f *forged) { f.index = bomb() })},
}

// second adds a volume that is the first but for one field.
func second(f *forged, field string, value any) {
	v := map[string]any{field: value}
	for k, old := range f.volume {
		if k != field {
			v[k] = old
		}
	}
	v["members"] = f.members
	f.doc["volumes"] = []any{f.volume, v}
}

// The content of a store is trusted as little as an archive. If a restore accepts
// it, it restores the honest tree and nothing else.
func TestARestoreRefusesEachForgedStoreOrPutsBackWhatIsTrue(t *testing.T) {
	list := slices.Concat(forgedMembers, forgedManifests, forgedZstd())
	lanes(t, len(list), func(h *host, i int) {
		c := list[i]
		h.named(c.name, func(h *host) {
			h.emptyStore()
			f := c.forge(h)
			o := h.restore(f, "--json")
			if o.exit != c.exit || o.code() != c.code {
				h.Errorf("exit code %d, %q, expected %d and %q: %s", o.exit, o.code(), c.exit, c.code, o.stdout)
			}
			h.modest(o, c.memory())
			if c.exit == 0 {
				h.everyKind()
				h.remember()
			}
			// The same on the other channel, and what else reads a manifest.
			others := [][]string{{"restore", f.workload, f.sid, "--confirm", f.sid, "--plan"}, {"list"}, {"show", f.workload, f.sid}, {"status"}, {"list", "--json"}}
			h.modest(h.run(others[i%len(others)]...), c.memory())
			h.untouched()
		})
	})
}

// memory is how many MiB a run may take. A manifest takes several times its length,
// for what is read, parsed and kept.
func (f forgery) memory() int64 {
	if f.name == "the last member 200,000 times" { // 26 MiB
		return 200
	}
	return 96
}

// everyKind fails the test unless the honest tree is live and everything else is
// unchanged.
func (h *host) everyKind() {
	h.Helper()
	h.outsideUntouched()
	var names []string
	for _, line := range disktest.Tree(h.T, h.liveDir()) {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, strings.Trim(name, `"`))
	}
	if want := []string{".", "a", "d", "d/" + strings.Repeat("n", 200), "hard", "soft", "sparse"}; !slices.Equal(names, want) {
		h.Errorf("live are %q, expected %q", names, want)
	}
	if data, err := os.ReadFile(h.liveDir() + "/hard"); string(data) != "1" {
		h.Errorf("a hardlink holds %q: %v", data, err)
	}
}
