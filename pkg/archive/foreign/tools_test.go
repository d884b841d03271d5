package foreign_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// The tools themselves write archives of one tree, in all their formats. An import makes
// of each what GNU tar makes of it.
func TestWhatOtherToolsWriteIsImportedAsGNUTarExtractsIt(t *testing.T) {
	disktest.NeedRoot(t)
	dir := t.TempDir()
	live := filepath.Join(dir, "live")
	disktest.Write(t, live, map[string]string{
		"a": "a", "b/c/d": "d", "empty/": "", "z": strings.Repeat("z", 300_000), "zeros": strings.Repeat("\x00", 2000), "big/" + strings.Repeat("n", 150): "long name",
	})
	for _, step := range []string{
		"ln -s target soft && ln soft b/hard-soft && ln a b/hard-a", "truncate -s 3M sparse && printf middle | dd of=sparse bs=1 seek=1500000 conv=notrunc status=none",
		"chown 1234:4321 a && chown -h 7:8 soft && chmod 2750 b && chmod 0 empty", "setfattr -n user.x -v 'v=%' a && setfacl -m u:1234:r,g:7:rw a && setfacl -d -m u:9:rwx b",
		"touch -d @-1.5 b/c/d && touch -h -d @1000000000.123456789 soft a b z zeros sparse big/n* && touch -d @1000000001 b/c b empty big .",
	} {
		disktest.Run(t, "sh", "-c", "cd "+live+" && "+step)
	}
	for _, c := range []struct{ tool, command string }{
		{"tar", "tar -C live -cf - ."},
		{"tar", "tar -C live -czf - --format=oldgnu ."},
		{"tar", "tar -C live -czSf - --format=gnu ."},
		{"zstd", "tar -C live --zstd -cSf - --format=posix --sparse-version=0.0 ."},
		{"tar", "tar -C live -czSf - --format=posix --sparse-version=0.1 --xattrs --acls ."},
		{"tar", "tar -C live -czSf - --format=posix --sparse-version=1.0 --xattrs --xattrs-include=* ."},
		{"tar", "tar -C live -cf - --format=posix --xattrs --acls --numeric-owner -V label ."},
		{"tar", "tar -C live -cf - --format=gnu -V 'a label' --blocking-factor=1 ."},
		{"tar", "tar -C live -cf - --format=gnu --listed-incremental=snar1 ."},
		{"tar", "tar -C live -cf - --format=posix --listed-incremental=snar2 ."},
		{"tar", "tar -C live -cf - --format=posix --pax-option=mtime=1.5,globexthdr.name=g ."},
		{"tar", "tar -C live -cf - --format=posix --pax-option=delete=mtime,comment=x ."},
		{"tar", "tar -C live -cf - --format=gnu --no-recursion . b b a b"},
		{"tar", "tar -C live -cf - --format=gnu b ./b/c b ././z"},
		{"bsdtar", "bsdtar -C live -cf - ."},
		{"bsdtar", "bsdtar -C live -czf - ."},
		{"bsdtar", "bsdtar -C live -czf file.tgz . && cat file.tgz"},
		{"bsdtar", "bsdtar -C live --zstd -cf - ."},
		{"bsdtar", "bsdtar -C live --zstd -b 1 -cf - ."},
		{"bsdtar", "bsdtar -C live --format=pax -cf - ."},
		{"bsdtar", "bsdtar -C live --format=gnutar -czf - ."},
		{"bsdtar", "bsdtar -C live --format=ustar --exclude='big' -cf - ."},
		{"bsdtar", "bsdtar -C live --format=v7 --exclude='big' -cf - a b z"},
		{"python3", py("t.add('live', arcname='/')", "PAX")},
		{"python3", py("t.add('live', arcname='')", "GNU")},
		{"python3", py("t.add('live', arcname='.')", "PAX")},
		{"python3", py("t.pax_headers = {'comment': 'x', 'creator': 'me'}; t.add('live', arcname='.')", "PAX")},
	} {
		t.Run(c.command, func(t *testing.T) {
			disktest.Need(t, c.tool)
			cmd := exec.Command("bash", "-o", "pipefail", "-c", c.command)
			cmd.Dir, cmd.Stderr = dir, os.Stderr
			data, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := imported(t, data)
			if err != nil {
				t.Fatal(err)
			}
			acls := "--acls"
			if strings.Contains(c.command, "xattrs-include") && !strings.Contains(c.command, "--acls") {
				acls = "--no-acls"
			}
			same(t, data, acls, got)
		})
	}
}

func py(do, format string) string {
	return `python3 -c "import sys, tarfile
t = tarfile.open(fileobj=sys.stdout.buffer, mode='w|gz', format=tarfile.` + format + `_FORMAT)
` + do + `
t.close()"`
}
