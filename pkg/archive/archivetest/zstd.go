package archivetest

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// StoredMember is a file that may be in a store under the ID of a member.
type StoredMember struct {
	Name  string
	Data  []byte
	Taken bool // it is true, in a form that snap does not write
}

// The types of a zstd block (RFC 8878, section 3.1.1.2.2).
const (
	ZstdRaw = iota
	ZstdRepeated
	compressed
	reserved
)

// ZstdBlock returns a block that declares n bytes.
func ZstdBlock(typ, n int, last bool, data []byte) []byte {
	head := uint32(n)<<3 | uint32(typ)<<1
	if last {
		head |= 1
	}
	return append([]byte{byte(head), byte(head >> 8), byte(head >> 16)}, data...)
}

// ZstdFrame returns a frame with the descriptor, the fields that the descriptor declares,
// and the blocks.
func ZstdFrame(descriptor byte, fields []byte, blocks ...[]byte) []byte {
	return slices.Concat([]byte{0x28, 0xb5, 0x2f, 0xfd, descriptor}, fields, slices.Concat(blocks...))
}

// Bits of a frame's descriptor, and a descriptor of a window of 128 KiB.
const (
	size8     = 0xc0 // a content size of 8 bytes
	segment   = 0x20 // no window: it is the content size
	badBit    = 0x08
	dict4     = 0x03 // the number of a dictionary, in 4 bytes
	window17  = 7 << 3
	window41  = 31 << 3 // of 2 TiB, and with 7 more of 3.75 TiB
	skippable = "\x50\x2a\x4d\x18"
)

func number(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

// PackZstd returns an honest zstd frame, as snap writes it.
func PackZstd(data []byte) []byte { return packZstd(data, true) }

func packZstd(data []byte, sum bool) []byte {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(sum))
	if err != nil {
		panic(err) // the options are constants
	}
	return w.EncodeAll(data, nil)
}

// ZstdBomb returns a frame of that many MiB of zeros in compressed blocks. The frame does
// not declare its size.
func ZstdBomb(mib int) []byte {
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		panic(err) // the options are constants
	}
	for range mib {
		_, _ = w.Write(make([]byte, 1<<20)) // into memory
	}
	_ = w.Close()
	return out.Bytes()
}

