package archive_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
)

// attack is one forged archive. The volume's own directory stands before what
// make appends, and a true end behind it, unless make says otherwise.
type attack struct {
	name string
	make func(*forge)
	want string // what the refusal says
	opt  func(*archive.ExtractOptions)
}

func limits() archive.ExtractOptions {
	return archive.ExtractOptions{MaxEntries: 100, MaxBytes: 1 << 20, MaxDepth: 20}
}

func TestEachForgedArchiveIsRefusedAndNothingOutsideChanges(t *testing.T) {
	for _, a := range slices.Concat(forgedNames, forgedLinks, forgedTypes, forgedPax, forgedBlocks, forgedEnds, forgedMaps, forgedAmounts) {
		t.Run(a.name, func(t *testing.T) {
			stage, outside, untouched := sandbox(t)
			f := &forge{outside: outside}
			f.root()
			a.make(f)
			if !f.cut {
				f.end()
			}
			opt := limits()
			if a.opt != nil {
				a.opt(&opt)
			}
			begun := time.Now()
			_, err := archive.Extract(context.Background(), f, open(t, stage), opt)
			if !errors.Is(err, archive.ErrRefused) || !strings.Contains(err.Error(), a.want) {
				t.Errorf("the answer is %v; expected a refusal that says %q", err, a.want)
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			untouched()
		})
	}
}

// The refusals above mean something only if the same forger's honest archive
// is taken.
func TestAnHonestForgeryIsTaken(t *testing.T) {
	stage, _, untouched := sandbox(t)
	f := &forge{}
	f.root()
	f.dir("d")
	f.pax(record("path", "d/"+strings.Repeat("n", 200)), record("mtime", "-1.5"), record("uid", "4294967294"), record("SCHILY.xattr.user.a", "v"))
	f.file("d/short", "content")
	f.pax(record("linkpath", "d/"+strings.Repeat("n", 200)))
	f.link("hard", "cut")
	f.sparse("sparse", "1048576", "1\n4096\n512\n", strings.Repeat("x", 512))
	f.soft("soft", "/etc/passwd")
	f.file("z", "")
	f.end()
	opt := limits()
	opt.MaxBytes = 2 << 20
	stats, err := archive.Extract(context.Background(), f, open(t, stage), opt)
	if err != nil {
		t.Fatal(err)
	}
	want := archive.Stats{Files: 3, Dirs: 2, Symlinks: 1, Hardlinks: 1, Bytes: 1<<20 + 7, DataBytes: 519, Depth: 2}
	if stats != want {
		t.Errorf("made %+v, expected %+v", stats, want)
	}
	untouched()
}

func named(typ byte, name string) func(*forge) {
	return func(f *forge) { f.block(header{name: name, typ: typ}) }
}

func paxNamed(name string) func(*forge) {
	return func(f *forge) { f.pax(record("path", name)); f.file("x", "evil") }
}

var forgedNames = []attack{
	{"an absolute file", named('0', "/x"), "not a name", nil},
	{"an absolute directory", named('5', "/x/"), "not a name", nil},
	{"an absolute path to the outside", func(f *forge) { f.pax(record("path", f.outside+"/evil")); f.file("x", "evil") }, "not a name", nil},
	{".. in front", named('0', "../x"), "not a name", nil},
	{".. in the middle", func(f *forge) { f.dir("a"); f.file("a/../../x", "evil") }, "not a name", nil},
	{".. at the end", named('5', "a/../"), "not a name", nil},
	{".. alone", named('5', "../"), "not a name", nil},
	{".. in a pax record", paxNamed("../x"), "not a name", nil},
	{"an empty component", named('0', "a//b"), "not a name", nil},
	{"a . component", named('0', "a/./b"), "not a name", nil},
	{"a leading ./", named('0', "./a"), "not a name", nil},
	{"a file called .", named('0', "."), "not a name", nil},
	{"no name", named('0', ""), "not a name", nil},
	{"a directory called /", named('5', "/"), "not a name", nil},
	{"an empty path record", paxNamed(""), "empty path", nil},
	{"NUL in a path record", paxNamed("a\x00b"), "not a name", nil},
	{"a component of 256 bytes", paxNamed(strings.Repeat("n", 256)), "not a name", nil},
	{"a component of 256 bytes for a directory", func(f *forge) {
		f.pax(record("path", strings.Repeat("n", 256)+"/"))
		f.dir("x")
	}, "not a name", nil},
	{"a directory without its slash", named('5', "a"), "without its slash", nil},
	{"a file with a slash", named('0', "a/"), "not a name", nil},
	{"the same file twice", func(f *forge) { f.file("a", "1"); f.file("a", "2") }, "file exists", nil},
	{"the same directory twice", func(f *forge) { f.dir("a"); f.dir("a") }, "file exists", nil},
	{"the same symlink twice", func(f *forge) { f.soft("a", "1"); f.soft("a", "2") }, "file exists", nil},
	{"the same hardlink twice", func(f *forge) { f.file("a", "1"); f.link("b", "a"); f.link("b", "a") }, "file exists", nil},
	{"a file where a directory stands", func(f *forge) { f.dir("a"); f.file("a", "1") }, "file exists", nil},
	{"a directory where a file stands", func(f *forge) { f.file("a", "1"); f.dir("a") }, "file exists", nil},
	{"a symlink where a file stands", func(f *forge) { f.file("a", "1"); f.soft("a", "x") }, "file exists", nil},
	{"a symlink where a directory stands", func(f *forge) { f.dir("a"); f.soft("a", f.outside) }, "file exists", nil},
	{"a hardlink where a file stands", func(f *forge) { f.file("a", "1"); f.file("b", "2"); f.link("b", "a") }, "file exists", nil},
	{"an entry below a file", func(f *forge) { f.file("a", "1"); f.file("a/b", "2") }, "does not stand before", nil},
	{"an entry whose directory is missing", func(f *forge) { f.file("a/b", "2") }, "does not stand before", nil},
	{"the root twice", func(f *forge) { f.root() }, "first, and once", nil},
	{"the root not first", func(f *forge) { f.Reset(); f.file("a", ""); f.root() }, "first, and once", nil},
	{"no root", func(f *forge) { f.Reset() }, "holds nothing", nil},
	{"a root that is a symlink", func(f *forge) { f.Reset(); f.soft(".", f.outside) }, "not a name", nil},
}

var forgedLinks = []attack{
	{"a file below a symlink", func(f *forge) { f.soft("d", f.outside); f.file("d/evil", "evil") }, "does not stand before", nil},
	{"a directory below a symlink", func(f *forge) { f.soft("d", f.outside); f.dir("d/evil") }, "does not stand before", nil},
	{"a symlink below a symlink", func(f *forge) { f.soft("d", f.outside); f.soft("d/evil", "x") }, "does not stand before", nil},
	{"two steps: a link up, then a link through it", func(f *forge) {
		f.dir("d")
		f.soft("d/up", "..")
		f.soft("out", "d/up/../etc")
		f.file("out/evil", "evil")
	}, "does not stand before", nil},
	{"a directory replaced by a symlink, then written through", func(f *forge) {
		f.dir("d")
		f.soft("d", f.outside)
		f.file("d/evil", "evil")
	}, "file exists", nil},
	{"a hardlink to a symlink", func(f *forge) { f.soft("s", f.outside+"/passwd"); f.link("h", "s") }, "no such file", nil},
	{"a hardlink through a symlink", func(f *forge) { f.soft("s", f.outside); f.link("h", "s/passwd") }, "does not stand before", nil},
	{"a hardlink to a directory", func(f *forge) { f.dir("d"); f.link("h", "d") }, "not a regular file", nil},
	{"a hardlink to the root", func(f *forge) { f.link("h", ".") }, "not a name", nil},
	{"a hardlink outside, relative", func(f *forge) { f.link("h", "../etc/passwd") }, "not a name", nil},
	{"a hardlink outside, absolute", func(f *forge) { f.link("h", "/etc/passwd") }, "not a name", nil},
	{"a hardlink to what comes later", func(f *forge) { f.link("h", "a"); f.file("a", "1") }, "no such file", nil},
	{"a hardlink to itself", func(f *forge) { f.link("h", "h") }, "no such file", nil},
	{"a hardlink below a file", func(f *forge) { f.file("a", "1"); f.link("h", "a/b") }, "does not stand before", nil},
	{"a hardlink with content", func(f *forge) {
		f.file("a", "1")
		f.block(header{name: "h", typ: '1', link: "a", size: octal(1)})
		f.content("2")
	}, "of content", nil},
	{"a hardlink with NUL in its target", func(f *forge) { f.pax(record("linkpath", "a\x00b")); f.link("h", "a") }, "not a name", nil},
	{"a symlink to nothing", func(f *forge) { f.soft("s", "") }, "cannot be made", nil},
	{"a symlink with NUL in its target", func(f *forge) { f.pax(record("linkpath", "a\x00b")); f.soft("s", "a") }, "cannot be made", nil},
	{"a symlink of 4096 bytes", func(f *forge) { f.pax(record("linkpath", strings.Repeat("l", 4096))); f.soft("s", "a") }, "cannot be made", nil},
	{"a symlink with attributes", func(f *forge) { f.pax(record("SCHILY.xattr.trusted.a", "v")); f.soft("s", "a") }, "cannot be made", nil},
	{"a symlink under symlinks: reject", func(f *forge) { f.soft("s", "a") }, "symlinks: reject", func(o *archive.ExtractOptions) { o.RejectSymlinks = true }},
	{"a file with a link", func(f *forge) { f.block(header{name: "a", typ: '0', link: "b"}) }, "has a link", nil},
	{"a directory with a link", func(f *forge) { f.block(header{name: "a/", typ: '5', link: "b"}) }, "has a link", nil},
}

// forgedTypes are all other types that have a meaning to some tar (pax(1), GNU
// tar's tar.h, Solaris).
var forgedTypes = func() []attack {
	var list []attack
	for _, typ := range "3467\x00ADEKLMNSVXgs\xff89" {
		list = append(list, attack{"type " + string(typ), named(byte(typ), "x"), "", nil})
	}
	return list
}()
