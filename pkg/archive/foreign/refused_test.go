package foreign_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/archivetest"
	"github.com/tiny-forge/snap/pkg/archive/foreign"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

var record = archivetest.Record

// archiveOf is an archive with a root, what make appends, and an end.
func archiveOf(make func(f *archivetest.Forge)) []byte {
	f := &archivetest.Forge{}
	f.Root()
	make(f)
	f.End()
	return f.Bytes()
}

func filled(data []byte, rest string) []byte {
	return append(data, strings.Repeat(rest, -len(data)%10240+10240)[:-len(data)%10240+10240]...)
}

// What two programs could understand in two ways is refused, and the error says where it
// is in the stream, and the name where there is one.
func TestWhatHasTwoMeaningsIsRefusedWithItsPlace(t *testing.T) {
	one := archiveOf(func(f *archivetest.Forge) { f.File("x", "1") })
	for name, c := range map[string]struct {
		data    []byte
		want    []string
		damaged bool
	}{
		"a raw sparse map of format 2.0": {archiveOf(func(f *archivetest.Forge) {
			f.File("first", "1")
			f.Pax(record("GNU.sparse.major", "2"), record("GNU.sparse.minor", "0"), record("GNU.sparse.name", "s"), record("GNU.sparse.realsize", "512"))
			f.File("s", "1\n0\n512\n")
		}), []string{`"s": unknown sparse format 2.0`, "byte 1536"}, false},
		"format 1.1":       {sparse("1", "1"), []string{"unknown sparse format 1.1"}, false},
		"format 0.2":       {sparse("0", "2"), []string{"unknown sparse format 0.2"}, false},
		"a number of none": {sparse("x", "0"), []string{"unknown sparse format x.0"}, false},
		"half a map": {archiveOf(func(f *archivetest.Forge) {
			f.Pax(record("GNU.sparse.size", "512"), record("GNU.sparse.numblocks", "1"), record("GNU.sparse.numbytes", "1"))
			f.File("s", "1")
		}), []string{"malformed"}, false},
		"star's map":     {archiveOf(func(f *archivetest.Forge) { f.Pax(record("SCHILY.realsize", "512")); f.File("s", "1") }), []string{`"s"`, "star"}, false},
		"a time of 2^63": {archiveOf(func(f *archivetest.Forge) { f.Pax(record("mtime", "9223372036854775808")); f.File("x", "1") }), []string{`"x"`, "not a time", "byte 512"}, false},
		"a time of 2^62": {archiveOf(func(f *archivetest.Forge) { f.Pax(record("mtime", "4611686018427387904")); f.File("x", "1") }), []string{`"x"`, "cannot hold", "byte 512"}, false},
		"that of a folder": {archiveOf(func(f *archivetest.Forge) {
			f.Pax(record("mtime", "4611686018427387904"))
			f.Dir("d")
			f.File("x", "1")
		}), []string{`"d"`, "cannot hold", "byte 512"}, false},
		"that of a link": {archiveOf(func(f *archivetest.Forge) {
			f.Pax(record("mtime", "-4611686018427387904"))
			f.Soft("s", "x")
			f.File("x", "1")
		}), []string{`"s"`, "cannot hold", "byte 512"}, false},
		"one of 2^90 in a header": {archiveOf(func(f *archivetest.Forge) {
			f.Block(archivetest.Header{Name: "x", Type: '0', Time: "\x80\x04" + strings.Repeat("\x00", 10)})
		}), []string{`"x"`, "out of range"}, false},
		"a size for all":        {global("size", "1"), []string{"for all entries", "size"}, false},
		"a path for all":        {global("path", "y"), []string{"for all entries", "path"}, false},
		"a link for all":        {global("linkpath", "y"), []string{"for all entries", "linkpath"}, false},
		"a map for all":         {global("GNU.sparse.major", "1"), []string{"for all entries", "GNU.sparse.major"}, false},
		"star's size for all":   {global("SCHILY.realsize", "1"), []string{"for all entries"}, false},
		"another volume's rest": {global("GNU.volume.filename", "y"), []string{"several volumes"}, false},
		"type M":                {archiveOf(func(f *archivetest.Forge) { f.Block(archivetest.Header{Name: "x", Type: 'M'}) }), []string{`"x"`, "several volumes"}, false},
		"a wrong checksum":      {archiveOf(func(f *archivetest.Forge) { f.Block(archivetest.Header{Name: "x", Type: '0', Sum: "000000\x00 "}) }), []string{"no header at byte 512", `after "."`}, true},
		"content of a link": {archiveOf(func(f *archivetest.Forge) {
			f.File("a", "1")
			f.Block(archivetest.Header{Name: "h", Type: '1', Link: "a", Size: archivetest.Octal(1)})
			f.Content("x")
		}), []string{"no header at byte 2048"}, true},
		"cut in a file":     {one[:1030], []string{`"x"`, "truncated", "byte 1030"}, true},
		"cut after a file":  {one[:1536], []string{"truncated", "byte 1536"}, true},
		"cut in the end":    {one[:2048], []string{"truncated", "byte 2048"}, true},
		"a lone zero block": {append(one[:1536:1536], append(make([]byte, 512), one[512:]...)...), []string{"lone zero block at byte 1536"}, true},
		"only a label": {func() []byte {
			f := &archivetest.Forge{}
			f.Block(archivetest.Header{Name: "label", Type: 'V'})
			f.End()
			return f.Bytes()
		}(), []string{"no entries"}, false},
		"reserved flags of gzip":          {append([]byte{0x1f, 0x8b, 8, 0x40}, make([]byte, 100)...), []string{"reserved flags 0x40"}, false},
		"a record of zeros":               {make([]byte, 10240), []string{"no entries"}, false},
		"garbage in a record that is cut": {append(bytes.Clone(one), "garbage"...), []string{"data after the end"}, false},
		"garbage after the record":        {append(filled(bytes.Clone(one), "garbage"), 'x'), []string{"data after the end"}, false},
		"a second archive in the record":  {filled(append(bytes.Clone(one), one...), "\x00"), []string{"another archive follows", "byte 2560"}, false},
		"a second archive after garbage":  {filled(append(append(bytes.Clone(one), strings.Repeat("garbage!", 64)...), one...), "\x00"), []string{"another archive follows", "byte 3072"}, false},
		"a second archive after it":       {append(filled(bytes.Clone(one), "\x00"), one...), []string{"data after the end"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := imported(t, c.data)
			if !errors.Is(err, archive.ErrRefused) {
				t.Fatalf("the answer is %v", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the answer is %v; it does not say %q", err, want)
				}
			}
			var damaged *foreign.Damaged
			if errors.As(err, &damaged) != c.damaged {
				t.Errorf("it says of %v that it is damaged: %t", err, !c.damaged)
			}
		})
	}
}

