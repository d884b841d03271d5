package main

import (
	"os"

	"github.com/tiny-forge/snap/pkg/archive/archivetest"
)

// zstdInName makes the manifest, and nothing else, one of zstd members.
func zstdInName(f *forged) { f.doc["version"], f.volume["compression"] = 2, "zstd" }

// zstdOf is an honest snapshot in zstd members.
func zstdOf(h *host, changes ...func(*forged)) *forged {
	h.Helper()
	return honest(h, append([]func(*forged){zstdInName, func(f *forged) {
		tar := archivetest.EveryKind()
		f.members, f.ext = nil, ".zst"
		for len(tar) > 0 {
			n := min(pieces, len(tar))
			f.add(h, tar[:n], archivetest.PackZstd(tar[:n]))
			tar = tar[n:]
		}
	}}, changes...)...)
}

// forgedZstd are the forgeries of a zstd member, each in the place of the second
// of an honest snapshot.
func forgedZstd() []forgery {
	list := []forgery{
		{"an honest snapshot in zstd", 0, "", func(h *host) *forged { return zstdOf(h) }},
		{"gzip under the name of zstd", 3, "snapshot_damaged", func(h *host) *forged {
			return zstdWith(h, pack(archivetest.EveryKind()[pieces:2*pieces]))
		}},
		{"nothing under the name of zstd", 3, "members_missing", func(h *host) *forged { return zstdWith(h, nil) }},
	}
	for _, m := range archivetest.ZstdMembers(archivetest.EveryKind()[pieces : 2*pieces]) {
		c := forgery{name: "zstd: " + m.Name, exit: 3, code: "snapshot_damaged", forge: func(h *host) *forged { return zstdWith(h, m.Data) }}
		if m.Taken {
			c.exit, c.code = 0, ""
		}
		list = append(list, c)
	}
	return list
}

func zstdWith(h *host, data []byte) *forged {
	h.Helper()
	f := zstdOf(h)
	if err := os.WriteFile(f.path(h, 1), data, 0o600); err != nil {
		h.Fatal(err)
	}
	return f
}
