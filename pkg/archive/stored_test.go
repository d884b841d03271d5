package archive

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// What does not compress takes the short way, and wherever that is taken the
// long one says the same: of whole members, of each with a bit of its framing
// flipped, and of those that are cut or have something behind them.
func TestAStoredMemberIsTakenAsInflatingTakesIt(t *testing.T) {
	for _, size := range []int{1, 100, 65535, 65536, pieceSize} {
		noise := make([]byte, size)
		chacha := rand.NewChaCha8([32]byte{byte(size)})
		_, _ = chacha.Read(noise)
		good := Gzip.Deflate(nil, noise)
		buf := make([]byte, 0, roomFor(int64(size)))
		if tar, ok := unstore(buf, good, int64(size)); size > 1 && (!ok || !bytes.Equal(tar, noise)) {
			t.Errorf("%d bytes that do not compress do not go the short way: % x…", size, good[:16])
		}
		agree(t, good, int64(size))
		agree(t, append(bytes.Clone(good), 0), int64(size))
		agree(t, append(bytes.Clone(good), good...), int64(size))
		agree(t, good, int64(size-1))
		agree(t, good, int64(size+1))
		for _, cut := range []int{1, 4, 8, 9, 10, 13, 14} {
			if cut < len(good) {
				agree(t, good[:len(good)-cut], int64(size))
				agree(t, good[:cut], int64(size))
			}
		}
		for _, at := range framing(good, noise) {
			for _, bit := range []byte{1, 2, 4, 0x80} {
				bad := bytes.Clone(good)
				bad[at] ^= bit
				agree(t, bad, int64(size))
			}
		}
	}
}

// framing returns the places of good that do not hold content, as far as there
// are few: head, tail, and what stands before each block.
func framing(good, noise []byte) []int {
	var places []int
	for at := range min(16, len(good)) {
		places = append(places, at)
	}
	for at := max(16, len(good)-16); at < len(good); at++ {
		places = append(places, at)
	}
	if second := bytes.Index(good, noise[min(65535, len(noise)-1):]); second > 21 {
		for at := second - 5; at < second; at++ {
			places = append(places, at)
		}
	}
	return places
}

// agree compares the two ways where the short one is taken.
func agree(t *testing.T, data []byte, size int64) {
	t.Helper()
	room := roomFor(size)
	short, ok := unstore(make([]byte, 0, room), data, size)
	if !ok {
		return
	}
	long, err := inflateBlocks(make([]byte, 0, room), data, size)
	if err != nil || !bytes.Equal(short, long) {
		t.Errorf("%d bytes, of which %d are expected: the short way has taken what the long one says of: %v", len(data), size, err)
	}
}
