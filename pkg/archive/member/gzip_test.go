package member

import (
	"bytes"
	stdflate "compress/flate"
	stdgzip "compress/gzip"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
)

// plains returns contents of members: text, zeros, noise, runs, and repetitions at many
// distances.
func plains() map[string][]byte {
	r := rand.New(rand.NewPCG(7, 8))
	noise := make([]byte, PieceSize)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(noise)
	var text bytes.Buffer
	for i := range 20_000 {
		fmt.Fprintf(&text, `{"id":%d,"name":"%x","tags":[%d,%d]}`+"\n", i, r.Uint32(), r.IntN(9), r.IntN(1000))
	}
	all := map[string][]byte{
		"one byte": {42}, "two bytes": {1, 2}, "text": text.Bytes(), "noise": noise, "short noise": noise[:300],
		"a stored block to its end": noise[:65535], "one byte more": noise[:65536],
		"zeros": make([]byte, PieceSize), "text and noise": append(bytes.Clone(text.Bytes()[:100_000]), noise[:100_000]...),
	}
	for back := 1; back <= 40; back++ {
		var b []byte
		for len(b) < 20_000 {
			b = append(b, bytes.Repeat(noise[len(b):len(b)+back], 2+r.IntN(300/back+1))...)
		}
		all[fmt.Sprintf("repetitions %d bytes back", back)] = b
	}
	var skewed []byte // bytes whose codes get as long as codes may
	for i, n := 0, 1; i < 22; i, n = i+1, n*2 {
		skewed = append(skewed, bytes.Repeat([]byte{byte(i)}, n/2+1)...)
	}
	r.Shuffle(len(skewed), func(i, j int) { skewed[i], skewed[j] = skewed[j], skewed[i] })
	all["long codes"] = skewed[:PieceSize]
	return all
}

// packers returns compressors whose members a store may hold.
func packers() map[string]func(plain []byte) []byte {
	all := map[string]func([]byte) []byte{"snap": func(plain []byte) []byte { return deflateGzip(nil, plain) }}
	type writer interface {
		io.Writer
		Close() error
	}
	pack := func(name string, level int, open func(io.Writer, int) (writer, error)) {
		all[fmt.Sprintf("%s at %d", name, level)] = func(plain []byte) []byte {
			var out bytes.Buffer
			w, err := open(&out, level)
			if err != nil {
				panic(err)
			}
			_, _ = w.Write(plain)
			_ = w.Close()
			return out.Bytes()
		}
	}
	for level := stdflate.HuffmanOnly; level <= stdflate.BestCompression; level++ {
		pack("library", level, func(to io.Writer, level int) (writer, error) { return gzip.NewWriterLevel(to, level) })
		pack("standard library", level, func(to io.Writer, level int) (writer, error) { return stdgzip.NewWriterLevel(to, level) })
	}
	return all
}

// dirty returns memory that has been used. Nothing may rely on its being zero.
func dirty(n int64) []byte { return bytes.Repeat([]byte{0xa5}, int(n))[:0] }

// A gzip member is inflated whichever program compressed it.
func TestAMemberOfAnyCompressorIsInflated(t *testing.T) {
	all := plains()
	for packer, pack := range packers() {
		for name, plain := range all {
			if packer != "snap" { // of the others a whole piece would only take longer
				plain = plain[:min(len(plain), 150_000)]
			}
			data := pack(plain)
			got, err := inflate(data, int64(len(plain)))
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%s, compressed by %s: error %v, the content is right: %v", name, packer, err, bytes.Equal(got, plain))
			}
		}
	}
}

