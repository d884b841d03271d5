package endpoint

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// configured writes a configuration of the docker command with these contexts, name →
// host, and returns its folder.
func configured(t *testing.T, current string, contexts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "config.json"), fmt.Sprintf(`{"auths":{},"currentContext":%q}`, current))
	for name, host := range contexts {
		path := filepath.Join(dir, "contexts/meta", fmt.Sprintf("%x", sha256.Sum256([]byte(name))), "meta.json")
		write(path, fmt.Sprintf(`{"Name":%q,"Metadata":{},"Endpoints":{"docker":{"Host":%q,"SkipTLSVerify":false}}}`, name, host))
	}
	return dir
}

var contexts = map[string]string{"mine": "unix:///run/user/1000/docker.sock", "far": "ssh://root@far", "tls": "tcp://far:2376"}

// cases are in the order in which the docker command asks.
var cases = map[string]struct {
	choice  Choice
	env     map[string]string
	current string
	host    string
	from    string // what it must name
}{
	"nothing":                     {Choice{}, nil, "", defaultHost, ""},
	"the current context":         {Choice{}, nil, "mine", contexts["mine"], "currentContext"},
	"the current one is default":  {Choice{}, nil, "default", defaultHost, ""},
	"DOCKER_CONTEXT":              {Choice{}, map[string]string{"DOCKER_CONTEXT": "far"}, "mine", contexts["far"], "DOCKER_CONTEXT"},
	"DOCKER_CONTEXT is default":   {Choice{}, map[string]string{"DOCKER_CONTEXT": "default"}, "mine", defaultHost, ""},
	"DOCKER_HOST":                 {Choice{}, map[string]string{"DOCKER_CONTEXT": "far", "DOCKER_HOST": "unix:///a"}, "mine", "unix:///a", "DOCKER_HOST"},
	"--host":                      {Choice{Host: "unix:///b"}, map[string]string{"DOCKER_CONTEXT": "far", "DOCKER_HOST": "unix:///a"}, "mine", "unix:///b", "--host"},
	"--context":                   {Choice{Context: "tls"}, map[string]string{"DOCKER_CONTEXT": "far", "DOCKER_HOST": "unix:///a"}, "mine", contexts["tls"], "--context"},
	"--context default":           {Choice{Context: "default"}, map[string]string{"DOCKER_CONTEXT": "far"}, "mine", defaultHost, ""},
	"--context default with host": {Choice{Context: "default"}, map[string]string{"DOCKER_HOST": "unix:///a"}, "mine", "unix:///a", "DOCKER_HOST"},
}

func TestTheEngineIsTheOneOfTheDockerCommand(t *testing.T) {
	for name, c := range cases {
		env := map[string]string{"DOCKER_CONFIG": configured(t, c.current, contexts)}
		for key, value := range c.env {
			env[key] = value
		}
		got, err := Resolve(c.choice, func(key string) string { return env[key] })
		if err != nil || got.Host != c.host || !strings.Contains(got.From, c.from) || c.from == "" && got.From != "" {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if got.Local() != strings.HasPrefix(c.host, "unix:") {
			t.Errorf("%s: local is %t", name, got.Local())
		}
	}
}

// TestTheDockerCommandAgrees asks the docker command itself in the same cases.
func TestTheDockerCommandAgrees(t *testing.T) {
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("there is no docker command")
	}
	for name, c := range cases {
		args := []string{}
		if c.choice.Context != "" {
			args = append(args, "--context", c.choice.Context)
		}
		if c.choice.Host != "" {
			args = append(args, "--host", c.choice.Host)
		}
		cmd := exec.Command("docker", append(args, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "DOCKER_CONFIG=" + configured(t, c.current, contexts)}
		for key, value := range c.env {
			cmd.Env = append(cmd.Env, key+"="+value)
		}
		if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != c.host {
			t.Errorf("%s: the docker command uses %s (%v), snap %s", name, out, err, c.host)
		}
	}
}

func TestWhatCannotBeResolvedIsAnError(t *testing.T) {
	dir := configured(t, "gone", contexts)
	bad := t.TempDir()
	if err := os.WriteFile(filepath.Join(bad, "config.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		choice Choice
		dir    string
		want   string
	}{
		"both":                   {Choice{Host: "unix:///a", Context: "mine"}, dir, "together"},
		"no such context":        {Choice{Context: "none"}, dir, "no such context"},
		"the current is gone":    {Choice{}, dir, "currentContext of " + dir},
		"an unreadable document": {Choice{}, bad, bad + "/config.json"},
	} {
		_, err := Resolve(c.choice, func(key string) string { return map[string]string{"DOCKER_CONFIG": c.dir}[key] })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if errors.Is(err, ErrConflict) != (name == "both") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestWithoutAHomeTheUsersOwnIsTaken(t *testing.T) {
	if got := folder(func(string) string { return "" }); !filepath.IsAbs(got) || filepath.Base(got) != ".docker" {
		t.Errorf("%q", got)
	}
}
