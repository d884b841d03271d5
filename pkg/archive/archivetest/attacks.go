package archivetest

import (
	"slices"
	"strings"

	"github.com/tiny-forge/snap/pkg/archive"
)

// Attack is one forged archive. The root directory precedes the entries that make
// appends, and a valid end follows them, unless make sets otherwise.
type Attack struct {
	Name  string
	make  func(*Forge)
	Want  string // what the refusal says
	limit func(*archive.ExtractOptions)
}

// Attacks has all forged archives. Each must be refused.
func Attacks() []Attack {
	return slices.Concat(forgedNames, forgedLinks, forgedTypes, forgedPax, forgedBlocks, forgedEnds, forgedMaps, forgedAmounts)
}

// Tar returns the forged archive. It tries to reach the directory outside, which has the
// files passwd and dir/file.
func (a Attack) Tar(outside string) []byte {
	f := &Forge{Outside: outside}
	f.Root()
	a.make(f)
	if !f.Cut {
		f.End()
	}
	return f.Bytes()
}

// Limits returns the limits for the attack. They are generous, unless the attack is
// about limits.
func (a Attack) Limits() archive.ExtractOptions {
	opt := Limits()
	if a.limit != nil {
		a.limit(&opt)
	}
	return opt
}

// Limits are enough for every honest archive of the tests.
func Limits() archive.ExtractOptions {
	return archive.ExtractOptions{MaxEntries: 100, MaxBytes: 1 << 20, MaxDepth: 20}
}

func named(typ byte, name string) func(*Forge) {
	return func(f *Forge) { f.Block(Header{Name: name, Type: typ}) }
}

func paxNamed(name string) func(*Forge) {
	return func(f *Forge) { f.Pax(Record("path", name)); f.File("x", "evil") }
}

var forgedNames = []Attack{
	{"an absolute file", named('0', "/x"), "not a name", nil},
	{"an absolute directory", named('5', "/x/"), "not a name", nil},
	{"an absolute path to the outside", func(f *Forge) { f.Pax(Record("path", f.Outside+"/evil")); f.File("x", "evil") }, "not a name", nil},
	{".. in front", named('0', "../x"), "not a name", nil},
	{".. in the middle", func(f *Forge) { f.Dir("a"); f.File("a/../../x", "evil") }, "not a name", nil},
	{".. at the end", named('5', "a/../"), "not a name", nil},
	{".. alone", named('5', "../"), "not a name", nil},
	{".. in a pax record", paxNamed("../x"), "not a name", nil},
	{"an empty component", named('0', "a//b"), "not a name", nil},
	{"a . component", named('0', "a/./b"), "not a name", nil},
	{"a leading ./", named('0', "./a"), "not a name", nil},
	{"a file called .", named('0', "."), "not a name", nil},
	{"no name", named('0', ""), "not a name", nil},
	{"a directory called /", named('5', "/"), "not a name", nil},
	{"an empty path record", paxNamed(""), "path record is empty", nil},
	{"NUL in a path record", paxNamed("a\x00b"), "not a name", nil},
	{"a component of 256 bytes", paxNamed(strings.Repeat("n", 256)), "not a name", nil},
	{"a component of 256 bytes for a directory", func(f *Forge) {
		f.Pax(Record("path", strings.Repeat("n", 256)+"/"))
		f.Dir("x")
	}, "not a name", nil},
	{"a directory without its slash", named('5', "a"), "does not end in a slash", nil},
	{"a file with a slash", named('0', "a/"), "not a name", nil},
	{"the same file twice", func(f *Forge) { f.File("a", "1"); f.File("a", "2") }, "file exists", nil},
	{"the same directory twice", func(f *Forge) { f.Dir("a"); f.Dir("a") }, "file exists", nil},
	{"the same symlink twice", func(f *Forge) { f.Soft("a", "1"); f.Soft("a", "2") }, "file exists", nil},
	{"the same hardlink twice", func(f *Forge) { f.File("a", "1"); f.Link("b", "a"); f.Link("b", "a") }, "file exists", nil},
	{"a file where a directory stands", func(f *Forge) { f.Dir("a"); f.File("a", "1") }, "file exists", nil},
	{"a directory where a file stands", func(f *Forge) { f.File("a", "1"); f.Dir("a") }, "file exists", nil},
	{"a symlink where a file stands", func(f *Forge) { f.File("a", "1"); f.Soft("a", "x") }, "file exists", nil},
	{"a symlink where a directory stands", func(f *Forge) { f.Dir("a"); f.Soft("a", f.Outside) }, "file exists", nil},
	{"a hardlink where a file stands", func(f *Forge) { f.File("a", "1"); f.File("b", "2"); f.Link("b", "a") }, "file exists", nil},
	{"an entry below a file", func(f *Forge) { f.File("a", "1"); f.File("a/b", "2") }, "does not come before", nil},
	{"an entry whose directory is missing", func(f *Forge) { f.File("a/b", "2") }, "does not come before", nil},
	{"the root twice", func(f *Forge) { f.Root() }, "first, and only once", nil},
	{"the root not first", func(f *Forge) { f.Reset(); f.File("a", ""); f.Root() }, "first, and only once", nil},
	{"no root", func(f *Forge) { f.Reset() }, "is empty", nil},
	{"a root that is a symlink", func(f *Forge) { f.Reset(); f.Soft(".", f.Outside) }, "not a name", nil},
}