// A member that is damaged, truncated, longer or shorter than declared is inflated where
// the standard library inflates it, and to the same content.
func TestADamagedMemberIsJudgedAsByTheStandardLibrary(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	pack := packers()
	for name, plain := range plains() {
		plain = plain[:min(len(plain), 10_000)]
		for _, packer := range []string{"snap", "library at 9", "standard library at -2", "standard library at 1"} {
			good := pack[packer](plain)
			size := int64(len(plain))
			agree := func(what string, data []byte, size int64) {
				t.Helper()
				if err := agrees(data, size); err != nil {
					t.Errorf("%s, compressed by %s, %s: %v", name, packer, what, err)
				}
			}
			agree("as it is", good, size)
			agree("with a byte after it", append(bytes.Clone(good), 0), size)
			agree("twice", append(bytes.Clone(good), good...), 2*size)
			agree("a byte short of what is declared", good, size+1)
			if size > 1 {
				agree("a byte past what is declared", good, size-1)
			}
			for cut := range min(40, len(good)) {
				agree(fmt.Sprintf("cut to %d bytes", cut), good[:cut], size)
				agree(fmt.Sprintf("cut by %d bytes", cut), good[:len(good)-cut], size)
			}
			for range 40 {
				bad := bytes.Clone(good)
				at, bit := r.IntN(len(bad)), r.IntN(8)
				bad[at] ^= 1 << bit
				agree(fmt.Sprintf("bit %d of byte %d flipped", bit, at), bad, size)
			}
			for range 40 { // a wrong checksum must not be what refuses it
				bad := bytes.Clone(good)
				at := 10 + r.IntN(max(1, min(len(bad)-18, 120)))
				bad[at] ^= 1 << r.IntN(8)
				agree(fmt.Sprintf("byte %d changed, and summed anew", at), retrailed(bad), size)
			}
		}
	}
}

// retrailed returns a member with the trailer that fits its blocks, as far as they can be
// inflated.
func retrailed(data []byte) []byte {
	if len(data) < 18 {
		return data
	}
	plain, _ := io.ReadAll(io.LimitReader(stdflate.NewReader(bytes.NewReader(data[10:len(data)-8])), 1<<20))
	return append(bytes.Clone(data[:len(data)-8]), trailer(plain)...)
}

func trailer(plain []byte) []byte {
	sum, n := crc32.ChecksumIEEE(plain), len(plain)
	return []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24), byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}
}

// inflate is inflateGzip into memory that has been used, of data after whose end
// nothing can be read.
func inflate(data []byte, size int64) ([]byte, error) {
	return inflateGzip(dirty(roomFor(size)), slices.Clip(data), size)
}

// agrees compares with the standard library. Where a block uses a code that it
// does not define, the decoder that snap uses goes by the code of the block
// before. So it may inflate what the standard library refuses; what it inflates
// must still have the length and the checksum of the trailer.
func agrees(data []byte, size int64) error {
	got, err := inflate(data, size)
	standard, ok := standardWay(data, size)
	// RFC 1952, section 2.3.1.2: a reserved flag must be refused. The standard
	// library passes over it.
	ok = ok && data[3]&0xe0 == 0
	switch {
	case ok && err != nil:
		return fmt.Errorf("the standard library inflates it: %w", err)
	case ok && !bytes.Equal(got, standard):
		return fmt.Errorf("the standard library gives %d other bytes", size)
	case err == nil && (int64(len(got)) != size || !bytes.Equal(trailer(got), data[len(data)-8:])):
		return errors.New("it is inflated, and is not what its trailer says")
	}
	return nil
}

// standardWay is inflateGzip by the standard library.
func standardWay(data []byte, size int64) (plain []byte, ok bool) {
	in := bytes.NewReader(data)
	r, err := stdgzip.NewReader(in)
	if err != nil {
		return nil, false
	}
	r.Multistream(false)
	plain, err = io.ReadAll(io.LimitReader(r, size+1))
	return plain, err == nil && int64(len(plain)) == size && in.Len() == 0
}

// bitWriter writes blocks that no compressor would make.
type bitWriter struct {
	out  []byte
	used uint
}

// number writes the lowest n bits of v, the lowest first.
func (w *bitWriter) number(v, n uint) {
	for i := range n {
		if w.used%8 == 0 {
			w.out = append(w.out, 0)
		}
		w.out[len(w.out)-1] |= byte(v>>i&1) << (w.used % 8)
		w.used++
	}
}

// code writes the lowest n bits of v, the highest first.
func (w *bitWriter) code(v, n uint) {
	for i := n; i > 0; i-- {
		w.number(v>>(i-1)&1, 1)
	}
}

func (w *bitWriter) block(last bool, kind uint) {
	if last {
		w.number(1, 1)
	} else {
		w.number(0, 1)
	}
	w.number(kind, 2)
}

// stored writes a stored block, with its length and the complement of its length.
func (w *bitWriter) stored(last bool, n, opposite uint16, content string) {
	w.block(last, 0)
	w.used = uint(len(w.out)) * 8
	w.out = append(w.out, byte(n), byte(n>>8), byte(opposite), byte(opposite>>8))
	w.out = append(w.out, content...)
	w.used = uint(len(w.out)) * 8
}

