package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
)

// forged is a snapshot that a forger has written into a store. All its checksums
// are correct, so that only its content can be refused. It shares no code with the
// program.
type forged struct {
	workload, sid string
	doc           map[string]any   // the manifest
	volume        map[string]any   // its first volume
	members       []map[string]any // of that volume
	edit          func(manifest []byte) []byte
	noChecksum    bool
	index         []byte
	ext           string // of the members' files
}

// pack is an honest gzip member.
func pack(tar []byte) []byte {
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	_, _ = zw.Write(tar) // into memory
	_ = zw.Close()
	return out.Bytes()
}

func memberID(tar []byte) string {
	sum := sha256.Sum256(tar)
	return hex.EncodeToString(sum[:])
}

// pieces is how large a member of a forged snapshot is: small, so that most
// have several.
const pieces = 1000

// forge puts a snapshot of the tar stream into the store. Its counts are the
// most that such a stream may have; changes make it worse.
func (h *host) forge(tar []byte, changes ...func(*forged)) *forged {
	h.Helper()
	h.sids++
	f := &forged{workload: "files", sid: fmt.Sprintf("20260102T030405Z-%06x", h.sids), index: pack([]byte("snap-index\t1\tx\n")), ext: ".gz"}
	f.volume = map[string]any{
		"name": "files", "scope": "absolute", "source": h.liveDir(), "target": "/data",
		"files": min(100, max(len(tar)/512-1, 0)), "dirs": 1, "symlinks": 0, "hardlinks": 0,
		"bytes": 1 << 20, "data_bytes": 0, "depth": 20, "sockets": 0, "changed": 0,
	}
	for len(tar) > 0 {
		n := min(pieces, len(tar))
		f.add(h, tar[:n], pack(tar[:n]))
		tar = tar[n:]
	}
	f.doc = map[string]any{
		"format": "snap-manifest", "version": 1, "checksum": "sha256:" + strings.Repeat("0", 64),
		"workload": f.workload, "sid": f.sid, "created": "2026-01-02T03:04:05Z", "reason": "manual", "note": "forged",
		"quiesce": "none", "snap": "1.0.0", "images": []any{}, "volumes": []any{f.volume},
	}
	for _, change := range changes {
		change(f)
	}
	f.volume["members"] = f.members
	f.publish(h)
	return f
}

// add appends a member that is stored as data.
func (f *forged) add(h *host, tar, data []byte) {
	h.Helper()
	f.members = append(f.members, map[string]any{"id": memberID(tar), "tar": len(tar), "stored": len(data)})
	h.put(f.memberPath(memberID(tar)), data)
}

func (f *forged) memberPath(id string) string {
	return filepath.Join("store/members", id[:2], id+f.ext)
}

// path is where member i is stored.
func (f *forged) path(h *host, i int) string {
	return filepath.Join(h.dir, f.memberPath(f.members[i]["id"].(string)))
}

func (h *host) put(name string, data []byte) {
	h.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		h.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		h.Fatal(err)
	}
}

func (f *forged) folder() string { return filepath.Join("store/snapshots", f.workload, f.sid) }

func (f *forged) publish(h *host) {
	h.Helper()
	data, err := json.MarshalIndent(f.doc, "", "  ")
	if err != nil {
		h.Fatal(err)
	}
	if f.edit != nil {
		data = f.edit(data)
	}
	const prefix = `"checksum": "sha256:`
	if at := bytes.Index(data, []byte(prefix)) + len(prefix); at >= len(prefix) && !f.noChecksum {
		sum := sha256.Sum256(data)
		hex.Encode(data[at:], sum[:])
	}
	h.put(filepath.Join(f.folder(), "manifest.json"), data)
	h.put(filepath.Join(f.folder(), "index.gz"), f.index)
}

// set changes fields of the manifest's first volume.
func set(fields map[string]any) func(*forged) {
	return func(f *forged) { maps.Copy(f.volume, fields) }
}

// replaced changes the manifest's text.
func replaced(old, new string) func(*forged) {
	return func(f *forged) {
		f.edit = func(data []byte) []byte {
			if !bytes.Contains(data, []byte(old)) {
				panic(fmt.Sprintf("%q is not in %s", old, data))
			}
			return bytes.Replace(data, []byte(old), []byte(new), 1)
		}
	}
}

// restore runs the restore of a forged snapshot.
func (h *host) restore(f *forged, args ...string) outcome {
	h.Helper()
	return h.run(append([]string{"restore", f.workload, f.sid, "--confirm", f.sid}, args...)...)
}