func sparse(major, minor string) []byte {
	return archiveOf(func(f *archivetest.Forge) {
		f.Pax(record("GNU.sparse.major", major), record("GNU.sparse.minor", minor), record("GNU.sparse.name", "s"), record("GNU.sparse.realsize", "512"))
		f.File("s", "1\n0\n512\n")
	})
}

func global(key, value string) []byte {
	return archiveOf(func(f *archivetest.Forge) { f.Global(record(key, value)); f.File("x", "1") })
}

// Zeros after the end are bounded, so that an import of /dev/zero ends.
func TestZerosWithoutEndAreRefused(t *testing.T) {
	f := archiveOf(func(f *archivetest.Forge) { f.File("x", "1") })
	for name, in := range map[string]*endless{"nothing else": {}, "after an archive": {head: f}} {
		s, err := foreign.Open(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		r := foreign.NewReader(s)
		for err == nil {
			_, err = r.Next()
		}
		if !errors.Is(err, archive.ErrRefused) {
			t.Errorf("%s: the answer is %v", name, err)
		}
	}
}

// endless is head, and zeros after it.
type endless struct{ head []byte }

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.head)
	e.head = e.head[n:]
	clear(p[n:])
	return len(p), nil
}

// An error of the file is not one of the archive.
func TestAFileThatCannotBeReadIsNoRefusal(t *testing.T) {
	f := archiveOf(func(f *archivetest.Forge) { f.File("x", strings.Repeat("1", 100_000)) })
	for name, data := range map[string][]byte{"plain": f, "gzip": archive.Gzip.Deflate(nil, f), "zstd": archive.Zstd.Deflate(nil, f)} {
		for _, at := range []int{0, 2, 100, len(data) - 1, len(data)} {
			broken := errors.New("broken")
			s, err := foreign.Open(t.Context(), &failing{data[:min(at, len(data))], broken})
			for r := foreign.NewReader(s); err == nil; {
				_, err = r.Next()
			}
			if !errors.Is(err, broken) || errors.Is(err, archive.ErrRefused) {
				t.Errorf("%s, after %d bytes of %d: the answer is %v", name, at, len(data), err)
			}
		}
	}
}

