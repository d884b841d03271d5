package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
)

// TestANewHostBringsAComposeProjectBack loses everything but the store, and follows
// docs/operating.md word by word.
func TestANewHostBringsAComposeProjectBack(t *testing.T) {
	h := bareHost(t)
	image := dockertest.Image(t, testApp)
	dockertest.NeedCompose(t)
	project := filepath.Join(h.dir, "shop")
	disktest.Write(t, project, map[string]string{
		".env": fmt.Sprintf("ADDRESS=%s\nPASSWORD='hunter2'\n", strings.TrimPrefix(h.url, "http://")),
		"compose.yaml": fmt.Sprintf(`name: %s
services:
  app:
    image: %s
    environment: {META: /meta, PASSWORD: "${PASSWORD}"}
    healthcheck: {test: [CMD, /app, healthcheck], interval: 500ms, timeout: 30s, retries: 5}
    ports: ["${ADDRESS}:8080"]
    volumes: ["%s:/data", "%s:/meta"]
`, h.name, image, h.posts, h.meta),
	})
	file := filepath.Join(project, "compose.yaml")
	config := func(workloads string) {
		t.Helper()
		h.must(os.WriteFile(h.config, []byte(fmt.Sprintf("version: 1\nstate: %[1]s/state\nstore: %[1]s/store\nabsolute_roots: [%[1]s/srv]\n%[2]s", h.dir, workloads)), 0o600))
	}
	config("workloads:\n  " + h.name + ":\n    compose: " + file + " # the shop\n")
	h.snap("deploy", h.name)
	t.Cleanup(func() { disktest.Run(t, "docker", "compose", "-f", file, "down", "-t", "1") })
	h.write("new")
	sid := strings.TrimSpace(h.snap("capture", h.name))
	want := disktest.Tree(t, project)
	shown := h.snap("show", h.name, sid)
	for _, path := range []string{file, project + "/.env"} {
		if !strings.Contains(shown, "\n"+path+" ") {
			t.Errorf("show does not list %s:\n%s", path, shown)
		}
	}
	if all := shown + h.snap("show", h.name, sid, "--json"); strings.Contains(all, "hunter2") {
		t.Errorf("show prints a secret:\n%s", all)
	}

	disktest.Run(t, "docker", "compose", "-f", file, "down", "-t", "1")
	for _, gone := range []string{project, h.dir + "/srv", h.dir + "/state"} {
		h.must(os.RemoveAll(gone))
	}
	h.must(os.Mkdir(h.dir+"/srv", 0o755))
	config("")
	printed := h.snap("restore", h.name, "--config-from", sid)
	for _, line := range []string{"\n# file \"" + file + "\" (compose), ", "\n# volume \"" + h.posts + "\" was \"" + h.posts + "\"\n", "--config-from " + sid + " --to DIR --config " + h.config + "\n"} {
		if !strings.Contains(printed, line) {
			t.Errorf("--config-from does not print %q:\n%s", line, printed)
		}
	}
	if strings.Contains(printed, "hunter2") {
		t.Errorf("the content of a file is printed:\n%s", printed)
	}

	recipe := strings.NewReplacer("/root/shop", h.dir+"/out", "/srv/shop", project, "/etc/snap/snap.yaml", h.config, "20261123T170024Z-77668a", sid, " shop", " "+h.name).
		Replace(documented(t, "## A new host", 2))
	if strings.Count(recipe, "\n") != 6 {
		t.Fatalf("the recipe is\n%s", recipe)
	}
	script := exec.Command("sh", "-e")
	script.Stdin, script.Env = strings.NewReader(recipe), append(os.Environ(), "SNAP_CONFIG="+h.config)
	if out, err := script.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := disktest.Tree(t, project); len(got) != len(want) {
		t.Errorf("the project's files are\n%s\nand were\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, name := range []string{"compose.yaml", ".env"} {
		kept, err := os.Stat(filepath.Join(h.dir, "out/files", project, name))
		if err != nil || kept.Mode() != 0o600 {
			t.Errorf("%s is %v: %v", name, kept, err)
		}
	}
	if state := h.state(); state != "new" {
		t.Errorf("the data is %s", state)
	}
	if got := h.answer(); !strings.HasPrefix(got, "new") {
		t.Errorf("the app serves %q", got)
	}
	h.snap("capture", h.name)
}

// documented returns the n-th block of commands in a section of docs/operating.md.
func documented(t *testing.T, heading string, n int) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n"+heading+"\n")
	parts := strings.Split(section, "\n```")
	if !found || len(parts) < 2*n {
		t.Fatalf("docs/operating.md has no block %d under %q", n, heading)
	}
	_, block, _ := strings.Cut(parts[2*n-1], "\n")
	return block + "\n"
}

