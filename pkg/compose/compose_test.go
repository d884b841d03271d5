package compose

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Compose writes warnings for a terminal or for a file; progress is none.
func TestWarnings(t *testing.T) {
	said := strings.Join([]string{
		`time="2026-11-29T21:30:05Z" level=warning msg="The \"TOKEN\" variable is not set. Defaulting to a blank string."`,
		` Container web-1  Running`,
		`WARN[0000] The "MODE" variable is not set. Defaulting to a blank string.`,
		"time=\"2026-11-29T21:30:05Z\" level=warning msg=\"/srv/c.yaml: the attribute `version` is obsolete\"",
		`time="2026-11-29T21:30:05Z" level=warning msg="The \"TOKEN\" variable is not set. Defaulting to a blank string."`,
		`time="2026-11-29T21:30:05Z" level=warning msg="a` + "\x1b[31m" + `b"`,
	}, "\n")
	want := []string{
		`The "TOKEN" variable is not set. Defaulting to a blank string.`,
		`The "MODE" variable is not set. Defaulting to a blank string.`,
		"a�[31mb",
	}
	if got := Warnings(said); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What needs no new container does not change the hash; everything else does.
func TestHash(t *testing.T) {
	id := func(service string) string { return "id-of-" + service }
	hash := func(service string) string {
		t.Helper()
		got, err := Hash([]byte(service), id)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	sum := func(text string) string { s := sha256.Sum256([]byte(text)); return hex.EncodeToString(s[:]) }
	plain := hash(`{"command": null, "entrypoint": null, "image": "x"}`)
	if plain != sum(`{"command":null,"entrypoint":null,"image":"x"}`) {
		t.Errorf("hash %q", plain)
	}
	for _, same := range []string{
		`{"build": {"context": "."}, "command": null, "depends_on": {"db": {}}, "entrypoint": null, "image": "x", "profiles": ["p"], "pull_policy": "never", "scale": 3}`,
	} {
		if hash(same) != plain {
			t.Errorf("%s has another hash", same)
		}
	}
	if a, b := hash(`{"deploy":{"replicas":1,"mode":"x"},"image":"x"}`), hash(`{"deploy":{"mode":"x"},"image":"x"}`); a != b {
		t.Error("replicas change the hash")
	}
	for joined, plain := range map[string]string{
		`{"network_mode":"service:db"}`:                   `{"network_mode":"container:id-of-db"}`,
		`{"ipc":"service:db","pid":"service:web"}`:        `{"ipc":"container:id-of-db","pid":"container:id-of-web"}`,
		`{"volumes_from":["db:ro","container:other:ro"]}`: `{"volumes_from":["id-of-db","other"]}`,
	} {
		if hash(joined) != sum(plain) {
			t.Errorf("%s is not %s", joined, plain)
		}
	}
	for _, other := range []string{`{"command":null,"entrypoint":null,"image":"y"}`, `{"command":null,"entrypoint":null,"environment":{"A":"1"},"image":"x"}`, `{"entrypoint":null,"command":null,"image":"x"}`} {
		if hash(other) == plain {
			t.Errorf("%s has the same hash", other)
		}
	}
}

// What a container was made from, in the words of the config.
func TestOrigin(t *testing.T) {
	o := OriginOf(map[string]string{
		LabelProject: "team", labelFolder: "/srv/team", labelFiles: "/srv/team/a.yaml,/srv/b.yaml,-", labelEnvFiles: "/srv/team/prod.env",
	})
	if got, want := o.Config(), "compose: {files: [/srv/team/a.yaml, /srv/b.yaml], project: team, env_files: [/srv/team/prod.env]}"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	c := Given(&workload.Composition{Files: o.Files, EnvFiles: o.EnvFiles}, "")
	for want, change := range map[string]func(c *Command){
		"":                             func(*Command) {},
		"from /srv/team/a.yaml":        func(c *Command) { c.Files = c.Files[:1] },
		"in /srv/team":                 func(c *Command) { c.Directory = "/srv" },
		"with the env file /srv/team/": func(c *Command) { c.EnvFiles = nil },
	} {
		other := c
		change(&other)
		if got := o.Differs(other); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("it differs %q, want %q", got, want)
		}
	}
}

// A file that is missing is named, not the command that could not be started.
func TestAMissingFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	for what, c := range map[string]Command{
		"folder " + dir + "/none":      {Files: []string{dir + "/none/compose.yaml"}},
		"file " + dir + "/none.yaml":   {Files: []string{dir + "/none.yaml"}},
		"no container of Compose proj": {Project: "team"},
	} {
		_, _, err := c.Run(t.Context(), nil, "config")
		refusal, ok := err.(*runtime.Refusal)
		if !ok || refusal.Code != runtime.ComposeMissing || !strings.Contains(refusal.Reason, what) || refusal.Hint == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A command line can be pasted.
func TestSpell(t *testing.T) {
	c := Command{Files: []string{"/srv/it's/a.yaml"}, Project: "team", Directory: "/srv", EnvFiles: []string{"/e.env"}, Profiles: []string{"p"}}
	want := `docker compose -f '/srv/it'\''s/a.yaml' -p team --project-directory /srv --env-file /e.env --profile p up -d`
	if got := c.Spell("up", "-d"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
