package keep_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/keep"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

var update = flag.Bool("update", false, "write the golden files anew")

func load(t testing.TB, text string) *workload.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "snap.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := workload.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const config = `version: 1
base: /data
absolute_roots: [/srv, /opt]
workloads:
  # mail of the house
  mail:
    volumes:
      - {name: spool, scope: stage, source: spool}
      - {scope: absolute, source: /srv/mail}
  other: {volumes: [{scope: project, source: x}]}
`

func document(t testing.TB) *keep.Document {
	t.Helper()
	c := load(t, config)
	data, err := keep.Of(c, c.Workloads["mail"], &runtime.Mounts{Files: []runtime.File{
		{Path: "/srv/mail/compose.yaml", Kind: runtime.ComposeFile, Content: []byte("services: {}\n")},
		{Path: "/srv/mail/.env", Kind: runtime.EnvFile, Content: []byte{}},
		{Path: "${X}.env", Kind: runtime.EnvFile, Left: "its path has a variable in it"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := keep.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func sealed(t testing.TB, d *keep.Document) []byte {
	t.Helper()
	data, err := disk.MarshalSealed(d, "snap-config", 1)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What version 1 wrote, every later version must read.
func TestADocumentOfVersion1IsWrittenAndReadAsEver(t *testing.T) {
	d := document(t)
	d.Host, d.Path = "alpha", "/etc/snap/snap.yaml"
	data := sealed(t, d)
	if *update {
		if err := os.WriteFile("testdata/config.v1.json", data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/config.v1.json")
	if err != nil || !bytes.Equal(data, want) {
		t.Errorf("it is written as\n%s\nexpected\n%s: %v", data, want, err)
	}
	got, err := keep.Read(want)
	if err != nil || got.Workload != "mail" || got.Base != "/data" || len(got.AbsoluteRoots) != 2 || got.Volumes[0].Path != "/data/mail/default/spool" ||
		string(got.Files[0].Content) != "services: {}\n" || got.Files[2].Left == "" || !strings.Contains(got.Config, "# mail of the house") {
		t.Errorf("it is read as %+v: %v", got, err)
	}
}

// What is pasted into a config makes it one that has the workload, whatever it had before.
func TestWhatIsPastedIsTheWorkload(t *testing.T) {
	d := document(t)
	for name, c := range map[string]struct{ config, as, spool string }{
		"no workload":      {"version: 1\n", "mail", "/data/mail/default/spool"},
		"another one":      {"version: 1\nbase: /data\nworkloads:\n  other: {volumes: [{scope: absolute, source: /srv/x}]}\n", "mail", "/data/mail/default/spool"},
		"other roots":      {"version: 1\nbase: /data\nabsolute_roots: [/mnt, /opt]\n", "mail", ""},
		"under a new name": {"version: 1\nbase: /data\n", "post", "/data/mail/default/spool"},
	} {
		host := load(t, c.config)
		text, err := d.Paste(host, c.as)
		if err != nil {
			t.Fatal(err)
		}
		if name == "other roots" {
			if want := "absolute_roots:\n  - /mnt\n  - /opt\n  - /srv\nworkloads:\n"; !strings.HasPrefix(text, want) {
				t.Errorf("%s: it begins\n%s", name, text)
			}
			continue
		}
		own := load(t, c.config+text).Workloads[c.as]
		if own == nil || len(own.Volumes) != 2 || own.Volumes[0].Path() != c.spool || own.Volumes[1].Path() != "/srv/mail" {
			t.Errorf("%s: it is %+v", name, own)
		}
	}
}

// forged has what a hostile store could hold.
var forged = map[string]func(*keep.Document){
	"no YAML":              func(d *keep.Document) { d.Config = "mail: [" },
	"two workloads":        func(d *keep.Document) { d.Config = "mail: {image: x}\nevil: {image: y}\n" },
	"two documents":        func(d *keep.Document) { d.Config = "mail: {image: x}\n---\nevil: {image: y}\n" },
	"a list":               func(d *keep.Document) { d.Config = "[mail]\n" },
	"no workload":          func(d *keep.Document) { d.Config = "mail: x\n" },
	"a relative base":      func(d *keep.Document) { d.Base = "data" },
	"a root that leads up": func(d *keep.Document) { d.AbsoluteRoots = []string{"/srv/../etc"} },
	"another kind":         func(d *keep.Document) { d.Files[2].Kind = "secret" },
	"a relative file":      func(d *keep.Document) { d.Files[0].Path = "compose.yaml" },
	"a file that leads up": func(d *keep.Document) { d.Files[0].Path = "/srv/../../etc/passwd" },
	"the root as a file":   func(d *keep.Document) { d.Files[0].Path = "/" },
	"a file with a NUL":    func(d *keep.Document) { d.Files[0].Path = "/srv/a\x00b" },
	"a file twice":         func(d *keep.Document) { d.Files[0].Path = d.Files[1].Path },
	"a file in a file":     func(d *keep.Document) { d.Files[1].Path = d.Files[0].Path + "/x" },
	"a file above a file":  func(d *keep.Document) { d.Files[1].Path = "/srv" },
}

func TestAForgedDocumentIsDamaged(t *testing.T) {
	for name, forge := range forged {
		d := document(t)
		forge(d)
		if got, err := keep.Read(sealed(t, d)); !errors.Is(err, disk.ErrDamaged) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	root := document(t)
	root.Base, root.AbsoluteRoots = "/", []string{"/"}
	if _, err := keep.Read(sealed(t, root)); err != nil {
		t.Errorf("where all of the host is a root: %v", err)
	}
	many := document(t)
	many.Files = nil
	for i := range 1001 {
		many.Files = append(many.Files, keep.File{Path: fmt.Sprintf("/srv/%d", i), Kind: runtime.EnvFile})
	}
	if _, err := keep.Read(sealed(t, many)); !errors.Is(err, disk.ErrDamaged) {
		t.Errorf("of 1001 files: %v", err)
	}
	newer, err := disk.MarshalSealed(document(t), "snap-config", 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keep.Read(newer); !errors.Is(err, disk.ErrTooNew) {
		t.Errorf("of a later version: %v", err)
	}
}

// A document that is read can be pasted, and is one workload.
func FuzzRead(f *testing.F) {
	d := document(f)
	f.Add(sealed(f, d))
	for _, forge := range forged {
		d := document(f)
		forge(d)
		f.Add(sealed(f, d))
	}
	host := load(f, "version: 1\n")
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := keep.Read(data)
		if err != nil {
			return
		}
		if _, err := d.Paste(host, "blog"); err != nil {
			t.Errorf("%q was read and cannot be pasted: %v", d.Config, err)
		}
	})
}
