package main

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// many puts a snapshot with so many members into the store, as an earlier version of snap
// wrote it, without a summary. It returns the length of the manifest.
func (h *host) many(members int) int64 {
	h.Helper()
	list := make([]string, members)
	for i := range list {
		list[i] = fmt.Sprintf("        {\n          \"id\": \"%x\",\n          \"tar\": 1048576,\n          \"stored\": 262144\n        }", sha256.Sum256(fmt.Append(nil, i)))
	}
	text := fmt.Sprintf(`{
  "format": "snap-manifest",
  "version": 1,
  "checksum": "sha256:%064d",
  "workload": "files",
  "sid": "20260102T030405Z-abcdef",
  "created": "2026-01-02T03:04:05Z",
  "reason": "manual",
  "note": "",
  "quiesce": "none",
  "snap": "1.0.0",
  "images": [],
  "volumes": [
    {
      "name": "files",
      "scope": "absolute",
      "source": "%s",
      "target": "/data",
      "files": 1,
      "dirs": 1,
      "symlinks": 0,
      "hardlinks": 0,
      "bytes": 1,
      "data_bytes": 1,
      "depth": 1,
      "sockets": 0,
      "changed": 0,
      "members": [
%s
      ]
    }
  ]
}
`, 0, h.liveDir(), strings.Join(list, ",\n"))
	text = strings.Replace(text, strings.Repeat("0", 64), fmt.Sprintf("%x", sha256.Sum256([]byte(text))), 1)
	h.put(filepath.Join("store/snapshots/files/20260102T030405Z-abcdef/manifest.json"), []byte(text))
	return int64(len(text))
}

// A list and a status of a snapshot with 300,000 members take little memory and read the
// manifest at most once, and not at all once a summary lies beside it.
func TestAListOfManyMembersTakesLittle(t *testing.T) {
	h := newHost(t, installedSnap(t), t.TempDir())
	size := h.many(300_000)
	const own = 2 << 20 // what a run reads besides
	measured := func(most int64, wants string, args ...string) {
		t.Helper()
		o := h.run(args...)
		t.Logf("snap %s: %v, %d MiB of memory, %d of %d bytes read", strings.Join(args, " "), o.took, o.peak>>20, o.read, size)
		h.modest(o, 50)
		if !strings.Contains(o.stdout, wants) {
			t.Errorf("snap %q prints %s%s", args, o.stdout, o.stderr)
		}
		if o.read > most {
			t.Errorf("snap %q reads %d bytes, at most %d are expected", args, o.read, most)
		}
	}
	all := func(most int64) {
		t.Helper()
		measured(most, `"members":300000`, "list", "files", "--json")
		measured(most, "20260102T030405Z-abcdef", "status", "files")
		measured(size+own, "the last snapshot is", "status", "files", "--check") // it verifies the manifest
	}
	all(size + own)
	if o := h.run("prune", "files", "--keep-last", "9"); o.exit != 0 {
		t.Fatal(o.stderr)
	}
	all(own)
}
