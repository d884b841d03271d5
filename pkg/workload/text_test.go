package workload_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/workload"
)

// The text of a workload, in a config of its own, is the same workload.
func TestTheTextOfAWorkloadIsTheWorkload(t *testing.T) {
	const config = `version: 1
base: &base /data/apps
absolute_roots: [/srv]
retain: &rules {keep_daily: 3}
workloads:
  # the blog of the house
  blog: &blog
    image: &image "ghost:5.96"   # held back
    environment: &env {url: "https://blog.example", "<<": plain, empty: ""}
    healthcheck: {test: "curl -f http://localhost", interval: 2s}
    volumes: &volumes
      - &content {name: content, scope: stage, source: c, target: /c}
      - {scope: absolute, source: /srv/a, target: /a, exclude: ["*.tmp", "a b"], was: [x, y]}
  second:
    <<: *blog
    container_name: two
    volumes:
      - <<: [{name: first}, *content]
        source: d
      - {scope: project, source: 'it''s', target: "/t"}
    retain: *rules
  team:
    compose: {files: [/srv/team/compose.yaml], env_files: [], profiles: [worker]}
    exclude: [media]
  "07": {volumes: [{scope: project, source: "yes"}]}
`
	cfg, err := load(t, config)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range cfg.Names() {
		text, err := cfg.Text(name)
		if err != nil {
			t.Fatal(err)
		}
		indented := "  " + strings.TrimSuffix(strings.ReplaceAll(text, "\n", "\n  "), "  ")
		alone, err := load(t, "version: 1\nbase: /data/apps\nabsolute_roots: [/srv]\nworkloads:\n"+indented)
		if err != nil {
			t.Errorf("%s: %v:\n%s", name, err, text)
			continue
		}
		got, want := *alone.Workloads[name], *cfg.Workloads[name]
		got.Config = want.Config
		if !reflect.DeepEqual(got, want) || len(alone.Workloads) != 1 {
			t.Errorf("%s is\n%s\nwhich is %+v, and was %+v", name, text, got, want)
		}
		if name == "blog" && (!strings.Contains(text, "# the blog of the house") || !strings.Contains(text, "# held back")) {
			t.Errorf("its comments are gone:\n%s", text)
		}
	}
	if _, err := cfg.Text("nobody"); err == nil {
		t.Error("a workload that is not there has a text")
	}
	if text, err := (&workload.Config{}).Text("blog"); text != "" || err != nil {
		t.Errorf("a config that is not a file: %q, %v", text, err)
	}
}

// What a snapshot keeps of the config tells nobody a secret of the host, however the
// workload came by it.
func TestTheTextOfAWorkloadHasNoSecrets(t *testing.T) {
	const config = `version: 1
notify: {urls: ["generic://all-secret@127.0.0.1"]}
workloads:
  blog: &blog
    volumes: [{scope: absolute, source: /srv/a}]
    notify: {on: [failure], urls: ["generic://own-secret@127.0.0.1"]}
    ping: "http://127.0.0.1/ping-secret"
  second:
    <<: *blog
    volumes: [{scope: absolute, source: /srv/b}]
`
	cfg, err := load(t, config)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range cfg.Names() {
		if text, err := cfg.Text(name); err != nil || strings.Contains(text, "secret") || !strings.Contains(text, "/srv/") {
			t.Errorf("%s: %v:\n%s", name, err, text)
		}
	}
}
