package archivetest

import (
	"strings"

	"github.com/tiny-forge/snap/pkg/archive"
)

// paxFile is a small file after the given pax records.
func paxFile(records ...string) func(*Forge) {
	return func(f *Forge) { f.Pax(records...); f.File("a", "1") }
}

// paxEmpty is the same with an empty file.
func paxEmpty(records ...string) func(*Forge) {
	return func(f *Forge) { f.Pax(records...); f.File("a", "") }
}

func rawPax(data string) func(*Forge) {
	return func(f *Forge) {
		f.Block(Header{Name: "pax", Type: 'x', Size: Octal(len(data))})
		f.Content(data)
		f.File("a", "1")
	}
}

var forgedPax = []Attack{
	{"a size record that agrees", paxFile(Record("size", "1")), "size", nil},
	{"a size record that hides an entry", func(f *Forge) {
		f.Pax(Record("size", "1024"))
		f.File("a", "1")
		f.File("hidden", "2")
	}, "size", nil},
	{"a size record that shows content as an entry", func(f *Forge) {
		var inner Forge
		inner.File("hidden", "evil")
		f.Pax(Record("size", "0"))
		f.File("a", inner.String())
	}, "size", nil},
	{"a size record on a directory", func(f *Forge) { f.Pax(Record("size", "512")); f.Dir("a"); f.Content("x") }, "size", nil},
	{"a size of zero on a directory that has one", func(f *Forge) {
		f.Pax(Record("size", "0"))
		f.Block(Header{Name: "a/", Type: '5', Size: Octal(512)})
	}, "size", nil},
	{"a size of -1", paxEmpty(Record("size", "-1")), "not a valid number", nil},
	{"a size of +1", paxEmpty(Record("size", "+1")), "not a valid number", nil},
	{"a size of 2^63", paxEmpty(Record("size", "9223372036854775808")), "not a valid number", nil},
	{"a size of 2^64+1", paxEmpty(Record("size", "18446744073709551617")), "not a valid number", nil},
	{"a size of 2^63-1", func(f *Forge) { f.Pax(Record("size", "9223372036854775807")); f.File("a", "") }, "declared", nil},
	{"a size with leading zeros", paxEmpty(Record("size", "01")), "not a valid number", nil},
	{"a size in hexadecimal", paxEmpty(Record("size", "0x1")), "not a valid number", nil},
	{"an empty size", paxEmpty(Record("size", "")), "not a valid number", nil},
	{"a size with a blank", paxEmpty(Record("size", " 1")), "not a valid number", nil},
	{"the same record twice", paxFile(Record("path", "a"), Record("path", "b")), "twice", nil},
	{"an unknown record", paxFile(Record("comment", "x")), "pax record", nil},
	{"a device record", paxFile(Record("SCHILY.devmajor", "1")), "pax record", nil},
	{"a charset record", paxFile(Record("hdrcharset", "BINARY")), "pax record", nil},
	{"an owner's name", paxFile(Record("uname", "root")), "pax record", nil},
	{"an old sparse map", paxFile(Record("GNU.sparse.map", "0,1")), "pax record", nil},
	{"an attribute of a security module", paxFile(Record("SCHILY.xattr.security.selinux", "x")), "extended attribute", nil},
	{"an attribute of the system", paxFile(Record("SCHILY.xattr.system.evil", "x")), "extended attribute", nil},
	{"an attribute without a name", paxFile(Record("SCHILY.xattr.", "x")), "extended attribute", nil},
	{"an attribute named user.", paxFile(Record("SCHILY.xattr.user.", "x")), "user.", nil},
	{"an attribute of 300 letters", paxFile(Record("SCHILY.xattr.user."+strings.Repeat("a", 300), "x")), "extended attribute", nil},
	{"an attribute of 70 KiB", paxFile(Record("SCHILY.xattr.user.a", strings.Repeat("a", 70<<10))), "user.a", nil},
	{"an ACL that is none", paxFile(Record("SCHILY.xattr.system.posix_acl_access", "x")), "posix_acl_access", nil},
	{"a default ACL on a file", paxFile(Record("SCHILY.xattr.system.posix_acl_default", "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff")), "posix_acl_default", nil},
	{"an attribute written in two ways", paxFile(Record("SCHILY.xattr.user.%25", "x"), Record("SCHILY.xattr.user.%", "y")), "pax record", nil},
	{"a record of length 0", rawPax("0 path=x\n"), "wrong length", nil},
	{"a record shorter than it says", rawPax("99 path=x\n"), "wrong length", nil},
	{"a record longer than it says", rawPax("9 path=xxxx\n"), "malformed", nil},
	{"a record whose length has a zero in front", rawPax("010 path=x\n"), "wrong length", nil},
	{"a record whose length is negative", rawPax("-10 path=x\n"), "wrong length", nil},
	{"a record of 2^32+10 bytes", rawPax("4294967306 path=x\n"), "wrong length", nil},
	{"a record of 2^64+10 bytes", rawPax("18446744073709551626 path=x\n"), "wrong length", nil},
	{"a record without a length", rawPax(" path=x\n"), "wrong length", nil},
	{"a record that is its length alone", rawPax("2 "), "wrong length", nil},
	{"a record without =", rawPax("8 pathx\n"), "malformed", nil},
	{"a record without a key", rawPax("5 =x\n"), "malformed", nil},
	{"a record without its newline", rawPax("9 path=xy"), "malformed", nil},
	{"records that are one NUL", rawPax("\x00"), "wrong length", nil},
	{"no records", func(f *Forge) { f.Block(Header{Name: "pax", Type: 'x'}); f.File("a", "1") }, "0 bytes of pax records", nil},
	{"records of 8 GiB", func(f *Forge) { f.Block(Header{Name: "pax", Type: 'x', Size: "77777777777\x00"}) }, "bytes of pax records", nil},
	{"records after records", func(f *Forge) { f.Pax(Record("path", "a")); paxFile(Record("path", "b"))(f) }, "type 'x'", nil},
	{"records and then the end", func(f *Forge) { f.Pax(Record("path", "a")) }, "header", nil},
	{"a time that is no number", paxFile(Record("mtime", "nan")), "not a time", nil},
	{"a time with an exponent", paxFile(Record("mtime", "1e9")), "not a time", nil},
	{"a time finer than nanoseconds", paxFile(Record("mtime", "1.0000000001")), "not a time", nil},
	{"a time with two signs", paxFile(Record("mtime", "--1")), "not a time", nil},
	{"a time with a sign after the point", paxFile(Record("mtime", "1.-5")), "not a time", nil},
	{"a time of 2^64", paxFile(Record("mtime", "18446744073709551616")), "not a time", nil},
	{"the owner -1", paxFile(Record("uid", "4294967295")), "not a valid number", nil},
	{"the owner -1, with a sign", paxFile(Record("uid", "-1")), "not a valid number", nil},
	{"the group 2^32", paxFile(Record("gid", "4294967296")), "not a valid number", nil},
}

