package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
)

// planned is what --plan prints.
type planned struct {
	SID      string
	PlanHash string   `json:"plan_hash"`
	Expected *float64 `json:"expected_downtime_seconds"`
}

func (h *appHost) planned(args ...string) (p planned) {
	h.Helper()
	h.must(json.Unmarshal([]byte(h.snap(append(args, "--plan", "--json")...)), &p))
	return p
}

// A plan has another hash when anything changes that decides what a restore does to what,
// and keeps it when only data and times change. With the old hash nothing is restored.
func TestAPlanHashTellsWhatHasChanged(t *testing.T) {
	h := newAppHost(t)
	sid := h.captured()
	second := strings.TrimSpace(h.snap("capture", h.name))
	other := dockertest.Image(t, testApp)
	var config []byte
	edit := func(from, to string) func() {
		return func() {
			h.Helper()
			if !bytes.Contains(config, []byte(from)) {
				t.Fatalf("the config has no %q: %s", from, config)
			}
			h.must(os.WriteFile(h.config, bytes.Replace(config, []byte(from), []byte(to), 1), 0o600))
		}
	}
	docker := func(args ...string) func() { return func() { disktest.Run(t, "docker", args...) } }
	var err error
	config, err = os.ReadFile(h.config)
	h.must(err)
	for _, c := range []struct {
		what   string
		change func()
		args   []string // in place of none
		part   string   // "": the hash stays
	}{
		{what: "nothing"},
		{what: "the data", change: func() { h.write("new"); disktest.Write(t, h.posts, map[string]string{"more": "x"}) }},
		{what: "the container has started again", change: docker("restart", "-t", "1", h.name)},
		{what: "a pruning rule of the config", change: edit("    volumes:", "    retain: {keep_last: 3}\n    volumes:")},
		{what: "the environment in the config", change: edit("META: /meta", "META: /meta, MORE: yes"), part: "the snapshot or the config"},
		{what: "the options of a volume", change: edit("target: /data", "target: /data, symlinks: reject"), part: "a volume"},
		{what: "the image in the config", change: edit("image: ", "image: "+other+" # "), part: "the snapshot or the config and a container or an image"},
		{what: "the app was stopped", change: docker("stop", "-t", "1", h.name), part: "a container or an image"},
		{what: "another container", change: func() { docker("rm", "-f", h.name)(); h.snap("deploy", h.name) }, part: "a container or an image"},
		{what: "its restart policy", change: docker("update", "--restart", "no", h.name), part: "a container or an image"},
		{what: "a flag", args: []string{"--on-unhealthy", "keep"}, part: "an option"},
		{what: "the guard", args: []string{"--guard", "after"}, part: "an option"},
		{what: "fewer volumes", args: []string{"--volume", h.posts}, part: "a volume"},
		{what: "all volumes, by name", args: []string{"--volume", h.meta, "--volume", h.posts}},
	} {
		before := h.planned("restore", h.name, sid)
		if c.change != nil {
			c.change()
		}
		args := append([]string{"restore", h.name, sid}, c.args...)
		after := h.planned(args...)
		if (after.PlanHash == before.PlanHash) != (c.part == "") {
			t.Errorf("%s: the hash was %s and is %s", c.what, before.PlanHash, after.PlanHash)
		}
		if c.part != "" {
			id := h.app().ID
			p := h.start(append(args, "--confirm", sid, "--plan-hash", before.PlanHash)...)
			if _, code := h.ended(p); code != 3 || !strings.Contains(p.said.String(), "because "+c.part+" has changed since: the hash is now "+after.PlanHash) {
				t.Errorf("%s: with the old hash it ends with %d: %s", c.what, code, p.said.String())
			}
			if h.app().ID != id {
				t.Errorf("%s: the container was replaced", c.what)
			}
			h.nothingLeft()
		}
		h.must(os.WriteFile(h.config, config, 0o600))
		docker("update", "--restart", "unless-stopped", h.name)()
		docker("start", h.name)()
	}
	if h.planned("restore", h.name, second).PlanHash == h.planned("restore", h.name, sid).PlanHash {
		t.Error("another snapshot has the same hash")
	}

	// A restore gives the directories another identity, and the app another container. The
	// next plan tells a downtime, for there is a restore to go by.
	h.write("old")
	plan := h.planned("restore", h.name, sid)
	if plan.Expected != nil {
		t.Errorf("without a history it expects a downtime of %v s", *plan.Expected)
	}
	h.snap("restore", h.name, sid, "--confirm", sid, "--plan-hash", plan.PlanHash)
	if state := h.state(); state != "new" {
		t.Errorf("the data is %s", state)
	}
	next := h.planned("restore", h.name, sid)
	if next.Expected == nil || *next.Expected <= 0 {
		t.Error("after a restore it expects no downtime")
	}
	if text := h.snap("restore", h.name, sid, "--plan"); !strings.Contains(text, "expected downtime: at most ") || !strings.Contains(text, " s, by the last restore\n") {
		t.Errorf("the plan tells no downtime: %s", text)
	}
	p := h.start("restore", h.name, sid, "--confirm", sid, "--plan-hash", plan.PlanHash)
	if _, code := h.ended(p); code != 3 || !strings.Contains(p.said.String(), "because a volume and a container or an image has changed") {
		t.Errorf("the same plan twice ends with %d: %s", code, p.said.String())
	}
}

