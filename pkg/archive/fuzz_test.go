package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/archivetest"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// seeds adds honest archives and all forged ones.
func seeds(f *testing.F) {
	f.Helper()
	f.Add(archivetest.EveryKind())
	attacks := archivetest.Attacks()
	if len(attacks) < 150 {
		f.Fatalf("only %d forged archives to begin with", len(attacks))
	}
	for _, a := range attacks {
		if forged := a.Tar("/nowhere"); len(forged) < 64<<10 {
			f.Add(forged)
		}
	}
}

// resum gives every header block the right checksum. Otherwise the check of the checksum
// would be the only one that sees a mutation.
func resum(data []byte) []byte {
	all := bytes.Clone(data)
	for data = all; len(data) >= 512; data = data[512:] {
		if string(data[257:262]) != "ustar" {
			continue
		}
		sum := 8 * int(' ')
		for i, c := range data[:512] {
			if i < 148 || i >= 156 {
				sum += int(c)
			}
		}
		copy(data[148:156], fmt.Sprintf("%06o\x00 ", sum))
	}
	return all
}

// stageOf is a directory to extract into, with a canary beside it.
func stageOf(t *testing.T) (into *disk.Dir, check func()) {
	box := t.TempDir()
	disktest.Write(t, box, map[string]string{"canary": "canary", "stage/": ""})
	return open(t, filepath.Join(box, "stage")), func() {
		names, err := os.ReadDir(box)
		if err != nil || len(names) != 2 {
			t.Errorf("beside the stage stand %v: %v", names, err)
		}
		if data, err := os.ReadFile(filepath.Join(box, "canary")); string(data) != "canary" {
			t.Errorf("the canary is %q: %v", data, err)
		}
	}
}

// An archive that Extract accepts is captured again with the same counts. An archive
// that it refuses leaves nothing outside the stage.
func FuzzExtract(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		into, check := stageOf(t)
		stats, err := extractTar(context.Background(), resum(data), into, archivetest.Limits())
		check()
		if err != nil {
			return
		}
		result, err := archive.Write(context.Background(), into, namer{}, archive.WriteOptions{})
		if err != nil {
			t.Fatalf("what was extracted cannot be captured: %v", err)
		}
		stats.DataBytes, result.Stats.DataBytes = 0, 0 // holes may be made smaller
		if stats != result.Stats {
			t.Errorf("extracted %+v, captured %+v", stats, result.Stats)
		}
	})
}

func FuzzExtractForeign(f *testing.F) {
	seeds(f)
	for _, d := range archivetest.Dialects() {
		f.Add(d.Tar)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		into, check := stageOf(t)
		foreign, err := archive.ExtractForeign(context.Background(), bytes.NewReader(packed(resum(data))), into, archivetest.Limits())
		check()
		if err != nil {
			return
		}
		result, err := archive.Write(context.Background(), into, namer{}, archive.WriteOptions{})
		if err != nil {
			t.Fatalf("what was imported cannot be captured: %v", err)
		}
		if result.Stats.Entries() != foreign.Stats.Entries() {
			t.Errorf("imported %+v, captured %+v", foreign.Stats, result.Stats)
		}
	})
}

func FuzzInflateZstd(f *testing.F) {
	tar := bytes.Repeat([]byte("a member\n"), 100)
	id := archive.MemberID(tar)
	f.Add(archive.Zstd.Deflate(nil, tar), int64(len(tar)))
	for _, forged := range archivetest.ZstdMembers(tar) {
		if len(forged.Data) < 64<<10 {
			f.Add(forged.Data, int64(len(tar)))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, size int64) {
		size = min(size, 1<<20) // so that a round is short
		var got []byte
		took, err := allocated(func() (err error) {
			got, err = archive.Inflate(nil, data, archive.Member{ID: id, Tar: size, Codec: archive.Zstd})
			return err
		})
		if err == nil && !bytes.Equal(got, tar) {
			t.Errorf("%d bytes that are not the member's were taken", len(got))
		}
		if err != nil && !errors.Is(err, archive.ErrRefused) {
			t.Errorf("%v", err)
		}
		if took > 8<<20 {
			t.Errorf("%d bytes of data took %d of memory", len(data), took)
		}
	})
}

func FuzzInflate(f *testing.F) {
	tar := bytes.Repeat([]byte("a member\n"), 100)
	good, id := archive.Gzip.Deflate(nil, tar), archive.MemberID(tar)
	f.Add(good, int64(len(tar)))
	f.Add(good[:len(good)-1], int64(len(tar)))
	f.Add(append(bytes.Clone(good), good...), int64(2*len(tar)))
	f.Add(good, int64(-1))
	f.Add([]byte{0x1f, 0x8b, 8, 0xff, 0, 0, 0, 0, 0, 0}, int64(1))
	f.Fuzz(func(t *testing.T, data []byte, size int64) {
		got, err := archive.Inflate(nil, data, archive.Member{ID: id, Tar: size})
		if err == nil && !bytes.Equal(got, tar) {
			t.Errorf("%d bytes that are not the member's were taken", len(got))
		}
	})
}
