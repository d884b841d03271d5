package archive

import "math/bits"

// A flate code as tables (RFC 1951, section 3.2.2): the next bits of the input,
// as many as the first table is wide, are an index into it. What it says is all
// that is known of a symbol: how many bits it takes, its extra bits included,
// and what it stands for.
//
//	bits 0–5    how many bits are taken, code and extra bits
//	bits 8–11   how many of them are the code; of further: how wide its table is
//	bits 12–15  flags
//	bits 16–31  the literal, or what length or distance begin at; of further: where its table is
type codeEntry uint32

const (
	isLiteral codeEntry = 1 << 15
	isSpecial codeEntry = 1 << 14 // one of the next two, or what no code means
	isFurther codeEntry = 1 << 13 // a longer code: its other bits are an index into a second table
	isEnd     codeEntry = 1 << 12 // of the block

	noSymbol = isSpecial
)

func (e codeEntry) takes() uint   { return uint(e & 63) }
func (e codeEntry) base() int     { return int(e >> 16) }
func (e codeEntry) literal() byte { return byte(e >> 16) }
func (e codeEntry) second() uint  { return uint(e >> 8 & 15) }

// value is the base with what the extra bits add to it; held are bits from the
// code's first on.
func (e codeEntry) value(held uint64) int {
	return e.base() + int(held&(1<<(e&63)-1)>>(e>>8&15))
}

const (
	maxCode    = 15 // bits
	symbols    = 288
	distances  = 32 // of which two mean nothing
	litBits    = 11 // of 8 to 12 the fastest; the same of distBits from 7 to 9
	distBits   = 8
	clBits     = 7 // the longest code of a code length
	endOfBlock = 256
)

// litCode and distCode are the two codes of a block. A code of which not all
// fits the first table has at least two symbols in each second one.
type (
	litCode struct {
		first [1 << litBits]codeEntry
		rest  [symbols / 2 << (maxCode - litBits)]codeEntry
	}
	distCode struct {
		first [1 << distBits]codeEntry
		rest  [distances / 2 << (maxCode - distBits)]codeEntry
	}
	lengthCode struct {
		first [1 << clBits]codeEntry
	}
)

// What each symbol means, with the number of its extra bits where the number of
// all bits will be (RFC 1951, section 3.2.5).
var (
	litMeaning          = litMeanings()
	distMeaning         = distMeanings()
	clMeaning           = clMeanings()
	fixedLit, fixedDist = fixedCodes()
)

func litMeanings() (all [symbols]codeEntry) {
	for i := range endOfBlock {
		all[i] = isLiteral | codeEntry(i)<<16
	}
	all[endOfBlock] = isSpecial | isEnd
	base := 3
	for i := endOfBlock + 1; i < 285; i++ {
		extra := max(0, (i-261)/4)
		all[i] = codeEntry(base)<<16 | codeEntry(extra)
		base += 1 << extra
	}
	all[285] = 258 << 16
	all[286], all[287] = noSymbol, noSymbol
	return all
}

func distMeanings() (all [distances]codeEntry) {
	base := 1
	for i := range 30 {
		extra := max(0, i/2-1)
		all[i] = codeEntry(base)<<16 | codeEntry(extra)
		base += 1 << extra
	}
	all[30], all[31] = noSymbol, noSymbol
	return all
}

func clMeanings() (all [19]codeEntry) {
	for i := range all {
		all[i] = codeEntry(i) << 16
	}
	return all
}

// fixedCodes are those of section 3.2.6.
func fixedCodes() (*litCode, *distCode) {
	var lit litCode
	var dist distCode
	var lengths [symbols]uint8
	for i := range lengths {
		switch {
		case i < 144, i >= 280:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		default:
			lengths[i] = 7
		}
	}
	lit.build(lengths[:])
	for i := range distances {
		lengths[i] = 5
	}
	dist.build(lengths[:distances])
	return &lit, &dist
}

func (c *litCode) build(lengths []uint8) bool {
	return build(c.first[:], litBits, c.rest[:], lengths, litMeaning[:])
}

func (c *distCode) build(lengths []uint8) bool {
	return build(c.first[:], distBits, c.rest[:], lengths, distMeaning[:])
}

func (c *lengthCode) build(lengths []uint8) bool {
	return build(c.first[:], clBits, nil, lengths, clMeaning[:])
}

// build makes the tables of the code with these lengths of its symbols, 0 of
// those it does not have. It reports false of lengths that are no code: each
// sequence of bits must mean something. The exceptions are those that every
// compressor makes use of and every decompressor takes, a code of no symbol and
// of one with one bit.
func build(first []codeEntry, width uint, rest []codeEntry, lengths []uint8, meaning []codeEntry) bool {
	var count [maxCode + 1]int
	for _, n := range lengths {
		count[n]++
	}
	all := len(lengths) - count[0]
	count[0] = 0

	var next [maxCode + 2]int // the first code of each length
	left, longest := 1, uint(0)
	for n := 1; n <= maxCode; n++ {
		left = left<<1 - count[n]
		if left < 0 {
			return false
		}
		next[n+1] = (next[n] + count[n]) << 1
		if count[n] > 0 {
			longest = uint(n)
		}
	}
	if left > 0 {
		if all > 1 || all == 1 && count[1] != 1 {
			return false
		}
		for i := range first {
			first[i] = noSymbol
		}
	}
	if longest > width {
		for i := range first {
			first[i] = 0 // no second table yet
		}
	}

	used := 0
	for symbol, n := range lengths {
		if n == 0 {
			continue
		}
		code := uint(bits.Reverse16(uint16(next[n]))) >> (16 - n)
		next[n]++
		if uint(n) <= width {
			entry := meaning[symbol] + codeEntry(n)<<8 + codeEntry(n)
			for i := code; i < uint(len(first)); i += 1 << n {
				first[i] = entry
			}
			continue
		}
		further := &first[code&(1<<width-1)]
		if *further == 0 {
			*further = isSpecial | isFurther | codeEntry(used)<<16 | codeEntry(longest-width)<<8 | codeEntry(width)
			used += 1 << (longest - width)
		}
		n -= uint8(width)
		entry := meaning[symbol] + codeEntry(n)<<8 + codeEntry(n)
		table := rest[further.base():][:1<<(longest-width)]
		for i := code >> width; i < uint(len(table)); i += 1 << n {
			table[i] = entry
		}
	}
	return true
}