var forgedLinks = []Attack{
	{"a file below a symlink", func(f *Forge) { f.Soft("d", f.Outside); f.File("d/evil", "evil") }, "does not come before", nil},
	{"a directory below a symlink", func(f *Forge) { f.Soft("d", f.Outside); f.Dir("d/evil") }, "does not come before", nil},
	{"a symlink below a symlink", func(f *Forge) { f.Soft("d", f.Outside); f.Soft("d/evil", "x") }, "does not come before", nil},
	{"two steps: a link up, then a link through it", func(f *Forge) {
		f.Dir("d")
		f.Soft("d/up", "..")
		f.Soft("out", "d/up/../etc")
		f.File("out/evil", "evil")
	}, "does not come before", nil},
	{"a directory replaced by a symlink, then written through", func(f *Forge) {
		f.Dir("d")
		f.Soft("d", f.Outside)
		f.File("d/evil", "evil")
	}, "file exists", nil},
	{"a hardlink to a symlink", func(f *Forge) { f.Soft("s", f.Outside+"/passwd"); f.Link("h", "s") }, "no such file", nil},
	{"a hardlink through a symlink", func(f *Forge) { f.Soft("s", f.Outside); f.Link("h", "s/passwd") }, "does not come before", nil},
	{"a hardlink to a directory", func(f *Forge) { f.Dir("d"); f.Link("h", "d") }, "not a regular file", nil},
	{"a hardlink to the root", func(f *Forge) { f.Link("h", ".") }, "not a name", nil},
	{"a hardlink outside, relative", func(f *Forge) { f.Link("h", "../etc/passwd") }, "not a name", nil},
	{"a hardlink outside, absolute", func(f *Forge) { f.Link("h", "/etc/passwd") }, "not a name", nil},
	{"a hardlink to what comes later", func(f *Forge) { f.Link("h", "a"); f.File("a", "1") }, "no such file", nil},
	{"a hardlink to itself", func(f *Forge) { f.Link("h", "h") }, "no such file", nil},
	{"a hardlink below a file", func(f *Forge) { f.File("a", "1"); f.Link("h", "a/b") }, "does not come before", nil},
	{"a hardlink with content", func(f *Forge) {
		f.File("a", "1")
		f.Block(Header{Name: "h", Type: '1', Link: "a", Size: Octal(1)})
		f.Content("2")
	}, "of content", nil},
	{"a hardlink with NUL in its target", func(f *Forge) { f.Pax(Record("linkpath", "a\x00b")); f.Link("h", "a") }, "not a name", nil},
	{"a symlink to nothing", func(f *Forge) { f.Soft("s", "") }, "is not valid", nil},
	{"a symlink with NUL in its target", func(f *Forge) { f.Pax(Record("linkpath", "a\x00b")); f.Soft("s", "a") }, "is not valid", nil},
	{"a symlink of 4096 bytes", func(f *Forge) { f.Pax(Record("linkpath", strings.Repeat("l", 4096))); f.Soft("s", "a") }, "is not valid", nil},
	{"a symlink with attributes", func(f *Forge) { f.Pax(Record("SCHILY.xattr.trusted.a", "v")); f.Soft("s", "a") }, "is not valid", nil},
	{"a symlink under symlinks: reject", func(f *Forge) { f.Soft("s", "a") }, "symlinks: reject", func(o *archive.ExtractOptions) { o.RejectSymlinks = true }},
	{"a file with a link", func(f *Forge) { f.Block(Header{Name: "a", Type: '0', Link: "b"}) }, "has a link", nil},
	{"a directory with a link", func(f *Forge) { f.Block(Header{Name: "a/", Type: '5', Link: "b"}) }, "has a link", nil},
}

// forgedTypes has all other types that some tar program knows (pax(1), GNU tar's tar.h,
// Solaris).
var forgedTypes = func() []Attack {
	var list []Attack
	for _, typ := range "3467\x00ADEKLMNSVXgs\xff89" {
		list = append(list, Attack{"type " + string(typ), named(byte(typ), "x"), "", nil})
	}
	return append(list, forgedSpecials...)
}()

// forgedSpecials are refused even if the config keeps fifos and devices.
var forgedSpecials = []Attack{
	{"a fifo with content", func(f *Forge) { f.Block(Header{Name: "p", Type: '6', Size: Octal(1)}); f.Content("x") }, "of content", keepSpecials},
	{"a fifo with a link", func(f *Forge) { f.Block(Header{Name: "p", Type: '6', Link: "/etc/passwd"}) }, "is not valid", keepSpecials},
	{"a fifo with attributes", func(f *Forge) { f.Pax(Record("SCHILY.xattr.user.a", "v")); f.Block(Header{Name: "p", Type: '6'}) }, "is not valid", keepSpecials},
	{"a fifo where a file stands", func(f *Forge) { f.File("p", "1"); f.Block(Header{Name: "p", Type: '6'}) }, "file exists", keepSpecials},
	{"a fifo below a symlink", func(f *Forge) { f.Soft("d", f.Outside); f.Block(Header{Name: "d/p", Type: '6'}) }, "does not come before", keepSpecials},
	{"a fifo called ..", named('6', "../p"), "not a name", keepSpecials},
	{"a device without a number", named('3', "null"), "not an octal", keepSpecials},
	{"a hardlink to a fifo", func(f *Forge) { f.Block(Header{Name: "p", Type: '6'}); f.Link("h", "p") }, "not a regular file", keepSpecials},
	{"one fifo too many", func(f *Forge) { f.Block(Header{Name: "p", Type: '6'}); f.Block(Header{Name: "q", Type: '6'}) }, "2 entries",
		func(o *archive.ExtractOptions) { keepSpecials(o); o.MaxEntries = 2 }},
}

func keepSpecials(o *archive.ExtractOptions) { o.Special = archive.KeepSpecial }
