package archive_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/archivetest"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

func TestEachForgedArchiveIsRefusedAndNothingOutsideChanges(t *testing.T) {
	for _, a := range archivetest.Attacks() {
		t.Run(a.Name, func(t *testing.T) {
			stage, outside, untouched := sandbox(t)
			begun := time.Now()
			_, err := extractTar(context.Background(), a.Tar(outside), open(t, stage), a.Limits())
			if !errors.Is(err, archive.ErrRefused) || !strings.Contains(err.Error(), a.Want) {
				t.Errorf("the answer is %v; expected a refusal that says %q", err, a.Want)
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			untouched()
		})
	}
}

// The refusals above mean something only if an honest archive of the same forger is
// accepted.
func TestAnHonestArchiveOfTheForgerIsAccepted(t *testing.T) {
	stage, _, untouched := sandbox(t)
	f := &archivetest.Forge{}
	f.Root()
	f.Dir("d")
	f.Pax(archivetest.Record("path", "d/"+strings.Repeat("n", 200)), archivetest.Record("mtime", "-1.5"), archivetest.Record("uid", "4294967294"), archivetest.Record("SCHILY.xattr.user.a", "v"))
	f.File("d/short", "content")
	f.Pax(archivetest.Record("linkpath", "d/"+strings.Repeat("n", 200)))
	f.Link("hard", "cut")
	f.Sparse("sparse", "1048576", "1\n4096\n512\n", strings.Repeat("x", 512))
	f.Soft("soft", "/etc/passwd")
	f.File("z", "")
	f.End()
	opt := archivetest.Limits()
	opt.MaxBytes = 2 << 20
	stats, err := extractTar(context.Background(), f.Bytes(), open(t, stage), opt)
	if err != nil {
		t.Fatal(err)
	}
	want := archive.Stats{Files: 3, Dirs: 2, Symlinks: 1, Hardlinks: 1, Bytes: 1<<20 + 7, DataBytes: 519, Depth: 2}
	if stats != want {
		t.Errorf("made %+v, expected %+v", stats, want)
	}
	untouched()
}

// sandbox makes a stage with canaries all around it. It returns the stage, the directory
// at which hostile names and links aim, and a check that only the stage has changed.
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
