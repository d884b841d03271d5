package restore

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/fault"
)

// holds fails the test unless every member of a snapshot uses the codec, and the
// concatenated member files of each volume, decompressed by the codec's own
// command, are the volume's tar.
func (w *world) holds(sid string, codec archive.Codec, states [][]string) {
	w.Helper()
	m, err := w.engine().Store.Load(w.name, sid)
	w.must(err)
	for i := range m.Volumes {
		v := &m.Volumes[i]
		var all []byte
		for _, member := range v.Members {
			data, err := os.ReadFile(filepath.Join(w.dir, "store/members", member.ID[:2], member.ID+codec.Ext()))
			w.must(err)
			all = append(all, data...)
		}
		unpack := exec.Command(codec.String(), "-dc")
		unpack.Stdin = bytes.NewReader(all)
		tar, err := unpack.Output()
		w.must(err)
		into, file := w.TempDir(), filepath.Join(w.TempDir(), "tar")
		w.must(os.WriteFile(file, tar, 0o600))
		disktest.Run(w.T, "tar", "-xpf", file, "--numeric-owner", "--xattrs", "--xattrs-include=*", "--warning=no-timestamp", "-C", into)
		disktest.Same(w.T, "volume "+v.Name+" by hand", states[i], disktest.Tree(w.T, into))
	}
}

// The codec of the config changes between operations. Captures, pre-restore ones
// too, use the codec of the config; a restore uses the codec of its snapshot.
func TestAStoreOfBothCodecs(t *testing.T) {
	if _, err := exec.LookPath("zstd"); err != nil {
		t.Skip("without zstd: testdata/setup.sh installs it")
	}
	w := newWorld(t, disktest.Mount(t, "ext4", 256), 2)
	zstd := func() { w.edit("version: 1\n", "version: 1\ncompression: zstd\n") }
	gzip := func() { w.edit("compression: zstd\n", "") }
	states := map[string][][]string{}
	w.fill("one")
	w.must(os.Remove(filepath.Join(w.volumes[0], "empty")))
	disktest.Rich(t, w.volumes[0])
	states["one"] = w.trees()
	plain := w.capture()
	zstd()
	packed := w.capture()
	w.fill("two")
	states["two"] = w.trees()

	var preRestore []string
	for i, c := range []struct {
		sid   *string
		codec archive.Codec // of the config
		want  string
	}{
		{&plain, archive.Zstd, "one"}, {&packed, archive.Zstd, "one"}, {nil, archive.Gzip, "two"}, {&packed, archive.Gzip, "one"}, {nil, archive.Zstd, "two"},
	} {
		switch {
		case i == 2:
			gzip()
		case i == 4:
			zstd()
		}
		before := w.trees()
		sid := preRestore
		if c.sid != nil {
			sid = []string{*c.sid}
		}
		r, err := w.restore(sid[0]) // the first pre-restore snapshot holds "two"
		w.must(err)
		if got := w.generation(states); got != c.want {
			t.Fatalf("restore %d left %s", i, got)
		}
		w.holds(r.PreRestoreSID, c.codec, before)
		preRestore = append(preRestore, r.PreRestoreSID)
	}
	w.holds(plain, archive.Gzip, states["one"])
	w.holds(packed, archive.Zstd, states["one"])
	w.clean()
}

// An unchanged volume is stored again only when the store has no members of it in
// the configured codec.
func TestACaptureReusesOnlyMembersOfItsOwnCodec(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1)
	w.fill("data")
	for i, step := range []struct {
		edit [2]string
		adds bool
	}{
		{[2]string{"version: 1\n", "version: 1\n"}, true},
		{[2]string{"version: 1\n", "version: 1\ncompression: zstd\n"}, true},
		{[2]string{"compression: zstd\n", "compression: zstd\n"}, false},
		{[2]string{"compression: zstd\n", "compression: gzip\n"}, false},
	} {
		w.edit(step.edit[0], step.edit[1])
		r, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: "none"})
		w.must(err)
		if (r.Added > 0) != step.adds {
			t.Errorf("capture %d added %d bytes", i, r.Added)
		}
	}
}

// An export writes the codec that was asked for; an import stores members in the
// codec of the config.
func TestAnExportUsesEitherCodecAndAnImportTheConfiguredOne(t *testing.T) {
	w := newWorld(t, disktest.Mount(t, "ext4", 256), 1)
	disktest.Rich(t, w.volumes[0])
	states := map[string][][]string{"rich": w.trees()}
	plain := w.capture()
	w.edit("version: 1\n", "version: 1\ncompression: zstd\n")
	packed := w.capture()
	for _, c := range []struct{ sid, ask, want string }{
		{plain, "", "gzip"}, {plain, "zstd", "zstd"}, {packed, "", "zstd"}, {packed, "gzip", "gzip"}, {packed, "zstd", "zstd"},
	} {
		var out bytes.Buffer
		x, err := w.engine().Export(t.Context(), w.name, c.sid, "", c.ask, &out)
		w.must(err)
		magic := map[string]string{"gzip": "\x1f\x8b", "zstd": "\x28\xb5\x2f\xfd"}[c.want]
		if x.Compression != c.want || !bytes.HasPrefix(out.Bytes(), []byte(magic)) {
			t.Errorf("asked for %q: the export reports %s and begins with %x", c.ask, x.Compression, out.Bytes()[:4])
		}
		r, err := w.engine().Import(t.Context(), w.name, "v0", &out, "")
		w.must(err)
		if v := r.Manifest.Volumes[0]; v.Compression != archive.Zstd {
			t.Errorf("imported as %s", v.Compression)
		}
		w.fill("old")
		_, err = w.restore(r.Manifest.SID)
		w.must(err)
		w.generation(states)
	}
	if _, err := w.engine().Export(t.Context(), w.name, plain, "", "lz4", &bytes.Buffer{}); fault.KindOf(err) != fault.Usage {
		t.Errorf("an export as lz4: %v", err)
	}
	w.clean()
}
