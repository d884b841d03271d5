package archive_test

import (
	"strings"

	"github.com/tiny-forge/snap/pkg/archive"
)

// paxFile is a small file behind the given pax records.
func paxFile(records ...string) func(*forge) {
	return func(f *forge) { f.pax(records...); f.file("a", "1") }
}

// paxEmpty is the same with an empty file.
func paxEmpty(records ...string) func(*forge) {
	return func(f *forge) { f.pax(records...); f.file("a", "") }
}

func rawPax(data string) func(*forge) {
	return func(f *forge) {
		f.block(header{name: "pax", typ: 'x', size: octal(len(data))})
		f.content(data)
		f.file("a", "1")
	}
}

var forgedPax = []attack{
	{"a size record that agrees", paxFile(record("size", "1")), "size", nil},
	{"a size record that hides an entry", func(f *forge) {
		f.pax(record("size", "1024"))
		f.file("a", "1")
		f.file("hidden", "2")
	}, "size", nil},
	{"a size record that shows content as an entry", func(f *forge) {
		var inner forge
		inner.file("hidden", "evil")
		f.pax(record("size", "0"))
		f.file("a", inner.String())
	}, "size", nil},
	{"a size record on a directory", func(f *forge) { f.pax(record("size", "512")); f.dir("a"); f.content("x") }, "size", nil},
	{"a size of zero on a directory that has one", func(f *forge) {
		f.pax(record("size", "0"))
		f.block(header{name: "a/", typ: '5', size: octal(512)})
	}, "size", nil},
	{"a size of -1", paxEmpty(record("size", "-1")), "not a number", nil},
	{"a size of +1", paxEmpty(record("size", "+1")), "not a number", nil},
	{"a size of 2^63", paxEmpty(record("size", "9223372036854775808")), "not a number", nil},
	{"a size of 2^64+1", paxEmpty(record("size", "18446744073709551617")), "not a number", nil},
	{"a size of 2^63-1", func(f *forge) { f.pax(record("size", "9223372036854775807")); f.file("a", "") }, "announced", nil},
	{"a size with leading zeros", paxEmpty(record("size", "01")), "not a number", nil},
	{"a size in hexadecimal", paxEmpty(record("size", "0x1")), "not a number", nil},
	{"an empty size", paxEmpty(record("size", "")), "not a number", nil},
	{"a size with a blank", paxEmpty(record("size", " 1")), "not a number", nil},
	{"the same record twice", paxFile(record("path", "a"), record("path", "b")), "twice", nil},
	{"an unknown record", paxFile(record("comment", "x")), "pax record", nil},
	{"a device record", paxFile(record("SCHILY.devmajor", "1")), "pax record", nil},
	{"a charset record", paxFile(record("hdrcharset", "BINARY")), "pax record", nil},
	{"an owner's name", paxFile(record("uname", "root")), "pax record", nil},
	{"an old sparse map", paxFile(record("GNU.sparse.map", "0,1")), "pax record", nil},
	{"an attribute of a security module", paxFile(record("SCHILY.xattr.security.selinux", "x")), "extended attribute", nil},
	{"an attribute of the system", paxFile(record("SCHILY.xattr.system.evil", "x")), "extended attribute", nil},
	{"an attribute without a name", paxFile(record("SCHILY.xattr.", "x")), "extended attribute", nil},
	{"an attribute named user.", paxFile(record("SCHILY.xattr.user.", "x")), "user.", nil},
	{"an attribute of 300 letters", paxFile(record("SCHILY.xattr.user."+strings.Repeat("a", 300), "x")), "extended attribute", nil},
	{"an attribute of 70 KiB", paxFile(record("SCHILY.xattr.user.a", strings.Repeat("a", 70<<10))), "user.a", nil},
	{"an ACL that is none", paxFile(record("SCHILY.xattr.system.posix_acl_access", "x")), "posix_acl_access", nil},
	{"a default ACL on a file", paxFile(record("SCHILY.xattr.system.posix_acl_default", "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff")), "posix_acl_default", nil},
	{"an attribute written in two ways", paxFile(record("SCHILY.xattr.user.%25", "x"), record("SCHILY.xattr.user.%", "y")), "pax record", nil},
	{"a record of length 0", rawPax("0 path=x\n"), "length is wrong", nil},
	{"a record shorter than it says", rawPax("99 path=x\n"), "length is wrong", nil},
	{"a record longer than it says", rawPax("9 path=xxxx\n"), "malformed", nil},
	{"a record whose length has a zero in front", rawPax("010 path=x\n"), "length is wrong", nil},
	{"a record whose length is negative", rawPax("-10 path=x\n"), "length is wrong", nil},
	{"a record of 2^32+10 bytes", rawPax("4294967306 path=x\n"), "length is wrong", nil},
	{"a record of 2^64+10 bytes", rawPax("18446744073709551626 path=x\n"), "length is wrong", nil},
	{"a record without a length", rawPax(" path=x\n"), "length is wrong", nil},
	{"a record that is its length alone", rawPax("2 "), "length is wrong", nil},
	{"a record without =", rawPax("8 pathx\n"), "malformed", nil},
	{"a record without a key", rawPax("5 =x\n"), "malformed", nil},
	{"a record without its newline", rawPax("9 path=xy"), "malformed", nil},
	{"records that are one NUL", rawPax("\x00"), "length is wrong", nil},
	{"no records", func(f *forge) { f.block(header{name: "pax", typ: 'x'}); f.file("a", "1") }, "pax records of 0", nil},
	{"records of 8 GiB", func(f *forge) { f.block(header{name: "pax", typ: 'x', size: "77777777777\x00"}) }, "pax records of", nil},
	{"records behind records", func(f *forge) { f.pax(record("path", "a")); paxFile(record("path", "b"))(f) }, "type 'x'", nil},
	{"records and then the end", func(f *forge) { f.pax(record("path", "a")) }, "header", nil},
	{"a time that is no number", paxFile(record("mtime", "nan")), "not a time", nil},
	{"a time with an exponent", paxFile(record("mtime", "1e9")), "not a time", nil},
	{"a time finer than nanoseconds", paxFile(record("mtime", "1.0000000001")), "not a time", nil},
	{"a time with two signs", paxFile(record("mtime", "--1")), "not a time", nil},
	{"a time with a sign behind the point", paxFile(record("mtime", "1.-5")), "not a time", nil},
	{"a time of 2^64", paxFile(record("mtime", "18446744073709551616")), "not a time", nil},
	{"the owner -1", paxFile(record("uid", "4294967295")), "not a number", nil},
	{"the owner -1, with a sign", paxFile(record("uid", "-1")), "not a number", nil},
	{"the group 2^32", paxFile(record("gid", "4294967296")), "not a number", nil},
}

