package compose_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/compose"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// The files of a project are those that Compose reads: whoever has them can bring it up.
func TestTheFilesOfAProject(t *testing.T) {
	dir := t.TempDir()
	disktest.Write(t, dir, map[string]string{
		"p/compose.yaml": `
include:
  - inc/one.yaml
  - path: [other/two.yaml, other/three.yaml]
    project_directory: elsewhere
    env_file: inc.env
x-env: &env
  env_file: shared.env
services:
  b: {env_file: [b.env, {path: not.env, required: false}, "${STAGE}.env"]}
  a:
    <<: *env
    extends: {file: ext/base.yaml, service: base}
  c: {extends: b}
  d:
secrets: {s: {file: secret.txt}}
`,
		"p/.env": "A=1", "p/b.env": "B=\x00\xff", "p/shared.env": "", "p/secret.txt": "no", "p/inc.env": "I=1",
		"p/inc/one.yaml": "services: {one: {env_file: one.env}}", "p/inc/one.env": "1", "p/inc/.env": "2",
		"p/other/two.yaml": "include: [../other/two.yaml, ../inc/one.yaml, https://example/compose.yaml]", "p/other/three.yaml": "services: [not, services]",
		"p/elsewhere/.env": "3",
		"p/ext/base.yaml":  "services: {base: {env_file: ext.env}}", "p/ext/ext.env": "4", "p/own.env": "5", "p/prod.yaml": "",
	})
	show := func(c compose.Command) (out []string) {
		t.Helper()
		for _, f := range c.Sources() {
			line := strings.TrimPrefix(f.Path, dir+"/p/") + " " + string(f.Kind)
			if want, err := os.ReadFile(f.Path); f.Left == "" && (err != nil || string(want) != string(f.Content)) {
				t.Errorf("%s is %q: %v", f.Path, f.Content, err)
			}
			if f.Left != "" {
				line += " left"
			}
			out = append(out, line)
		}
		slices.Sort(out)
		return out
	}
	own := []string{
		"${STAGE}.env env left", "b.env env", "compose.yaml compose", "elsewhere/.env env", "ext/base.yaml compose", "ext/ext.env env",
		"inc.env env", "inc/.env env", "inc/one.env env", "inc/one.yaml compose", "not.env env left", "other/three.yaml compose", "other/two.yaml compose", "shared.env env",
	}
	for name, c := range map[string]struct {
		command compose.Command
		more    []string
	}{
		"by itself":          {compose.Command{}, []string{".env env"}},
		"with an env file":   {compose.Command{EnvFiles: []string{dir + "/p/own.env"}}, []string{"own.env env"}},
		"with an empty list": {compose.Command{EnvFiles: []string{}}, []string{".env env"}},
		"with an empty file": {compose.Command{EnvFiles: []string{}, Files: []string{dir + "/p/prod.yaml"}}, []string{".env env", "prod.yaml compose"}},
	} {
		c.command.Files = append([]string{dir + "/p/compose.yaml"}, c.command.Files...)
		want := slices.Sorted(slices.Values(append(c.more, own...)))
		if got := show(c.command); !slices.Equal(got, want) {
			t.Errorf("%s they are\n%s\nexpected\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// What is long, or no file, is named, and never waited for.
func TestTheFilesOfAProjectThatCannotBeKept(t *testing.T) {
	dir := t.TempDir()
	const big = 1 << 20
	files := map[string]string{"long.env": strings.Repeat("x", big+1), "dir.env/": ""}
	c := compose.Command{Files: []string{dir + "/compose.yaml"}}
	for _, name := range []string{"long.env", "dir.env", "fifo.env", "none.env"} {
		c.EnvFiles = append(c.EnvFiles, filepath.Join(dir, name))
	}
	for i := range 8 {
		name := fmt.Sprintf("%d.env", i)
		files[name] = strings.Repeat("x", big)
		c.EnvFiles = append(c.EnvFiles, filepath.Join(dir, name))
	}
	files["compose.yaml"] = "services: {}"
	disktest.Write(t, dir, files)
	if err := unix.Mkfifo(dir+"/fifo.env", 0o600); err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, f := range c.Sources() {
		if f.Left != "" {
			left = append(left, filepath.Base(f.Path)+": "+strings.ReplaceAll(f.Left, dir+"/", ""))
		}
		if (f.Left != "") == (f.Content != nil) {
			t.Errorf("%s: %d bytes, left out: %q", f.Path, len(f.Content), f.Left)
		}
	}
	want := []string{
		"long.env: it is longer than 1048576 bytes", "dir.env: it is not a regular file", "fifo.env: it is not a regular file",
		"none.env: open none.env: no such file or directory", "7.env: all files together are longer than 8388608 bytes",
	}
	if !slices.Equal(left, want) {
		t.Errorf("left out:\n%s\nexpected\n%s", strings.Join(left, "\n"), strings.Join(want, "\n"))
	}
}
