package foreign_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/archivetest"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// imported extracts an archive as snap import does, and returns what came of it.
func imported(t *testing.T, data []byte) (tree []string, got *archive.Foreign, err error) {
	t.Helper()
	dir := t.TempDir()
	if got, err = extract(t, data, dir); err != nil {
		return nil, nil, err
	}
	return disktest.Tree(t, dir), got, nil
}

func extract(t *testing.T, data []byte, dir string) (*archive.Foreign, error) {
	t.Helper()
	into, err := disk.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer into.Close()
	opt := archivetest.Limits()
	opt.MaxBytes, opt.MaxDepth, opt.MaxEntries, opt.Default = 16<<20, 100, 10_000, archive.Entry{Mode: 0o755}
	return archive.ExtractForeign(t.Context(), bytes.NewReader(data), into, opt)
}

func importInto(t *testing.T, data []byte, dir string) {
	t.Helper()
	if _, err := extract(t, data, dir); err != nil {
		t.Fatal(err)
	}
}

// gnu extracts the same archive with GNU tar, which reads ACLs either as text or as
// attributes.
func gnu(t *testing.T, data []byte, acls string) []string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "archive")
	if bytes.HasPrefix(data, []byte("\x28\xb5\x2f\xfd")) { // zstd(1) does not know the padding
		data = bytes.TrimRight(data, "\x00")
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	disktest.Write(t, dir, map[string]string{"out/": ""})
	disktest.Run(t, "tar", "-x", "-p", "-f", file, "-C", out, "--numeric-owner", "--xattrs", "--xattrs-include=*", acls)
	return disktest.Tree(t, out)
}

// recent is a directory that was made a moment ago: the archive does not say what it is
// like.
var recent = regexp.MustCompile(`^("[^"]*") mode=4\d+ .* mtime=1[5-9]\d{8}\.`)

// same compares what GNU tar and an import made of an archive.
func same(t *testing.T, data []byte, acls string, got []string) {
	t.Helper()
	want, got := alike(gnu(t, data, acls), got)
	disktest.Same(t, "imported, and extracted by GNU tar", want, got)
}

// alike leaves out of both trees the directories that the archive says nothing of.
func alike(want, got []string) (_, _ []string) {
	for _, line := range want {
		if m := recent.FindStringSubmatch(line); m != nil {
			is := func(line string) bool { return strings.HasPrefix(line, m[1]+" mode=4") }
			want, got = slices.DeleteFunc(slices.Clone(want), is), slices.DeleteFunc(got, is)
		}
	}
	return want, got
}

func TestEachDialectMeansWhatItMeansToGNUTar(t *testing.T) {
	disktest.NeedRoot(t)
	for _, d := range archivetest.Dialects() {
		t.Run(d.Name, func(t *testing.T) {
			got, _, err := imported(t, d.Tar)
			if err != nil {
				t.Fatal(err)
			}
			same(t, d.Tar, "--acls", got)
		})
	}
}