type failing struct {
	data []byte
	err  error
}

func (f *failing) Read(p []byte) (int, error) {
	if len(f.data) == 0 {
		return 0, f.err
	}
	n := copy(p, f.data)
	f.data = f.data[n:]
	return n, nil
}

// What GNU tar would lose, or what nobody could keep, is counted by kind.
func TestWhatIsLostIsCounted(t *testing.T) {
	acl := "user::rw-,%s,group::r--,mask::r--,other::r--"
	data := archiveOf(func(f *archivetest.Forge) {
		f.Pax(record("SCHILY.fflags", "nodump"), record("RHT.security.selinux", "label"), record("SCHILY.acl.ace", "owner@:r"))
		f.File("a", "1")
		f.Pax(record("SCHILY.acl.access", fmt.Sprintf(acl, "user:nobody-here:r--")))
		f.File("b", "1")
		f.Pax(record("SCHILY.acl.access", fmt.Sprintf(acl, "user:nobody-here:r--:99")), record("LIBARCHIVE.xattr.user.only", "eA"), record("LIBARCHIVE.xattr.user.both%25", "eA"), record("SCHILY.xattr.user.both%", "x"))
		f.File("c", "1")
		f.Pax(record("SCHILY.acl.access", "user::rw-,user:99:r--,group::r--,other::r--"))
		f.File("no-mask", "1")
		f.Pax(record("SCHILY.acl.default", "user::rw-,group::r--,other::r--"))
		f.File("e", "1")
		f.Pax(record("SCHILY.xattr.user.a", "v"), record("SCHILY.acl.access", fmt.Sprintf(acl, "user:1:r--")))
		f.Soft("s", "a")
		f.Pax(record("SCHILY.xattr.user.a", "v"))
		f.Link("h", "a")
		f.Pax(record("GNU.dumpdir", "Nold\x00Nolder\x00Yd\x00\x00"))
		f.Dir("d")
		f.Pax(record("VENDOR.what", "1"), record("atime", "1"), record("uname", "x"))
		f.File("z", "")
	})
	_, got, err := imported(t, data)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{
		"inode flags (SCHILY.fflags)": 1, "extended attribute security.selinux": 1, "ACL of another kind (SCHILY.acl.ace)": 1,
		"ACL in text form, which names somebody whom this host does not know": 1, "ACL in text form, which is malformed": 1,
		"ACL that such an entry cannot have": 2, "extended attribute user.only": 1, "extended attribute user.a": 1,
		"content, which an earlier archive of --listed-incremental has": 2, "pax record VENDOR.what": 1,
	}
	if !maps.Equal(got.Dropped, want) {
		t.Errorf("dropped %v, expected %v", got.Dropped, want)
	}
}

// A million kinds of metadata are a few lines for the operator.
func TestAnArchiveCannotMakeTheListOfLossesLong(t *testing.T) {
	data := archiveOf(func(f *archivetest.Forge) {
		for i := range 90 {
			var records []string
			for j := range 100 {
				records = append(records, record(fmt.Sprintf("VENDOR.%d.%d", i, j), "1"))
			}
			records = append(records, record(strings.Repeat("long", 1000), "1"))
			f.Pax(records...)
			f.File(fmt.Sprint(i), "")
		}
	})
	_, got, err := imported(t, data)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Dropped) > 101 || got.Dropped["other records"] < 8900 {
		t.Errorf("%d kinds, %d others", len(got.Dropped), got.Dropped["other records"])
	}
}