// ZstdMembers returns forged members under the ID of the member that holds tar, and a few
// unusual members that are valid. tar may have at most 128 KiB.
func ZstdMembers(tar []byte) []StoredMember {
	good, n := PackZstd(tar), len(tar)
	whole := ZstdBlock(ZstdRaw, n, true, tar)
	flip := func(at int) []byte {
		b := bytes.Clone(good)
		b[(at+len(b))%len(b)] ^= 1
		return b
	}
	skipped := slices.Concat([]byte(skippable), []byte{4, 0, 0, 0}, []byte("skip"))
	half := n / 2
	declared := func(size uint64, blocks ...[]byte) []byte { return ZstdFrame(size8|segment, number(size), blocks...) }
	window := func(w byte, blocks ...[]byte) []byte { return ZstdFrame(0, []byte{w}, blocks...) }
	zeros := ZstdBlock(ZstdRepeated, 128<<10, false, []byte{0})
	end := ZstdBlock(ZstdRaw, 0, true, nil)
	list := []StoredMember{
		{Name: "no zstd", Data: bytes.Repeat([]byte("no zstd at all"), 100)},
		{Name: "a byte", Data: []byte{0x28}},
		{Name: "the magic number alone", Data: good[:4]},
		{Name: "a head without blocks", Data: ZstdFrame(size8|segment, number(uint64(n)))},
		{Name: "the magic number of an old version", Data: slices.Concat([]byte{0x27}, good[1:])},
		{Name: "cut by a byte", Data: good[:len(good)-1]},
		{Name: "cut by its checksum", Data: good[:len(good)-4]},
		{Name: "cut by half", Data: good[:len(good)/2]},
		{Name: "a block that never ends", Data: declared(uint64(n), ZstdBlock(ZstdRaw, n, false, tar))},
		{Name: "a byte after it", Data: append(bytes.Clone(good), 0)},
		{Name: "the beginning of a frame after it", Data: append(bytes.Clone(good), good[:3]...)},
		{Name: "itself after it", Data: append(bytes.Clone(good), good...)},
		{Name: "an empty frame after it", Data: append(bytes.Clone(good), ZstdFrame(segment, []byte{0}, end)...)},
		{Name: "an empty frame before it", Data: append(ZstdFrame(segment, []byte{0}, end), good...)},
		{Name: "a frame to be skipped after it", Data: append(bytes.Clone(good), skipped...)},
		{Name: "a frame to be skipped before it", Data: append(bytes.Clone(skipped), good...)},
		{Name: "a frame to be skipped alone", Data: skipped},
		{Name: "a frame to be skipped of 4 GiB", Data: append([]byte(skippable), 0xff, 0xff, 0xff, 0xff)},
		{Name: "two frames that are it together", Data: append(PackZstd(tar[:half]), PackZstd(tar[half:])...)},
		{Name: "two frames of unknown size that are it together",
			Data: append(window(window17, ZstdBlock(ZstdRaw, half, true, tar[:half])), window(window17, ZstdBlock(ZstdRaw, n-half, true, tar[half:]))...)},
		{Name: "a wrong checksum", Data: flip(-1)},
		{Name: "a content size one too small", Data: declared(uint64(n)-1, whole)},
		{Name: "a content size one too large", Data: declared(uint64(n)+1, whole)},
		{Name: "a flipped bit", Data: flip(len(good) / 2)},
		{Name: "other bytes of the same length", Data: PackZstd(make([]byte, n))},
		{Name: "fewer bytes", Data: PackZstd(tar[:n-1])},
		{Name: "more bytes", Data: PackZstd(append(bytes.Clone(tar), 0))},
		{Name: "fewer bytes than it declares", Data: declared(uint64(n), ZstdBlock(ZstdRaw, n-1, true, tar[:n-1]))},
		{Name: "more bytes than it declares", Data: declared(uint64(n), ZstdBlock(ZstdRaw, n, false, tar), ZstdBlock(ZstdRaw, 1, true, []byte{0}))},
		{Name: "a byte too many in a repeated block", Data: declared(uint64(n), ZstdBlock(ZstdRaw, n, false, tar), ZstdBlock(ZstdRepeated, 1, true, []byte{0}))},
		{Name: "a content size of 2^40", Data: declared(1<<40, whole)},
		{Name: "a content size of 2^63", Data: declared(1<<63, whole)},
		{Name: "a content size of 2^64-1", Data: declared(1<<64-1, whole)},
		{Name: "a content size of 0", Data: declared(0, whole)},
		{Name: "a window of 2 TiB", Data: window(window41, whole)},
		{Name: "a window of 3.75 TiB", Data: window(window41|7, whole)},
		{Name: "a window of 32 MiB", Data: window(15<<3, whole)},
		{Name: "a dictionary", Data: ZstdFrame(size8|segment|dict4, append([]byte{1, 0, 0, 0}, number(uint64(n))...), whole)},
		{Name: "the reserved bit", Data: ZstdFrame(size8|segment|badBit, number(uint64(n)), whole)},
		{Name: "the reserved type of block", Data: declared(uint64(n), ZstdBlock(reserved, n, true, tar))},
		{Name: "a block that is larger than a block", Data: declared(uint64(n), ZstdBlock(ZstdRepeated, 1<<21-1, true, []byte{0}))},
		{Name: "a compressed block of nothing", Data: declared(uint64(n), ZstdBlock(compressed, 0, true, nil))},
		{Name: "a compressed block of noise", Data: declared(uint64(n), ZstdBlock(compressed, n, true, tar))},
		{Name: "empty blocks without end", Data: window(window17, bytes.Repeat(ZstdBlock(ZstdRaw, 0, false, nil), 1<<20))},
		{Name: "a bomb of 1 GiB in repeated blocks", Data: window(window17, append(bytes.Repeat(zeros, 8192), end...))},
		{Name: "the same that declares another size", Data: declared(uint64(n), append(bytes.Repeat(zeros, 8192), end...))},
		{Name: "a bomb of 256 MiB in compressed blocks", Data: ZstdBomb(256)},
	}
	odd := []StoredMember{
		{Name: "without a checksum", Data: packZstd(tar, false)},
		{Name: "in one raw block", Data: declared(uint64(n), whole)},
		{Name: "of undeclared size", Data: window(window17, whole)},
		{Name: "with a window of 16 MiB", Data: window(14<<3, whole)},
		{Name: "with dictionary 0, which is none", Data: ZstdFrame(size8|segment|dict4, append([]byte{0, 0, 0, 0}, number(uint64(n))...), whole)},
		{Name: "with empty blocks between", Data: declared(uint64(n), ZstdBlock(ZstdRaw, half, false, tar[:half]), ZstdBlock(ZstdRaw, 0, false, nil), ZstdBlock(ZstdRaw, n-half, false, tar[half:]), end)},
		{Name: "in blocks of a byte", Data: declared(uint64(n), append(byBytes(tar), end...))},
	}
	for i := range odd {
		odd[i].Taken = true
	}
	return append(list, odd...)
}

// byBytes returns data in blocks that each repeat a byte once.
func byBytes(data []byte) (blocks []byte) {
	for _, b := range data {
		blocks = append(blocks, ZstdBlock(ZstdRepeated, 1, false, []byte{b})...)
	}
	return blocks
}
