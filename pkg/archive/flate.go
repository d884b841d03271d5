package archive

import (
	"encoding/binary"
	"hash/crc32"
	"sync"
)

// inflateAtOnce takes data that is one gzip member of exactly size bytes into
// buf, which has roomFor(size), from memory into memory: the library inflates
// streams, for which it copies all of it once more, and takes about twice the
// time. It reports false of what is anything else, and of what it does not
// know; the library then says what is wrong, if anything is.
func inflateAtOnce(buf, data []byte, size int64) (tar []byte, ok bool) {
	const head, tail = 10, 8 // RFC 1952, section 2.3, with no flag set
	if len(data) < head+tail || [4]byte(data) != [4]byte{0x1f, 0x8b, 8, 0} {
		return nil, false
	}
	f := swiftInflaters.Get().(*inflater)
	defer swiftInflaters.Put(f)
	f.in, f.pos, f.bits, f.held = data, head, 0, 0
	f.out, f.at, f.size = buf[:cap(buf)], 0, int(size)
	ok = f.inflate()
	end, n := f.pos-int(f.held/8), f.at
	f.in, f.out = nil, nil
	tar = buf[:size]
	ok = ok && end == len(data)-tail && n == int(size) &&
		binary.LittleEndian.Uint32(data[end:]) == crc32.ChecksumIEEE(tar) &&
		binary.LittleEndian.Uint32(data[end+4:]) == uint32(size)
	return tar, ok
}

var swiftInflaters = sync.Pool{New: func() any { return new(inflater) }}

// inflater inflates blocks (RFC 1951).
type inflater struct {
	in   []byte
	pos  int    // what of in has been taken into bits
	bits uint64 // the next of the input, the first of them the lowest
	held uint   // how many those are
	out  []byte // more than size
	at   int    // what of out is done
	size int

	lit     litCode
	dist    distCode
	length  lengthCode
	lengths [symbols + distances]uint8
}

// inflate takes blocks up to the last one.
func (f *inflater) inflate() bool {
	for last := false; !last; {
		f.refill()
		last = f.bits&1 != 0
		kind := f.bits >> 1 & 3
		if !f.drop(3) {
			return false
		}
		ok := false
		switch kind {
		case 0:
			ok = f.stored()
		case 1:
			ok = f.block(fixedLit, fixedDist)
		case 2:
			ok = f.codes() && f.block(&f.lit, &f.dist)
		}
		if !ok {
			return false
		}
	}
	return true
}

// refill makes bits hold 56 to 63 of the input, less where there are no more.
func (f *inflater) refill() {
	for f.held < 56 && f.pos < len(f.in) {
		f.bits |= uint64(f.in[f.pos]) << f.held
		f.pos++
		f.held += 8
	}
}

// drop passes over n bits. It reports false where there are not so many.
func (f *inflater) drop(n uint) bool {
	if n > f.held {
		return false
	}
	f.bits >>= n
	f.held -= n
	return true
}

// stored copies a block that is not compressed (section 3.2.4).
func (f *inflater) stored() bool {
	rest := f.in[f.pos-int(f.held/8):]
	if len(rest) < 4 {
		return false
	}
	n := binary.LittleEndian.Uint16(rest)
	if n != ^binary.LittleEndian.Uint16(rest[2:]) {
		return false
	}
	if rest = rest[4:]; len(rest) < int(n) || int(n) > f.size-f.at {
		return false
	}
	f.at += copy(f.out[f.at:], rest[:n])
	f.pos, f.bits, f.held = len(f.in)-len(rest)+int(n), 0, 0
	return true
}

// clOrder is the order in which a block gives the code lengths of code lengths.
var clOrder = [...]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// codes reads the two codes of a block (section 3.2.7).
func (f *inflater) codes() bool {
	f.refill()
	lits, dists, cls := 257+int(f.bits&31), 1+int(f.bits>>5&31), 4+int(f.bits>>10&15)
	if !f.drop(14) || lits > 286 || dists > 30 {
		return false
	}
	lengths := f.lengths[:len(clMeaning)]
	clear(lengths)
	for i := range cls {
		f.refill()
		lengths[clOrder[i]] = uint8(f.bits & 7)
		if !f.drop(3) {
			return false
		}
	}
	if !f.length.build(lengths) {
		return false
	}
	lengths = f.lengths[:lits+dists]
	for i := 0; i < len(lengths); {
		f.refill()
		e := f.length.first[f.bits&(1<<clBits-1)]
		if e&isSpecial != 0 || !f.drop(e.takes()) {
			return false
		}
		symbol := e.base()
		if symbol < 16 {
			lengths[i] = uint8(symbol)
			i++
			continue
		}
		again, width, value := 3, uint(2), uint8(0)
		switch symbol {
		case 16:
			if i == 0 {
				return false
			}
			value = lengths[i-1]
		case 17:
			width = 3
		case 18:
			again, width = 11, 7
		}
		again += int(f.bits & (1<<width - 1))
		if !f.drop(width) || again > len(lengths)-i {
			return false
		}
		for range again {
			lengths[i] = value
			i++
		}
	}
	return f.lit.build(lengths[:lits]) && f.dist.build(lengths[lits:])
}

