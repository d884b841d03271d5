package engine

import (
	"os"
	"testing"
)

func TestWhoseDirectoriesAre(t *testing.T) {
	mine := t.TempDir()
	if err := os.Chown(mine, 1234, 2345); err != nil {
		t.Skipf("it takes root to give a directory away: %v", err)
	}
	seccomp := "name=seccomp,profile=default"
	for name, c := range map[string]struct {
		options  []string
		root     string
		uid, gid int
		fails    bool
	}{
		"as usual":         {[]string{seccomp}, "/var/lib/docker", 0, 0, false},
		"mapped":           {[]string{seccomp, "name=userns"}, "/var/lib/docker/100000.200000", 100000, 200000, false},
		"mapped to nobody": {[]string{"name=userns"}, "/var/lib/docker", 0, 0, true},
		"rootless":         {[]string{seccomp, "name=rootless"}, mine, 1234, 2345, false},
		"rootless, gone":   {[]string{"name=rootless"}, mine + "/gone", 0, 0, true},
	} {
		if uid, gid, err := ownerOf(c.options, c.root); uid != c.uid || gid != c.gid || (err != nil) != c.fails {
			t.Errorf("%s: %d:%d, %v", name, uid, gid, err)
		}
	}
}
