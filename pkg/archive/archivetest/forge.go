// Package archivetest forges tar archives. The tests of the extraction use them, and so
// do the tests of the whole command, which meet the same attacks in a forged store.
package archivetest

import (
	"bytes"
	"fmt"
	"strings"
)

// Header is one header block of a tar archive as a forger writes it. A field holds the
// bytes of the block as they are.
type Header struct {
	Name, Link, Prefix         string
	Mode, UID, GID, Size, Time string
	Magic, Sum                 string // Sum: "" for the true one
	Type                       byte
}

// Forge writes tar archives block by block. It shares no code with the package
// that reads them.
type Forge struct {
	bytes.Buffer
	Outside string // a directory outside the stage, with files passwd and dir/file
	Cut     bool   // no end is appended
}

// field fills in the defaults of a header.
func field(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// Block appends a header block.
func (f *Forge) Block(h Header) {
	b := make([]byte, 512)
	put := func(at, size int, s string) { copy(b[at:at+size], s) }
	put(0, 100, h.Name)
	put(100, 8, field(h.Mode, "0000644\x00"))
	put(108, 8, field(h.UID, "0000000\x00"))
	put(116, 8, field(h.GID, "0000000\x00"))
	put(124, 12, field(h.Size, "00000000000\x00"))
	put(136, 12, field(h.Time, "00000000001\x00"))
	b[156] = h.Type
	put(157, 100, h.Link)
	put(257, 8, field(h.Magic, "ustar\x0000"))
	put(345, 155, h.Prefix)
	if h.Sum == "" {
		sum := 8 * int(' ')
		for _, c := range b {
			sum += int(c)
		}
		h.Sum = fmt.Sprintf("%06o\x00 ", sum)
	}
	put(148, 8, h.Sum)
	f.Write(b)
}

// Octal returns a number in the form of a field of 12 bytes.
func Octal(n int) string { return fmt.Sprintf("%011o\x00", n) }

// Content appends data and pads it to a block.
func (f *Forge) Content(data string) {
	f.WriteString(data)
	f.Write(make([]byte, -len(data)&511))
}

// Root appends the root directory, with which an archive begins.
func (f *Forge) Root() { f.Block(Header{Name: "./", Type: '5', Mode: "0000755\x00"}) }

// Dir appends a directory.
func (f *Forge) Dir(name string) { f.Block(Header{Name: name + "/", Type: '5', Mode: "0000755\x00"}) }

// Link appends a hardlink.
func (f *Forge) Link(name, to string) { f.Block(Header{Name: name, Type: '1', Link: to}) }

// Soft appends a symbolic link.
func (f *Forge) Soft(name, to string) { f.Block(Header{Name: name, Type: '2', Link: to}) }

// End appends the two blocks that end an archive.
func (f *Forge) End() { f.Write(make([]byte, 1024)) }

// File appends a file with its content.
func (f *Forge) File(name, data string) {
	f.Block(Header{Name: name, Type: '0', Size: Octal(len(data))})
	f.Content(data)
}

// Record returns one pax record with the right length.
func Record(key, value string) string {
	rest := len(key) + len(value) + 3
	n := rest
	for len(fmt.Sprint(n))+rest != n {
		n = len(fmt.Sprint(n)) + rest
	}
	return fmt.Sprintf("%d %s=%s\n", n, key, value)
}

// Pax appends an extended header that holds the records.
func (f *Forge) Pax(records ...string) {
	data := strings.Join(records, "")
	f.Block(Header{Name: "pax", Type: 'x', Size: Octal(len(data))})
	f.Content(data)
}

// Sparse appends a sparse file in GNU's format 1.0: the map as text, then data.
func (f *Forge) Sparse(name, realSize, holes, data string) {
	f.Pax(Record("GNU.sparse.major", "1"), Record("GNU.sparse.minor", "0"),
		Record("GNU.sparse.name", name), Record("GNU.sparse.realsize", realSize))
	body := holes + strings.Repeat("\x00", -len(holes)&511) + data
	f.Block(Header{Name: name, Type: '0', Size: Octal(len(body))})
	f.Content(body)
}

// EveryKind returns a small archive with an entry of every kind.
func EveryKind() []byte {
	f := &Forge{}
	f.Root()
	f.Dir("d")
	f.Pax(Record("path", "d/"+strings.Repeat("n", 200)), Record("SCHILY.xattr.user.a", "v"))
	f.File("x", strings.Repeat("content\n", 200))
	f.Sparse("sparse", "65536", "2\n4096\n512\n8192\n512\n", kib)
	f.File("a", "1")
	f.Link("hard", "a")
	f.Soft("soft", "a")
	f.End()
	return f.Bytes()
}
