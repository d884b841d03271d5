package archivetest

import (
	"bytes"
	"fmt"
	"strings"
)

// Dialect is an archive as another program writes it, or once did: honest, and not as
// snap would write it. GNU tar reads each.
type Dialect struct {
	Name string
	Tar  []byte
}

const record = 20 * 512

// Dialects are the ways in which other tars say what they say.
func Dialects() []Dialect {
	var list []Dialect
	for _, d := range []struct {
		name string
		make func(*Forge)
	}{
		{"a contiguous file", func(f *Forge) { f.Block(Header{Name: "c", Type: '7', Size: Octal(5)}); f.Content("hello") }},
		{"a checksum of signed bytes", signed},
		{"names with several ./", func(f *Forge) { f.Dir("././d"); f.File("././d/x", "1"); f.Link("./././h", "./d/x") }},
		{"a root called /", func(f *Forge) {
			f.Block(Header{Name: "/", Type: '5', Mode: "0000750\x00", Time: Octal(99)})
			f.File("x", "1")
		}},
		{"a root without a name", func(f *Forge) {
			f.Block(Header{Name: "", Type: '5', Mode: "0000711\x00"})
			f.File("x", "1")
		}},
		{"a root called ././", func(f *Forge) { f.Block(Header{Name: "././", Type: '5', Mode: "0000750\x00"}); f.File("x", "1") }},
		{"the root twice", func(f *Forge) { f.Root(); f.Block(Header{Name: ".", Type: '5', Mode: "0000711\x00", Time: Octal(8)}) }},
		{"a label", func(f *Forge) { f.Block(label("the tape: /of/./Monday")); f.File("x", "1") }},
		{"a label for all entries", func(f *Forge) { f.Global(Record("GNU.volume.label", "Monday")); f.File("x", "1") }},
		{"what was in a directory", func(f *Forge) {
			f.Block(Header{Name: "d/", Type: 'D', Magic: "ustar  \x00", Mode: "0000755\x00", Size: Octal(8)})
			f.Content("Yx\x00Nold\x00")
			f.File("d/x", "1")
		}},
		{"what was in a directory, as a record", func(f *Forge) { f.Pax(Record("GNU.dumpdir", "Yx\x00\x00")); f.Dir("d"); f.File("d/x", "1") }},
		{"two headers for all entries", func(f *Forge) {
			f.Global(Record("mtime", "11"), Record("gid", "5"))
			f.File("x", "1")
			f.Global(Record("uid", "7"), Record("comment", "of git"))
			f.File("y", "1")
			f.Pax(Record("uid", "8"))
			f.File("z", "1")
		}},
		{"records after records", func(f *Forge) { f.Pax(Record("mtime", "11")); f.Pax(Record("uid", "7")); f.File("x", "1") }},
		{"records of Solaris", func(f *Forge) {
			records := Record("mtime", "11.25")
			f.Block(Header{Name: "pax", Type: 'X', Size: Octal(len(records))})
			f.Content(records)
			f.File("x", "1")
		}},
		{"a record twice", func(f *Forge) { f.Pax(Record("path", "x"), Record("path", "y")); f.File("z", "1") }},
		{"a directory twice", func(f *Forge) {
			f.Pax(Record("SCHILY.xattr.user.a", "1"))
			f.Block(Header{Name: "d/", Type: '5', Mode: "0000700\x00", UID: "0000001\x00"})
			f.File("d/x", "1")
			f.Pax(Record("SCHILY.xattr.user.b", "2"))
			f.Block(Header{Name: "d", Type: '5', Mode: "0000755\x00", GID: "0000002\x00", Time: Octal(3)})
		}},
		{"a directory with an ACL, and again without", func(f *Forge) {
			f.Pax(Record("SCHILY.acl.access", "user::rwx,user:1234:r--,group::r-x,mask::rwx,other::---"))
			f.Dir("d")
			f.Dir("d")
		}},
		{"records before a label", func(f *Forge) { f.Pax(Record("mtime", "11")); f.Block(label("tape")); f.File("x", "1") }},
		{"a directory after what is in it", func(f *Forge) {
			f.File("d/e/x", "1")
			f.Block(Header{Name: "d/e/", Type: '5', Mode: "0000711\x00"})
			f.Dir("d")
		}},
		{"hardlinks to a symlink", func(f *Forge) {
			f.Block(Header{Name: "s", Type: '2', Link: "nowhere", UID: "0000003\x00", Time: Octal(7)})
			f.Block(Header{Name: "h", Type: '1', Link: "s", UID: "0000004\x00", Time: Octal(9)})
			f.Link("i", "h")
		}},
		{"a hardlink to itself", func(f *Forge) { f.File("a", "1"); f.Link("a", "a"); f.Soft("s", "a"); f.Link("s", "./s") }},
		{"a size on what has no content", func(f *Forge) {
			f.File("a", "hello")
			f.Block(Header{Name: "h", Type: '1', Link: "a", Size: Octal(5)})
			f.Pax(Record("size", "600"))
			f.Link("i", "a")
			f.Block(Header{Name: "s", Type: '2', Link: "a", Size: Octal(1)})
			f.Block(Header{Name: "d/", Type: '5', Mode: "0000755\x00", Size: Octal(4096)})
			f.File("z", "z")
		}},
		{"a directory of an old tar", func(f *Forge) {
			f.Block(Header{Name: "d/", Type: 0, Magic: strings.Repeat("\x00", 8), Mode: "0000755\x00"})
			f.File("d/x", "1")
		}},
		{"numbers in base 256", func(f *Forge) {
			f.Block(Header{Name: "a", Type: '0', Magic: "ustar  \x00", UID: "\x80\x00\x00\x00\x00\xff\xff\xff", Time: strings.Repeat("\xff", 12), Size: "\x80" + strings.Repeat("\x00", 10) + "\x01"})
			f.Content("1")
		}},
		{"numbers after blanks", func(f *Forge) {
			f.Block(Header{Name: "a", Type: '0', Mode: "   644 \x00", UID: "     1 \x00", Size: "          1 ", Time: "         17 "})
			f.Content("1")
		}},
		{"long names of GNU", func(f *Forge) {
			long := strings.Repeat("d/", 60) + strings.Repeat("n", 100)
			f.gnuLong('L', long+"\x00")
			f.File("short", "1")
			f.gnuLong('K', long+"\x00")
			f.gnuLong('L', strings.Repeat("h", 101)+"\x00")
			f.Link("h", "short")
		}},
		{"a prefix", func(f *Forge) { f.Block(Header{Name: "x", Prefix: "d/e", Type: '0'}) }},
		{"times before 1970 and finer than nanoseconds", func(f *Forge) {
			f.Pax(Record("mtime", "-1.5"))
			f.File("x", "1")
			f.Pax(Record("mtime", "1.99999999999"))
			f.File("y", "1")
			f.Pax(Record("mtime", "-0.00000000001"))
			f.File("z", "1")
		}},
		{"ACLs in text form", func(f *Forge) {
			f.Pax(Record("SCHILY.acl.access", "user::rwx,user:1234:r--,group::r-x,group:7:rw-,mask::rwx,other::---"),
				Record("SCHILY.acl.default", "user::rwx\nuser:8:rwx\ngroup::r-x\nmask::r-x\nother::r-x\n"))
			f.Dir("d")
			f.Pax(Record("SCHILY.acl.access", "other::r--,mask::r--,group::r--,user:1:r--,user::rw-"))
			f.File("d/x", "1")
			f.Pax(Record("SCHILY.acl.access", "user::rw-,group::r--,other::r--"))
			f.File("d/y", "1")
		}},
		{"an attribute with a percent sign", func(f *Forge) { f.Pax(Record("SCHILY.xattr.user.a%3Db", "v")); f.File("x", "1") }},
		{"a sparse file of GNU's own format", oldSparse},
		{"a sparse file of format 0.0", func(f *Forge) {
			f.Pax(Record("GNU.sparse.size", "1048576"), Record("GNU.sparse.numblocks", "2"), Record("GNU.sparse.offset", "4096"), Record("GNU.sparse.numbytes", "512"),
				Record("GNU.sparse.offset", "1048576"), Record("GNU.sparse.numbytes", "0"))
			f.File("s", kib[:512])
		}},
		{"a sparse file of format 0.1", func(f *Forge) {
			f.Pax(Record("GNU.sparse.size", "1048576"), Record("GNU.sparse.numblocks", "2"), Record("GNU.sparse.name", "s"), Record("GNU.sparse.map", "0,512,1048064,512"))
			f.File("GNUSparseFile.1/s", kib)
		}},
		{"a sparse file of format 1.0", func(f *Forge) { f.Sparse("s", "1048576", "2\n4096\n512\n1048576\n0\n", kib[:512]) }},
		{"a file of zeros alone", func(f *Forge) { f.File("z", strings.Repeat("\x00", 5000)) }},
	} {
		f := &Forge{}
		d.make(f)
		f.End()
		list = append(list, Dialect{d.name, f.Bytes()})
	}
	return append(list, rests()...)
}