// fixed writes symbols of a block of fixed codes.
func (w *bitWriter) fixed(symbols ...uint) {
	for _, s := range symbols {
		switch {
		case s < 144:
			w.code(0x30+s, 8)
		case s < 256:
			w.code(0x190+s-144, 9)
		case s < 280:
			w.code(s-256, 7)
		default:
			w.code(0xc0+s-280, 8)
		}
	}
}

// header begins a block whose code lengths have codes of lengths cl, in the order
// of their symbols; what follows is lits and dists of them.
func (w *bitWriter) header(lits, dists uint, cl [19]uint) {
	w.block(true, 2)
	w.number(lits-257, 5)
	w.number(dists-1, 5)
	w.number(15, 4)
	for _, symbol := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15} {
		w.number(cl[symbol], 3)
	}
}

// plainly has code lengths of four bits each.
var plainly = [19]uint{4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4}

// lengths begins a block with codes of these lengths.
func (w *bitWriter) lengths(lits map[int]uint, dists ...uint) {
	count := 257
	for symbol := range lits {
		count = max(count, symbol+1)
	}
	w.header(uint(count), uint(len(dists)), plainly)
	for symbol := range count {
		w.code(lits[symbol], 4)
	}
	for _, n := range dists {
		w.code(n, 4)
	}
}

// shortly begins a block with a code length of one bit for 'a', and of zero for the next
// 138 symbols and for as many more as zeros says.
func (w *bitWriter) shortly(zeros uint) {
	w.header(257, 1, [19]uint{0: 2, 1: 2, 18: 1})
	w.code(0, 1)
	w.number('a'-11, 7)
	w.code(3, 2)
	w.code(0, 1)
	w.number(138-11, 7)
	w.code(0, 1)
	w.number(zeros-11, 7)
}

// matching writes a block of one literal and one match. The only distance has a code of
// distance bits, and bit is written where the code is used.
func matching(distance, bit uint) func(*bitWriter) {
	return func(w *bitWriter) {
		w.lengths(map[int]uint{'a': 2, 256: 2, 257: 1}, distance)
		w.code(2, 2)
		w.code(0, 1)
		w.number(bit, 1)
		w.code(3, 2)
	}
}

const undefinedDistance = "a distance code of nothing, used"