func forgedFile(h Header) func(*Forge) {
	if h.Name == "" {
		h.Name = "a"
	}
	h.Type = '0'
	return func(f *Forge) { f.Block(h) }
}

var forgedBlocks = []Attack{
	{"a size in base 256", forgedFile(Header{Size: "\x80" + strings.Repeat("\x00", 10) + "\x01"}), "not an octal", nil},
	{"a negative size in base 256", forgedFile(Header{Size: strings.Repeat("\xff", 12)}), "not an octal", nil},
	{"an owner in base 256", forgedFile(Header{UID: "\x80\x00\x00\x00\x00\x00\x00\x01"}), "not an octal", nil},
	{"a time in base 256", forgedFile(Header{Time: strings.Repeat("\xff", 12)}), "not an octal", nil},
	{"a negative size", forgedFile(Header{Size: "-0000000001\x00"}), "not an octal", nil},
	{"a size with a digit 8", forgedFile(Header{Size: "00000000008\x00"}), "not an octal", nil},
	{"a blank size", forgedFile(Header{Size: "           \x00"}), "not an octal", nil},
	{"a mode with a file's type in it", forgedFile(Header{Mode: "0120777\x00"}), "mode", nil},
	{"a wrong checksum", forgedFile(Header{Sum: "000000\x00 "}), "checksum", nil},
	{"a checksum in base 256", forgedFile(Header{Sum: "\x80\x00\x00\x00\x00\x00\x00\x01"}), "checksum", nil},
	{"the magic of GNU tar", forgedFile(Header{Magic: "ustar  \x00"}), "POSIX header", nil},
	{"the magic of no tar", forgedFile(Header{Magic: strings.Repeat("\x00", 8)}), "POSIX header", nil},
	{"another version of ustar", forgedFile(Header{Magic: "ustar\x0001"}), "POSIX header", nil},
	{"a prefix", forgedFile(Header{Prefix: "../.."}), "prefix", nil},
	{"content on a directory", func(f *Forge) { f.Block(Header{Name: "a/", Type: '5', Size: Octal(512)}); f.Content("x") }, "of content", nil},
	{"content on a symlink", func(f *Forge) { f.Block(Header{Name: "a", Type: '2', Link: "b", Size: Octal(1)}); f.Content("x") }, "of content", nil},
	{"padding that is not zero", func(f *Forge) {
		f.Block(Header{Name: "a", Type: '0', Size: Octal(1)})
		f.WriteString("1" + strings.Repeat("x", 511))
	}, "padding", nil},
}