// A text ACL gives the file the ACL that setfacl would give it, and getfacl tells.
func TestATextACLIsTheACLOfThatText(t *testing.T) {
	disktest.NeedRoot(t)
	for text, want := range map[string]string{
		"user::rwx,user:1234:r--,group::r-x,group:7:rw-,mask::rwx,other::---":          "user::rwx,user:1234:r--,group::r-x,group:7:rw-,mask::rwx,other::---",
		"u::rw-, g::r-- ,o::---,m::r--,u:5:rw-":                                        "user::rw-,user:5:rw-,group::r--,mask::r--,other::---",
		"user::rw-\nuser:lisa:r--:77\ngroup::r--\nmask::r-- # effective\nother::r--\n": "user::rw-,user:77:r--,group::r--,mask::r--,other::r--",
		"user::rw-,group::r--,group:root:rw-,mask:rw-,other:r--":                       "user::rw-,group::r--,group:0:rw-,mask::rw-,other::r--",
		"user::rw-,group::r-x,other::--x":                                              "user::rw-,group::r-x,other::--x",
		"user::rw-,user:root:r--,group::r--,mask::rw-,other::r--":                      "user::rw-,user:0:r--,group::r--,mask::rw-,other::r--",
	} {
		data := archiveOf(func(f *archivetest.Forge) { f.Pax(record("SCHILY.acl.access", text)); f.File("x", "1") })
		dir := t.TempDir()
		if err := exec.Command("setfacl", "-b", dir).Run(); err != nil {
			t.Skip("no setfacl")
		}
		importInto(t, data, dir)
		out := disktest.Run(t, "getfacl", "-p", "-n", "-c", "-E", dir+"/x")
		if got := strings.ReplaceAll(strings.TrimSpace(out), "\n", ","); got != want {
			t.Errorf("%q became %q, expected %q", text, got, want)
		}
	}
}

// Text that is no ACL is none, whatever it looks like.
func TestTextThatIsNoACLIsNotGuessed(t *testing.T) {
	const rest = ",group::r--,mask::r--,other::r--"
	for _, text := range []string{
		"x", ":", "user", "user::rw-", "user::rw-,group::r--", "user::rwz" + rest, "user::rrr" + rest, "user::" + rest, "user::rw-,user::rw-" + rest,
		"user::rw-,user:1:r--,user:1:rw-" + rest, "user::rw-,user:4294967295:r--" + rest, "user::rw-,user:-1:r--:-1" + rest, "user::rw-,user:a:r--:x" + rest,
		"user::rw-,mask:1:rw-" + rest, "user::rw-:5" + rest, "user::rw-,owner:1:r--" + rest, "user:1:2:3:4" + rest, "user::rw-" + strings.Repeat(",user:1:r--:1", 9000) + rest,
		"user::\xff" + rest, "user::rw-,user:no\x00body:r--" + rest,
	} {
		data := archiveOf(func(f *archivetest.Forge) { f.Pax(record("SCHILY.acl.access", text)); f.File("x", "1") })
		tree, got, err := imported(t, data)
		if err != nil {
			t.Errorf("%.40q: %v", text, err)
			continue
		}
		for _, line := range tree {
			if strings.Contains(line, "posix_acl") {
				t.Errorf("%.40q became %s", text, line)
			}
		}
		if len(got.Dropped) != 1 {
			t.Errorf("%.40q: dropped %v", text, got.Dropped)
		}
	}
}

// An ACL that comes as an attribute too is that attribute: it has ids.
func TestAnACLAsAttributeCountsMoreThanAsText(t *testing.T) {
	disktest.NeedRoot(t)
	attr, _ := hex.DecodeString("02000000" + "01000600ffffffff" + "0200040005000000" + "04000400ffffffff" + "10000400ffffffff" + "20000400ffffffff")
	text := record("SCHILY.acl.access", "user::rw-,user:99:r--,group::r--,mask::r--,other::r--")
	for _, records := range [][]string{{text, record("SCHILY.xattr.system.posix_acl_access", string(attr))}, {record("SCHILY.xattr.system.posix_acl_access", string(attr)), text}} {
		dir := t.TempDir()
		importInto(t, archiveOf(func(f *archivetest.Forge) { f.Pax(records...); f.File("x", "1") }), dir)
		if out := disktest.Run(t, "getfacl", "-p", "-n", "-c", dir+"/x"); !strings.Contains(out, "user:5:r--") || strings.Contains(out, "99") {
			t.Errorf("the ACL is %s", out)
		}
	}
}