func forgedFile(h header) func(*forge) {
	if h.name == "" {
		h.name = "a"
	}
	h.typ = '0'
	return func(f *forge) { f.block(h) }
}

var forgedBlocks = []attack{
	{"a size in base 256", forgedFile(header{size: "\x80" + strings.Repeat("\x00", 10) + "\x01"}), "not an octal", nil},
	{"a negative size in base 256", forgedFile(header{size: strings.Repeat("\xff", 12)}), "not an octal", nil},
	{"an owner in base 256", forgedFile(header{uid: "\x80\x00\x00\x00\x00\x00\x00\x01"}), "not an octal", nil},
	{"a time in base 256", forgedFile(header{time: strings.Repeat("\xff", 12)}), "not an octal", nil},
	{"a negative size", forgedFile(header{size: "-0000000001\x00"}), "not an octal", nil},
	{"a size with a digit 8", forgedFile(header{size: "00000000008\x00"}), "not an octal", nil},
	{"a blank size", forgedFile(header{size: "           \x00"}), "not an octal", nil},
	{"a mode with a file's type in it", forgedFile(header{mode: "0120777\x00"}), "mode", nil},
	{"a wrong checksum", forgedFile(header{sum: "000000\x00 "}), "checksum", nil},
	{"a checksum in base 256", forgedFile(header{sum: "\x80\x00\x00\x00\x00\x00\x00\x01"}), "checksum", nil},
	{"the magic of GNU tar", forgedFile(header{magic: "ustar  \x00"}), "POSIX header", nil},
	{"the magic of no tar", forgedFile(header{magic: strings.Repeat("\x00", 8)}), "POSIX header", nil},
	{"another version of ustar", forgedFile(header{magic: "ustar\x0001"}), "POSIX header", nil},
	{"a prefix", forgedFile(header{prefix: "../.."}), "prefix", nil},
	{"content on a directory", func(f *forge) { f.block(header{name: "a/", typ: '5', size: octal(512)}); f.content("x") }, "of content", nil},
	{"content on a symlink", func(f *forge) { f.block(header{name: "a", typ: '2', link: "b", size: octal(1)}); f.content("x") }, "of content", nil},
	{"padding that is not zero", func(f *forge) {
		f.block(header{name: "a", typ: '0', size: octal(1)})
		f.WriteString("1" + strings.Repeat("x", 511))
	}, "padding", nil},
}

var forgedEnds = []attack{
	{"a lone zero block", func(f *forge) { f.Write(make([]byte, 512)); f.file("a", "1") }, "lone zero block", nil},
	{"one zero block and no more", func(f *forge) { f.cut = true; f.Write(make([]byte, 512)) }, "ends in the middle", nil},
	{"no end", func(f *forge) { f.cut = true }, "ends in the middle", nil},
	{"an archive behind the end", func(f *forge) { f.end(); f.root(); f.file("a", "1") }, "behind the end", nil},
	{"a byte behind the end", func(f *forge) { f.cut = true; f.end(); f.WriteByte(0) }, "behind the end", nil},
	{"nothing at all", func(f *forge) { f.Reset(); f.cut = true }, "ends in the middle", nil},
	{"no tar", func(f *forge) { f.Reset(); f.WriteString(strings.Repeat("no tar at all. ", 1000)) }, "POSIX header", nil},
}