// forged has members with unusual blocks. The good ones are valid all the same.
var forged = []struct {
	name  string
	write func(w *bitWriter)
	plain string
	good  bool
}{
	{"fixed codes", func(w *bitWriter) { w.block(true, 1); w.fixed('a', 200, 256) }, "a\xc8", true},
	{"an empty block before", func(w *bitWriter) { w.block(false, 1); w.fixed(256); w.block(true, 1); w.fixed('a', 256) }, "a", true},
	{"fixed codes after a stored block", func(w *bitWriter) {
		w.stored(false, 1, 65534, "a")
		w.block(true, 1)
		w.fixed('b', 256)
	}, "ab", true},
	{"a stored block after fixed codes", func(w *bitWriter) {
		w.block(false, 1)
		w.fixed('b', 256)
		w.stored(true, 1, 65534, "a")
	}, "ba", true},
	{"a block of the fourth kind", func(w *bitWriter) { w.block(true, 3); w.fixed('a', 256) }, "a", false},
	{"a stored block whose length is said in two ways", func(w *bitWriter) { w.stored(true, 1, 65535, "a") }, "a", false},
	{"a stored block that is cut", func(w *bitWriter) { w.stored(true, 60, 65475, "a") }, "a", false},
	{"a stored block past what is declared", func(w *bitWriter) { w.stored(true, 2, 65533, "ab") }, "a", false},
	{"no last block", func(w *bitWriter) { w.block(false, 1); w.fixed('a', 256) }, "a", false},
	{"nothing at all", func(*bitWriter) {}, "a", false},
	{"no end of the block", func(w *bitWriter) { w.block(true, 1); w.fixed('a') }, "a", false},
	{"a match of the byte before", func(w *bitWriter) { w.block(true, 1); w.fixed('a', 257); w.code(0, 5); w.fixed(256) }, "aaaa", true},
	{"a match before the beginning", func(w *bitWriter) { w.block(true, 1); w.fixed('a', 257); w.code(1, 5); w.fixed(256) }, "aaaa", false},
	{"a match before anything", func(w *bitWriter) { w.block(true, 1); w.fixed(257); w.code(0, 5); w.fixed(256) }, "aaa", false},
	{"a match past what is declared", func(w *bitWriter) { w.block(true, 1); w.fixed('a', 257); w.code(0, 5); w.fixed(256) }, "aa", false},
	{"a literal past what is declared", func(w *bitWriter) { w.block(true, 1); w.fixed('a', 'b', 256) }, "a", false},
	{"a swift match past what is declared, and literals past the room", func(w *bitWriter) {
		w.stored(false, 1800, ^uint16(1800), strings.Repeat("x", 1800))
		w.block(true, 1)
		w.fixed(285)
		w.code(0, 5)
		for range 60 {
			w.fixed('a')
		}
		w.fixed(256)
	}, strings.Repeat("x", 2023), false},
	{"the longest match", func(w *bitWriter) { w.block(true, 1); w.fixed('a', 285); w.code(0, 5); w.fixed(256) }, strings.Repeat("a", 259), true},
	{"the longest match in other words", func(w *bitWriter) {
		w.block(true, 1)
		w.fixed('a', 284)
		w.number(31, 5)
		w.code(0, 5)
		w.fixed(256)
	}, strings.Repeat("a", 259), true},
	{"length symbol 286", func(w *bitWriter) { w.block(true, 1); w.fixed('a', 286); w.code(0, 5); w.fixed(256) }, "a", false},
	{"length symbol 287", func(w *bitWriter) { w.block(true, 1); w.fixed('a', 287); w.code(0, 5); w.fixed(256) }, "a", false},
	{"distance symbol 30", func(w *bitWriter) { w.block(true, 1); w.fixed('a', 257); w.code(30, 5); w.number(0, 14); w.fixed(256) }, "aaaa", false},
	{"distance symbol 31", func(w *bitWriter) { w.block(true, 1); w.fixed('a', 257); w.code(31, 5); w.number(0, 14); w.fixed(256) }, "aaaa", false},

	{"a code of two symbols", func(w *bitWriter) { w.lengths(map[int]uint{'a': 1, 256: 1}, 0); w.code(0, 1); w.code(1, 1) }, "a", true},
	{"a code of one symbol, the end", func(w *bitWriter) { w.lengths(map[int]uint{256: 1}, 0); w.code(0, 1) }, "a", false},
	{"a code without an end", func(w *bitWriter) { w.lengths(map[int]uint{'a': 1, 'b': 1}, 0); w.code(0, 1) }, "a", false},
	{"no code for literals", func(w *bitWriter) { w.lengths(nil, 1); w.code(0, 1) }, "a", false},
	{"a distance code of one bit", matching(1, 0), "aaaa", true},
	{"what a distance code of one bit does not have", matching(1, 1), "aaaa", false},
	{"a distance code of nothing, not used", func(w *bitWriter) {
		w.lengths(map[int]uint{'a': 2, 256: 2, 257: 1}, 0)
		w.code(2, 2)
		w.code(3, 2)
	}, "a", true},
	{undefinedDistance, matching(0, 0), "aaaa", false},
	{"a distance code of one symbol with two bits", func(w *bitWriter) { w.lengths(map[int]uint{'a': 1, 256: 1}, 2); w.code(0, 1); w.code(1, 1) }, "a", false},
	{"a code with too many symbols", func(w *bitWriter) { w.lengths(map[int]uint{'a': 1, 'b': 1, 256: 1}, 0); w.code(0, 1); w.code(1, 1) }, "a", false},
	{"a code with too few symbols", func(w *bitWriter) { w.lengths(map[int]uint{'a': 1, 256: 2}, 0); w.code(0, 1); w.code(2, 2) }, "a", false},
	{"the longest codes", func(w *bitWriter) {
		lits := map[int]uint{256: 15, 257: 15}
		for i := range uint(14) {
			lits[int('a'+i)] = i + 1
		}
		var dists []uint
		for i := range uint(15) {
			dists = append(dists, i+1)
		}
		w.lengths(lits, append(dists, 15)...)
		w.code(0, 1)       // a
		w.code(0x1ffe, 13) // a longer one: m
		w.code(0x7fff, 15) // a match of three
		w.code(2, 2)       // two back
		w.code(0x7ffe, 15)
	}, "amama", true},
	{"287 codes of literals and lengths", func(w *bitWriter) {
		w.header(287, 1, plainly)
		for symbol := range 288 {
			w.code(map[int]uint{'a': 1, 256: 1}[symbol], 4)
		}
		w.code(0, 1)
		w.code(1, 1)
	}, "a", false},
	{"31 codes of distances", func(w *bitWriter) {
		w.lengths(map[int]uint{'a': 1, 256: 1}, make([]uint, 31)...)
		w.code(0, 1)
		w.code(1, 1)
	}, "a", false},
	{"286 and 30 codes", func(w *bitWriter) {
		w.lengths(map[int]uint{'a': 1, 256: 1, 285: 0}, make([]uint, 30)...)
		w.code(0, 1)
		w.code(1, 1)
	}, "a", true},
	{"lengths in short", func(w *bitWriter) {
		w.shortly(20)
		w.code(3, 2)
		w.code(2, 2)
		w.code(0, 1)
		w.code(1, 1)
	}, "a", true},
	{"more lengths than are said", func(w *bitWriter) {
		w.shortly(30)
		w.code(0, 1)
		w.code(1, 1)
	}, "a", false},
	{"the length before the first again", func(w *bitWriter) {
		w.header(257, 1, [19]uint{0: 2, 1: 2, 16: 1})
		w.code(0, 1)
		w.number(3, 2)
		w.code(3, 2)
	}, "a", false},
	{"the length before the first distance again", func(w *bitWriter) { // 17: zeros, then five of 3 bits, of which one is the end
		w.header(257, 4, [19]uint{0: 2, 3: 2, 16: 2, 18: 2})
		w.code(3, 2)
		w.number(127, 7)
		w.code(3, 2)
		w.number(249-138-11, 7)
		for range 8 {
			w.code(1, 2)
		}
		w.code(2, 2)
		w.number(1, 2) // four distances of 3 bits are no code
	}, "a", false},
	{"code lengths without a code", func(w *bitWriter) { w.header(257, 1, [19]uint{}); w.number(0, 64) }, "a", false},
	{"code lengths with one code", func(w *bitWriter) { w.header(257, 1, [19]uint{1: 1}); w.number(0, 300) }, "a", false},
	{"code lengths whose code is not whole", func(w *bitWriter) { w.header(257, 1, [19]uint{0: 1, 1: 2}); w.number(0, 300) }, "a", false},
}