var forgedEnds = []Attack{
	{"a lone zero block", func(f *Forge) { f.Write(make([]byte, 512)); f.File("a", "1") }, "lone zero block", nil},
	{"one zero block and no more", func(f *Forge) { f.Cut = true; f.Write(make([]byte, 512)) }, "ends too early", nil},
	{"no end", func(f *Forge) { f.Cut = true }, "ends too early", nil},
	{"an archive after the end", func(f *Forge) { f.End(); f.Root(); f.File("a", "1") }, "after the end", nil},
	{"a byte after the end", func(f *Forge) { f.Cut = true; f.End(); f.WriteByte(0) }, "after the end", nil},
	{"nothing at all", func(f *Forge) { f.Reset(); f.Cut = true }, "ends too early", nil},
	{"no tar", func(f *Forge) { f.Reset(); f.WriteString(strings.Repeat("no tar at all. ", 1000)) }, "POSIX header", nil},
}

func sparse(realSize, holes, data string) func(*Forge) {
	return func(f *Forge) { f.Sparse("a", realSize, holes, data) }
}

var kib = strings.Repeat("x", 1024)

var forgedMaps = []Attack{
	{"stretches that overlap", sparse("4096", "2\n0\n1024\n512\n512\n", kib+kib[:512]), "not in order", nil},
	{"stretches in the wrong order", sparse("4096", "2\n2048\n512\n0\n512\n", kib), "not in order", nil},
	{"a stretch past the end", sparse("1024", "1\n512\n1024\n", kib), "not in order", nil},
	{"a stretch that begins past the end", sparse("1024", "1\n4096\n0\n", ""), "not in order", nil},
	{"a stretch whose end overflows", sparse("9223372036854775807", "1\n9223372036854775807\n1024\n", kib), "not in order", nil},
	{"more data than the map names", sparse("4096", "1\n0\n512\n", kib), "names 512 bytes", nil},
	{"less data than the map names", sparse("4096", "1\n0\n1024\n", kib[:512]), "names 1024 bytes", nil},
	{"a map of 10^18 stretches", sparse("4096", "1000000000000000000\n", ""), "extents", nil},
	{"a map of 65,537 stretches", sparse("4096", "65537\n", ""), "extents", nil},
	{"a map that is cut", sparse("4096", "60000\n0\n0\n", ""), "map", nil},
	{"a map of a negative count", sparse("4096", "-1\n", ""), "not a valid number", nil},
	{"a map of negative lengths", sparse("4096", "1\n0\n-512\n", ""), "not a valid number", nil},
	{"a map with leading zeros", sparse("4096", "01\n0\n0512\n", kib[:512]), "not a valid number", nil},
	{"a map of one endless number", sparse("4096", strings.Repeat("1", 600), ""), "malformed", nil},
	{"an empty line in a map", sparse("4096", "1\n\n512\n", kib[:512]), "not a valid number", nil},
	{"malformed", func(f *Forge) {
		f.Pax(Record("GNU.sparse.major", "1"), Record("GNU.sparse.minor", "0"), Record("GNU.sparse.name", "a"), Record("GNU.sparse.realsize", "9"))
		f.File("a", "")
	}, "map", nil},
	{"something after the map in its block", sparse("4096", "1\n0\n512\nevil", kib[:512]), "map", nil},
	{"a real size of -1", sparse("-1", "1\n0\n512\n", kib[:512]), "not a valid number", nil},
	{"100 TiB that take no space", sparse("109951162777600", "1\n109951162777600\n0\n", ""), "declared", nil},
	{"sparse format 0.1", paxFile(Record("GNU.sparse.major", "0"), Record("GNU.sparse.minor", "1")), "sparse format", nil},
	{"half of the sparse records", paxFile(Record("GNU.sparse.major", "1"), Record("GNU.sparse.minor", "0")), "incomplete", nil},
	{"a sparse name and a path", paxFile(Record("path", "b"), Record("GNU.sparse.major", "1"), Record("GNU.sparse.minor", "0"),
		Record("GNU.sparse.name", "a"), Record("GNU.sparse.realsize", "1")), "incomplete", nil},
	{"a sparse directory", func(f *Forge) {
		f.Pax(Record("GNU.sparse.major", "1"), Record("GNU.sparse.minor", "0"), Record("GNU.sparse.name", "a"), Record("GNU.sparse.realsize", "1"))
		f.Dir("a")
	}, "incomplete", nil},
	{"a sparse name with ..", func(f *Forge) { f.Sparse("../x", "512", "1\n0\n512\n", kib[:512]) }, "not a name", nil},
}