// TestAForgedConfigIsShownAndDecidesNothing: what a hostile store keeps reaches neither the
// terminal nor the config as something else, and no file but those of the directory.
func TestAForgedConfigIsShownAndDecidesNothing(t *testing.T) {
	h := newHost(t, installedSnap(t), t.TempDir())
	const injected = hostile + "\nevil:\n  injected: true\n"
	keeps := func(change func(doc map[string]any)) *forged {
		doc := map[string]any{
			"format": "snap-config", "version": 1, "checksum": "sha256:" + strings.Repeat("0", 64),
			"workload": injected, "host": injected, "path": injected, "base": "/srv/\u202eevil\nevil: x", "absolute_roots": []string{"/etc", "/a\nevil: x"},
			"config":  "files: # \u202e\n  volumes: [{scope: absolute, source: /etc, name: \"\\e[2J\\nevil: x\"}]\n",
			"volumes": []any{map[string]any{"name": injected, "path": injected}},
			"files": []any{
				map[string]any{"path": "/etc/cron.d/evil\nevil: x", "kind": "env", "content": []byte("x")},
				map[string]any{"path": injected, "kind": "env", "left_out": injected},
			},
		}
		change(doc)
		data, err := json.MarshalIndent(doc, "", "  ")
		h.must(err)
		// format, version and checksum come first in no order of a map: the seal is that of the text.
		const prefix = `"checksum": "sha256:`
		sum := sha256.Sum256(data)
		copy(data[bytes.Index(data, []byte(prefix))+len(prefix):], hex.EncodeToString(sum[:]))
		f := honest(h, func(f *forged) {
			ids := ""
			for _, m := range f.members {
				ids += fmt.Sprintln(m["id"])
			}
			f.doc["version"], f.doc["config"], f.volume["sum"] = 5, memberID(data), memberID([]byte(ids))
		})
		h.put(filepath.Join(f.folder(), "config.json"), data)
		return f
	}
	f := keeps(func(map[string]any) {})
	for _, args := range [][]string{
		{"show", f.workload, f.sid}, {"show", f.workload, f.sid, "--json"},
		{"restore", f.workload, "--config-from", f.sid}, {"restore", f.workload, "--config-from", f.sid, "--json"},
	} {
		o := h.run(args...)
		if o.exit != 0 {
			t.Errorf("%v: exit %d: %s", args, o.exit, o.stderr)
		}
		for line := range strings.Lines(o.stdout) {
			if strings.HasPrefix(line, "evil") || strings.HasPrefix(line, "  injected") {
				t.Errorf("%v prints the line %q:\n%s", args, line, o.stdout)
			}
		}
	}
	to := filepath.Join(h.dir, "srv/kept")
	if o := h.run("restore", f.workload, "--config-from", f.sid, "--to", to); o.exit != 0 {
		t.Errorf("--to: exit %d: %s", o.exit, o.stderr)
	}
	if got, err := os.ReadFile(to + "/files/etc/cron.d/evil\nevil: x"); string(got) != "x" {
		t.Errorf("the file is %q: %v", got, err)
	}
	h.must(os.RemoveAll(to))
	for name, change := range map[string]func(doc map[string]any){
		"a path that leads up": func(doc map[string]any) {
			doc["files"] = []any{map[string]any{"path": "/../../../outside/passwd", "kind": "env"}}
		},
		"a path of DIR itself": func(doc map[string]any) { doc["files"] = []any{map[string]any{"path": "/", "kind": "env"}} },
		"another kind": func(doc map[string]any) {
			doc["files"] = []any{map[string]any{"path": "/srv/x", "kind": injected}}
		},
		"a later version":    func(doc map[string]any) { doc["version"] = 9 },
		"a field of its own": func(doc map[string]any) { doc["to"] = "/etc" },
		"a name that is too long": func(doc map[string]any) {
			doc["files"] = []any{map[string]any{"path": "/" + strings.Repeat("x", 300), "kind": "env"}}
		},
	} {
		f := keeps(change)
		if o := h.run("restore", f.workload, "--config-from", f.sid, "--to", to); o.exit != 3 && o.exit != 1 {
			t.Errorf("%s: exit %d: %s%s", name, o.exit, o.stdout, o.stderr)
		}
		if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: something was made: %v", name, err)
		}
	}
	h.untouched()
}

func (h *host) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}