func forge(write func(*bitWriter), plain string) []byte {
	w := &bitWriter{}
	write(w)
	return append(append([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}, w.out...), trailer([]byte(plain))...)
}

// Each block is tried as the only block of a member, and as the first of a larger member.
func TestUnusualBlocks(t *testing.T) {
	for _, c := range forged {
		size := int64(len(c.plain))
		data := forge(c.write, c.plain)
		if err := agrees(data, size); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		got, err := inflate(data, size)
		if c.name == undefinedDistance && err == nil { // see agrees
			c.good = true
		}
		if (err == nil) != c.good || err == nil && string(got) != c.plain {
			t.Errorf("%s: error %v, to be inflated: %v; it gives %q", c.name, err, c.good, got)
		}
		w := &bitWriter{}
		c.write(w)
		if len(w.out) > 0 {
			w.out[0] &^= 1 // not the last
		}
		x := strings.Repeat("x", 1000)
		w.stored(false, 1000, ^uint16(1000), x)
		w.stored(true, 1000, ^uint16(1000), x)
		whole := c.plain + x + x
		if err := agrees(forge(func(to *bitWriter) { to.out = w.out }, whole), int64(len(whole))); err != nil {
			t.Errorf("%s, with much after it: %v", c.name, err)
		}
	}
}

// Any input is judged as the standard library judges it.
func FuzzFlate(f *testing.F) {
	f.Add(forge(forged[0].write, forged[0].plain), int64(len(forged[0].plain)))
	for _, c := range forged {
		f.Add(forge(c.write, c.plain), int64(len(c.plain)))
	}
	all := plains()
	for _, pack := range packers() {
		for _, plain := range all {
			f.Add(pack(plain[:min(len(plain), 2000)]), int64(min(len(plain), 2000)))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, size int64) {
		if size < 1 || size > 1<<20 {
			return
		}
		for _, data := range [][]byte{data, retrailed(data)} {
			if err := agrees(data, size); err != nil {
				t.Error(err)
			}
		}
	})
}