// block takes the symbols of a block, to its end.
func (f *inflater) block(lit *litCode, dist *distCode) bool {
	ended, ok := f.swift(lit, dist)
	if ok && !ended {
		ok = f.careful(lit, dist)
	}
	return ok
}

const (
	// swift writes so much at most between two looks at the room that is left:
	// three literals and a match, in words.
	strideOut = 3 + 258 + 8
	// and reads so much, twice eight bytes.
	strideIn = 16
)

// swift takes symbols until the block has ended, or the end of the input or of
// out is near.
func (f *inflater) swift(lit *litCode, dist *distCode) (ended, ok bool) {
	in, pos, bits, held := f.in, f.pos, f.bits, f.held
	out, at := f.out, f.at
	for at+strideOut <= len(out) && pos+strideIn <= len(in) {
		// Eight bytes are there; those that do not fit count the next time.
		bits |= binary.LittleEndian.Uint64(in[pos:]) << (held & 63)
		pos += int((63 - held) >> 3)
		held |= 56
		e := lit.first[bits&(1<<litBits-1)]
		if e&isLiteral != 0 {
			out[at] = e.literal()
			at++
			bits >>= e.takes()
			held -= e.takes()
			if e = lit.first[bits&(1<<litBits-1)]; e&isLiteral != 0 {
				out[at] = e.literal()
				at++
				bits >>= e.takes()
				held -= e.takes()
				if e = lit.first[bits&(1<<litBits-1)]; e&isLiteral != 0 {
					out[at] = e.literal()
					at++
					bits >>= e.takes()
					held -= e.takes()
					continue
				}
			}
			// A match takes up to 48 bits.
			bits |= binary.LittleEndian.Uint64(in[pos:]) << (held & 63)
			pos += int((63 - held) >> 3)
			held |= 56
		}
		if e&isSpecial != 0 {
			if e&isFurther != 0 {
				bits >>= litBits
				held -= litBits
				e = lit.rest[e.base()+int(bits&(1<<e.second()-1))]
			}
			if e&(isSpecial|isLiteral) != 0 {
				bits >>= e.takes()
				held -= e.takes()
				if e&isLiteral != 0 {
					out[at] = e.literal()
					at++
					continue
				}
				if e&isEnd == 0 {
					return false, false
				}
				ended = true
				break
			}
		}
		length := e.value(bits)
		bits >>= e.takes()
		held -= e.takes()

		e = dist.first[bits&(1<<distBits-1)]
		if e&isSpecial != 0 {
			if e&isFurther == 0 {
				return false, false
			}
			bits >>= distBits
			held -= distBits
			// What means nothing is in the first table: only fixed codes have it.
			e = dist.rest[e.base()+int(bits&(1<<e.second()-1))]
		}
		back := e.value(bits)
		bits >>= e.takes()
		held -= e.takes()
		if back > at {
			return false, false
		}
		repeat(out, at, length, back)
		at += length
	}
	// Above those that count bits may hold some of the next ones.
	f.pos, f.bits, f.held, f.at = pos, bits&(1<<held-1), held, at
	return ended, true
}

// repeat writes length bytes at a place of out, which are those that stand so
// far back of it, and may be some that are only written here. Up to seven bytes
// behind them are overwritten.
func repeat(out []byte, at, length, back int) {
	from, to := out[at-back:], out[at:at+length+7]
	switch {
	case back >= 8 && length <= 32:
		for i := 0; i < length; i += 8 {
			binary.LittleEndian.PutUint64(to[i:], binary.LittleEndian.Uint64(from[i:]))
		}
	case back == 1:
		word := uint64(from[0]) * 0x0101010101010101
		for i := 0; i < length; i += 8 {
			binary.LittleEndian.PutUint64(to[i:], word)
		}
	default:
		repeatExactly(out, at, length, back)
	}
}

// repeatExactly is repeat that overwrites nothing else. What has been copied is
// twice as much to copy from.
func repeatExactly(out []byte, at, length, back int) {
	to := out[at : at+length]
	for n := 0; n < length; {
		n += copy(to[n:], out[at-back:at+n])
	}
}

// careful takes symbols until the block has ended, with a look at each bit and
// byte.
func (f *inflater) careful(lit *litCode, dist *distCode) bool {
	for {
		f.refill()
		e := lit.first[f.bits&(1<<litBits-1)]
		if e&isFurther != 0 {
			if !f.drop(litBits) {
				return false
			}
			e = lit.rest[e.base()+int(f.bits&(1<<e.second()-1))]
		}
		length := e.value(f.bits)
		if !f.drop(e.takes()) {
			return false
		}
		switch {
		case e&isLiteral != 0:
			if f.at >= f.size { // swift may have gone past it
				return false
			}
			f.out[f.at] = e.literal()
			f.at++
			continue
		case e&isSpecial != 0:
			return e&isEnd != 0
		}
		f.refill()
		e = dist.first[f.bits&(1<<distBits-1)]
		if e&isFurther != 0 {
			if !f.drop(distBits) {
				return false
			}
			e = dist.rest[e.base()+int(f.bits&(1<<e.second()-1))]
		}
		back := e.value(f.bits)
		if e&isSpecial != 0 || !f.drop(e.takes()) || back > f.at || length > f.size-f.at {
			return false
		}
		repeatExactly(f.out, f.at, length, back)
		f.at += length
	}
}