var forgedAmounts = []Attack{
	{"one entry too many", func(f *Forge) { f.File("a", ""); f.File("b", "") }, "2 entries", func(o *archive.ExtractOptions) { o.MaxEntries = 2 }},
	{"symlinks count", func(f *Forge) { f.Soft("a", "x"); f.Soft("b", "x") }, "2 entries", func(o *archive.ExtractOptions) { o.MaxEntries = 2 }},
	{"hardlinks count", func(f *Forge) { f.File("a", ""); f.Link("b", "a") }, "2 entries", func(o *archive.ExtractOptions) { o.MaxEntries = 2 }},
	{"one byte too many", func(f *Forge) { f.File("a", "1"); f.File("b", "23") }, "2 bytes", func(o *archive.ExtractOptions) { o.MaxBytes = 2 }},
	{"8 GiB declared in a header", forgedFile(Header{Size: "77777777777\x00"}), "bytes that were declared", nil},
	{"holes count as bytes", sparse("3", "1\n3\n0\n", ""), "2 bytes", func(o *archive.ExtractOptions) { o.MaxBytes = 2 }},
	{"one directory too deep", func(f *Forge) { f.Dir("a"); f.Dir("a/b"); f.Dir("a/b/c") }, "deeper", func(o *archive.ExtractOptions) { o.MaxDepth = 2 }},
	{"a name of 1,001 components", func(f *Forge) {
		name := ""
		for range 1001 {
			name += "d/"
			f.Pax(Record("path", name))
			f.Block(Header{Name: "x/", Type: '5'})
		}
	}, "1001 components", func(o *archive.ExtractOptions) { o.MaxDepth, o.MaxEntries = 5000, 5000 }},
	{"a name of a million components in one record", paxNamed(strings.Repeat("d/", 1<<19) + "x"), "components", nil},
}