// The Compose files count as they are resolved, also where a container is made anew anyway.
func TestAPlanHashCoversTheComposeFile(t *testing.T) {
	h := composeHost(t)
	sid := h.captured()
	file := filepath.Join(h.dir, "compose.yaml")
	text, err := os.ReadFile(file)
	h.must(err)
	hashes := map[string]string{}
	for _, label := range []string{"", "labels: {edited: 'once'}", "labels: {edited: 'twice'}", "# nothing"} {
		h.must(os.WriteFile(file, bytes.ReplaceAll(text, []byte("restart: unless-stopped\n"), []byte("restart: unless-stopped\n    "+label+"\n")), 0o600))
		hash := h.planned("restore", h.name, sid).PlanHash
		if same := hashes[hash]; same != "" && label != "# nothing" || same == "" && label == "# nothing" {
			t.Errorf("%q and %q have the same hash, or a comment has another: %v", label, same, hashes)
		}
		hashes[hash] = label + "!"
	}
}

// task returns the shell commands of a section of docs/operating.md, a paragraph each.
func task(t *testing.T, heading string) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n"+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	_, block, fenced := strings.Cut(section, "```sh\n")
	block, _, _ = strings.Cut(block, "```")
	if !found || !fenced {
		t.Fatalf("docs/operating.md has no commands under %q", heading)
	}
	return strings.Split(strings.TrimSpace(block), "\n\n")
}

// The commands of the task "Back from an upgrade", as they stand in docs/operating.md.
func TestTheTaskBackFromAnUpgrade(t *testing.T) {
	disktest.Need(t, "jq")
	h := newAppHost(t)
	first, second := dockertest.Inspect(t, h.name).Image, dockertest.Image(t, testApp)
	config, err := os.ReadFile(h.config)
	h.must(err)
	_, image, _ := strings.Cut(string(config), "image: ")
	image, _, _ = strings.Cut(image, "\n")
	paragraphs := task(t, "## Back from an upgrade")
	if len(paragraphs) != 3 {
		t.Fatalf("it has %d paragraphs: %q", len(paragraphs), paragraphs)
	}
	words := strings.NewReplacer("/etc/snap/snap.yaml", h.config, "ghost:5.96", image, "ghost:6.0", second, " web", " "+h.name)
	look := "cat " + h.posts + "/posts.txt >" + h.dir + "/data$n; docker inspect -f '{{.Image}}' " + h.name + " >" + h.dir + "/image$n\n"
	script := "set -e\n" +
		words.Replace(paragraphs[0]) + "\nprintf 'new\\nnew\\n' >" + h.posts + "/posts.txt; echo 2 >" + h.meta + "/count\nn=0; " + look +
		words.Replace(paragraphs[1]) + "\nn=1; " + look +
		words.Replace(paragraphs[2]) + "\nn=2; " + look
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), "SNAP_CONFIG="+h.config)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, script)
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(h.dir, name))
		h.must(err)
		return strings.TrimSpace(string(text))
	}
	if read("image0") == first || read("data0") != "new\nnew" {
		t.Fatal("the upgrade has not happened")
	}
	if read("image1") != first || read("data1") != "old" {
		t.Errorf("after the restore the image is %s and the data %q, expected %s and old", read("image1"), read("data1"), first)
	}
	if read("image2") != read("image0") || read("data2") != "new\nnew" {
		t.Errorf("after the undo the image is %s and the data %q, expected %s and new", read("image2"), read("data2"), read("image0"))
	}
	h.settled()

	// Also where the config names the old image by then.
	h.snap("restore", h.name, "latest", "--image", "snapshot", "--confirm", h.planned("restore", h.name, "latest").SID)
	h.must(os.WriteFile(h.config, config, 0o600))
	h.snap("undo", h.name, "--confirm", h.planned("undo", h.name).SID)
	if got := dockertest.Inspect(t, h.name).Image; got != read("image0") {
		t.Errorf("the undo came up on %s, and before the restore ran %s", got, read("image0"))
	}
}