func sparse(realSize, holes, data string) func(*forge) {
	return func(f *forge) { f.sparse("a", realSize, holes, data) }
}

var kib = strings.Repeat("x", 1024)

var forgedMaps = []attack{
	{"stretches that overlap", sparse("4096", "2\n0\n1024\n512\n512\n", kib+kib[:512]), "not in order", nil},
	{"stretches in the wrong order", sparse("4096", "2\n2048\n512\n0\n512\n", kib), "not in order", nil},
	{"a stretch past the end", sparse("1024", "1\n512\n1024\n", kib), "not in order", nil},
	{"a stretch that begins past the end", sparse("1024", "1\n4096\n0\n", ""), "not in order", nil},
	{"a stretch whose end overflows", sparse("9223372036854775807", "1\n9223372036854775807\n1024\n", kib), "not in order", nil},
	{"more data than the map names", sparse("4096", "1\n0\n512\n", kib), "names 512 bytes", nil},
	{"less data than the map names", sparse("4096", "1\n0\n1024\n", kib[:512]), "names 1024 bytes", nil},
	{"a map of 10^18 stretches", sparse("4096", "1000000000000000000\n", ""), "stretches", nil},
	{"a map of 65,537 stretches", sparse("4096", "65537\n", ""), "stretches", nil},
	{"a map that is cut", sparse("4096", "60000\n0\n0\n", ""), "map", nil},
	{"a map of a negative count", sparse("4096", "-1\n", ""), "not a number", nil},
	{"a map of negative lengths", sparse("4096", "1\n0\n-512\n", ""), "not a number", nil},
	{"a map with leading zeros", sparse("4096", "01\n0\n0512\n", kib[:512]), "not a number", nil},
	{"a map of one endless number", sparse("4096", strings.Repeat("1", 600), ""), "no map", nil},
	{"an empty line in a map", sparse("4096", "1\n\n512\n", kib[:512]), "not a number", nil},
	{"no map", func(f *forge) {
		f.pax(record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0"), record("GNU.sparse.name", "a"), record("GNU.sparse.realsize", "9"))
		f.file("a", "")
	}, "map", nil},
	{"something behind the map in its block", sparse("4096", "1\n0\n512\nevil", kib[:512]), "map", nil},
	{"a real size of -1", sparse("-1", "1\n0\n512\n", kib[:512]), "not a number", nil},
	{"100 TiB that take no space", sparse("109951162777600", "1\n109951162777600\n0\n", ""), "announced", nil},
	{"sparse format 0.1", paxFile(record("GNU.sparse.major", "0"), record("GNU.sparse.minor", "1")), "sparse format", nil},
	{"half of the sparse records", paxFile(record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0")), "incomplete", nil},
	{"a sparse name and a path", paxFile(record("path", "b"), record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0"),
		record("GNU.sparse.name", "a"), record("GNU.sparse.realsize", "1")), "incomplete", nil},
	{"a sparse directory", func(f *forge) {
		f.pax(record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0"), record("GNU.sparse.name", "a"), record("GNU.sparse.realsize", "1"))
		f.dir("a")
	}, "incomplete", nil},
	{"a sparse name with ..", func(f *forge) { f.sparse("../x", "512", "1\n0\n512\n", kib[:512]) }, "not a name", nil},
}

var forgedAmounts = []attack{
	{"one entry too many", func(f *forge) { f.file("a", ""); f.file("b", "") }, "2 entries", func(o *archive.ExtractOptions) { o.MaxEntries = 2 }},
	{"symlinks count", func(f *forge) { f.soft("a", "x"); f.soft("b", "x") }, "2 entries", func(o *archive.ExtractOptions) { o.MaxEntries = 2 }},
	{"hardlinks count", func(f *forge) { f.file("a", ""); f.link("b", "a") }, "2 entries", func(o *archive.ExtractOptions) { o.MaxEntries = 2 }},
	{"one byte too many", func(f *forge) { f.file("a", "1"); f.file("b", "23") }, "2 bytes", func(o *archive.ExtractOptions) { o.MaxBytes = 2 }},
	{"8 GiB announced in a header", forgedFile(header{size: "77777777777\x00"}), "bytes that were announced", nil},
	{"holes count as bytes", sparse("3", "1\n3\n0\n", ""), "2 bytes", func(o *archive.ExtractOptions) { o.MaxBytes = 2 }},
	{"one directory too deep", func(f *forge) { f.dir("a"); f.dir("a/b"); f.dir("a/b/c") }, "deeper", func(o *archive.ExtractOptions) { o.MaxDepth = 2 }},
	{"a name of 1,001 components", func(f *forge) {
		name := ""
		for range 1001 {
			name += "d/"
			f.pax(record("path", name))
			f.block(header{name: "x/", typ: '5'})
		}
	}, "1001 components", func(o *archive.ExtractOptions) { o.MaxDepth, o.MaxEntries = 5000, 5000 }},
	{"a name of a million components in one record", paxNamed(strings.Repeat("d/", 1<<19) + "x"), "components", nil},
}
