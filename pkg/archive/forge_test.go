package archive_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// header is one header block of a tar archive as a forger writes it: a field is
// what stands in the block, byte for byte.
type header struct {
	name, link, prefix         string
	mode, uid, gid, size, time string
	magic, sum                 string // sum: "" for the true one
	typ                        byte
}

// forge writes tar archives block by block. It shares no code with the package.
type forge struct {
	bytes.Buffer
	outside string // a directory outside the stage, with files passwd and dir/file
	cut     bool   // no end is appended
}

// field fills in a header's defaults.
func field(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

func (f *forge) block(h header) {
	b := make([]byte, 512)
	put := func(at, size int, s string) { copy(b[at:at+size], s) }
	put(0, 100, h.name)
	put(100, 8, field(h.mode, "0000644\x00"))
	put(108, 8, field(h.uid, "0000000\x00"))
	put(116, 8, field(h.gid, "0000000\x00"))
	put(124, 12, field(h.size, "00000000000\x00"))
	put(136, 12, field(h.time, "00000000001\x00"))
	b[156] = h.typ
	put(157, 100, h.link)
	put(257, 8, field(h.magic, "ustar\x0000"))
	put(345, 155, h.prefix)
	if h.sum == "" {
		sum := 8 * int(' ')
		for _, c := range b {
			sum += int(c)
		}
		h.sum = fmt.Sprintf("%06o\x00 ", sum)
	}
	put(148, 8, h.sum)
	f.Write(b)
}

func octal(n int) string { return fmt.Sprintf("%011o\x00", n) }

// content appends data and fills up the block.
func (f *forge) content(data string) {
	f.WriteString(data)
	f.Write(make([]byte, -len(data)&511))
}

func (f *forge) root()             { f.block(header{name: "./", typ: '5', mode: "0000755\x00"}) }
func (f *forge) dir(name string)   { f.block(header{name: name + "/", typ: '5', mode: "0000755\x00"}) }
func (f *forge) end()              { f.Write(make([]byte, 1024)) }
func (f *forge) link(n, to string) { f.block(header{name: n, typ: '1', link: to}) }
func (f *forge) soft(n, to string) { f.block(header{name: n, typ: '2', link: to}) }

func (f *forge) file(name, data string) {
	f.block(header{name: name, typ: '0', size: octal(len(data))})
	f.content(data)
}

// record is one pax record with its true length.
func record(key, value string) string {
	rest := len(key) + len(value) + 3
	n := rest
	for len(fmt.Sprint(n))+rest != n {
		n = len(fmt.Sprint(n)) + rest
	}
	return fmt.Sprintf("%d %s=%s\n", n, key, value)
}

// pax appends an extended header that holds the records.
func (f *forge) pax(records ...string) {
	data := strings.Join(records, "")
	f.block(header{name: "pax", typ: 'x', size: octal(len(data))})
	f.content(data)
}

// sparse appends a sparse file in GNU's format 1.0: the map as text, then data.
func (f *forge) sparse(name, realSize, holes, data string) {
	f.pax(record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0"),
		record("GNU.sparse.name", name), record("GNU.sparse.realsize", realSize))
	body := holes + strings.Repeat("\x00", -len(holes)&511) + data
	f.block(header{name: name, typ: '0', size: octal(len(body))})
	f.content(body)
}

// sandbox makes a stage with canaries all around it, and returns the stage, the
// directory that hostile names and links are aimed at, and a check that nothing
// but the stage has changed.
func sandbox(t *testing.T) (stage, outside string, untouched func()) {
	t.Helper()
	box := t.TempDir()
	disktest.Write(t, box, map[string]string{
		"passwd": "canary", "x": "canary", "a/b": "canary", "etc/passwd": "root:canary", "etc/dir/file": "canary",
		"etc/shadow": "canary", "stage/": "", "stage-sibling/file": "canary",
	})
	around := func() []string {
		var lines []string
		for _, line := range disktest.Tree(t, box) {
			if !strings.HasPrefix(line, `"stage/`) && !strings.HasPrefix(line, `"stage" `) {
				lines = append(lines, line)
			}
		}
		return lines
	}
	before := around()
	return box + "/stage", box + "/etc", func() {
		t.Helper()
		disktest.Same(t, "around the stage", before, around())
	}
}