// rests are archives whose last record is full of what a tar did not clear.
func rests() []Dialect {
	f := &Forge{}
	for i := range 30 {
		f.File(fmt.Sprint("file", i), strings.Repeat("content", i))
	}
	body := f.Bytes()
	padded := func(rest func(before []byte) byte) []byte {
		out := append(bytes.Clone(body), make([]byte, 1024)...)
		for len(out)%record != 0 {
			out = append(out, rest(out))
		}
		return out
	}
	return []Dialect{
		{"garbage in the last record", padded(func(before []byte) byte { return byte(len(before)) | 1 })},
		{"what the record before had in the last record", padded(func(before []byte) byte { return before[len(before)-record] })},
		{"records of zeros after it", append(padded(func([]byte) byte { return 0 }), make([]byte, 5*record+1)...)},
	}
}

func label(text string) Header {
	return Header{Name: text, Type: 'V', Magic: strings.Repeat("\x00", 8), Mode: "\x00", UID: "\x00", GID: "\x00", Size: "\x00"}
}

// Global appends a header for all entries that follow.
func (f *Forge) Global(records ...string) {
	data := strings.Join(records, "")
	f.Block(Header{Name: "g", Type: 'g', Size: Octal(len(data))})
	f.Content(data)
}

func (f *Forge) gnuLong(typ byte, name string) {
	f.Block(Header{Name: "././@LongLink", Type: typ, Magic: "ustar  \x00", Size: Octal(len(name))})
	f.Content(name)
}

