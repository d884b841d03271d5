package archive_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive"
)

// texts is a group of small files as a web app writes them: JSON, about 192 KiB.
func texts() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 2000)
	for i := range words {
		b := make([]byte, 3+r.IntN(8))
		for j := range b {
			b[j] = "etaoinshrdlucmfwypvbgk"[min(r.IntN(22), r.IntN(22))]
		}
		words[i] = string(b)
	}
	var out []byte
	for i := 0; len(out) < 192<<10; i++ {
		out = fmt.Appendf(out, `{"id":%d,"uuid":"%016x%016x","created":"2026-%02d-%02dT%02d:%02d:%02dZ","author":{"name":"%s","score":%.4f},"tags":[`,
			i, r.Uint64(), r.Uint64(), 1+r.IntN(12), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), words[r.IntN(len(words))], r.Float64())
		for range r.IntN(6) {
			out = fmt.Appendf(out, "%q,", words[r.IntN(200)])
		}
		out = append(out, `"x"],"body":"`...)
		for range 20 + r.IntN(60) {
			out = append(append(out, words[min(r.IntN(2000), r.IntN(2000), r.IntN(2000))]...), ' ')
		}
		out = append(out, "\"}\n"...)
	}
	return out
}

// pages is 1 MiB of a database. Of every eight pages of 8 KiB, six hold padded rows
// as in pgbench, and two hold an index.
func pages() []byte {
	r := rand.New(rand.NewPCG(3, 4))
	out := make([]byte, 0, 1<<20)
	id := uint32(1)
	for n := range 128 {
		page := make([]byte, 8192)
		binary.LittleEndian.PutUint64(page, 0x1_5a3c0000+uint64(n)*7919)
		row, used := 128, len(page)
		if n%8 >= 6 {
			row = 16
		}
		for i := 0; used-row > 24+4*(i+1); i++ {
			used -= row
			binary.LittleEndian.PutUint32(page[24+4*i:], uint32(used)|uint32(row)<<17|1<<15)
			if row == 16 {
				binary.LittleEndian.PutUint32(page[used+2:], id/61)
				binary.LittleEndian.PutUint32(page[used+8:], id)
			} else {
				binary.LittleEndian.PutUint32(page[used:], 700+r.Uint32N(4000))
				copy(page[used+12:], []byte{byte(n), 0, byte(i), 0, 4, 0, 2, 8, 24, 0, 0, 0})
				binary.LittleEndian.PutUint32(page[used+24:], id)
				binary.LittleEndian.PutUint32(page[used+28:], id/100000+1)
				binary.LittleEndian.PutUint32(page[used+32:], uint32(r.IntN(10000)-5000))
				for j := used + 36; j < used+121; j++ {
					page[j] = ' '
				}
			}
			id++
		}
		out = append(out, page...)
	}
	return out
}

// noise does not compress.
func noise() []byte {
	out := make([]byte, 1<<20)
	r := rand.New(rand.NewPCG(5, 6))
	for i := 0; i < len(out); i += 8 {
		binary.LittleEndian.PutUint64(out[i:], r.Uint64())
	}
	return out
}

var inputs = []struct {
	name string
	make func() []byte
}{{"json", texts}, {"pages", pages}, {"noise", noise}}

func BenchmarkDeflate(b *testing.B) {
	for _, in := range inputs {
		for _, codec := range bothCodecs {
			b.Run(in.name+"/"+codec.String(), func(b *testing.B) {
				tar := in.make()
				b.SetBytes(int64(len(tar)))
				b.ReportAllocs()
				var data []byte
				for b.Loop() {
					data = codec.Deflate(data[:0], tar)
				}
				b.ReportMetric(float64(len(data))/float64(len(tar)), "stored/tar")
			})
		}
	}
}

func BenchmarkInflate(b *testing.B) {
	for _, in := range inputs {
		for _, codec := range bothCodecs {
			b.Run(in.name+"/"+codec.String(), func(b *testing.B) {
				tar := in.make()
				data, m := codec.Deflate(nil, tar), coded(member(tar), codec)
				b.SetBytes(int64(len(tar)))
				b.ReportAllocs()
				var buf []byte
				for b.Loop() {
					var err error
					if buf, err = archive.Inflate(buf, data, m); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
