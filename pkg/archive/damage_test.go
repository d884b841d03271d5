package archive_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/archivetest"
)

func TestATruncatedArchiveIsRefusedWhereverItEnds(t *testing.T) {
	whole := archivetest.EveryKind()
	for at := 0; at < len(whole); at++ {
		if at%512 > 1 && at%512 != 511 && at%512 != 100 {
			continue // the boundaries of blocks, and places in between
		}
		_, err := extractTar(context.Background(), whole[:at], open(t, t.TempDir()), archivetest.Limits())
		if !errors.Is(err, archive.ErrRefused) {
			t.Fatalf("cut at byte %d of %d: %v", at, len(whole), err)
		}
	}
	if _, err := extractTar(context.Background(), whole, open(t, t.TempDir()), archivetest.Limits()); err != nil {
		t.Fatalf("the whole: %v", err)
	}
}

// An operator does not react to a failing disk as to a forged archive.
func TestAFailingDiskIsNotCalledAForgedArchive(t *testing.T) {
	whole := archivetest.EveryKind()
	disk := errors.New("input/output error")
	for at := 0; at < len(whole); at += 512 {
		before, bad := member(whole[:at]), member([]byte("bad"))
		o := opener{map[string][]byte{before.ID: archive.Gzip.Deflate(nil, whole[:at])}, map[string]error{bad.ID: disk}}
		members := []archive.Member{before, bad}
		if at == 0 {
			members = members[1:]
		}
		r := archive.NewReader(context.Background(), o, members)
		_, err := archive.Extract(context.Background(), r, open(t, t.TempDir()), archivetest.Limits())
		r.Close()
		if !errors.Is(err, disk) || errors.Is(err, archive.ErrRefused) {
			t.Fatalf("a read error at byte %d came back as: %v", at, err)
		}
	}
}

func TestAFlippedBitInAHeaderCausesNoPanicAndNoEscape(t *testing.T) {
	whole := archivetest.EveryKind()
	stage, _, untouched := sandbox(t)
	refused := 0
	for at := 0; at < len(whole); at += 23 {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 1 << (at % 8)
		into, err := open(t, stage).MakePrivate("x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := extractTar(context.Background(), damaged, into, archivetest.Limits()); err != nil {
			refused++
		}
		into.Close()
		if err := open(t, stage).RemoveTree("x"); err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Error("no damage was ever noticed")
	}
	untouched()
}

func TestACancelledExtractionSaysWhy(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("the operator said stop")
	cancel(why)
	_, err := extractTar(ctx, archivetest.EveryKind(), open(t, t.TempDir()), archivetest.Limits())
	if !errors.Is(err, why) || errors.Is(err, archive.ErrRefused) {
		t.Errorf("a cancelled extraction returned %v", err)
	}
}

func TestAFileInTheStageIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	into := open(t, dir)
	if err := into.WriteTemp("a", []byte("mine")); err != nil {
		t.Fatal(err)
	}
	if _, err := extractTar(context.Background(), archivetest.EveryKind(), into, archivetest.Limits()); !errors.Is(err, archive.ErrRefused) {
		t.Errorf("a name that is taken: %v", err)
	}
	if got, err := into.ReadFile("a", 10); err != nil || string(got) != "mine" {
		t.Errorf("the file that stood there is %q now: %v", got, err)
	}
}