// signed appends a file whose checksum counts bytes above 127 as negative.
func signed(f *Forge) {
	at := f.Len()
	f.Block(Header{Name: "\xe9t\xe9", Type: '0', Size: Octal(1)})
	sum := 8 * int(' ')
	for i, c := range f.Bytes()[at:] {
		if i < 148 || i >= 156 {
			sum += int(int8(c))
		}
	}
	copy(f.Bytes()[at+148:], fmt.Sprintf("%06o\x00 ", sum))
	f.Content("1")
}

// oldSparse appends a sparse file with more extents than the header has room for.
func oldSparse(f *Forge) {
	at := f.Len()
	const extents, step = 30, 8192
	f.Block(Header{Name: "s", Type: 'S', Magic: "ustar  \x00", Size: Octal((extents - 1) * 512)})
	extent := func(i int) string {
		if i == extents-1 { // the end, after a hole
			return Octal(i*step) + Octal(0)
		}
		return Octal(i*step) + Octal(512)
	}
	b := f.Bytes()[at:]
	for i := range 4 {
		copy(b[386+24*i:], extent(i))
	}
	b[482] = 1
	copy(b[483:], Octal((extents-1)*step))
	sum := 8 * int(' ')
	for i, c := range b {
		if i < 148 || i >= 156 {
			sum += int(c)
		}
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	for i := 4; i < extents; i += 21 {
		var more bytes.Buffer
		for j := i; j < min(i+21, extents); j++ {
			more.WriteString(extent(j))
		}
		ext := make([]byte, 512)
		copy(ext, more.Bytes())
		if i+21 < extents {
			ext[504] = 1
		}
		f.Write(ext)
	}
	f.Content(strings.Repeat(kib[:512], extents-1))
}
