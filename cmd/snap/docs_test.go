package main

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// In --help each flag is followed by what it takes: a word for the value, or all
// possible values.
func TestEveryFlagSaysWhatItTakes(t *testing.T) {
	want := map[string]string{
		"capture --note": "text", "capture --tag": "tag", "capture --wait": "duration", "list --last": "n", "list --reason": "manual|pre-restore", "list --tag": "tag", "capture --quiesce": "pause|stop|none",
		"restore --confirm": "sid", "restore --guard": "before|after", "restore --image": "running|config|snapshot", "restore --on-unhealthy": "revert|keep",
		"restore --plan-hash": "hash", "undo --plan-hash": "hash", "undo --confirm": "sid", "undo --guard": "before|after", "undo --image": "running|config|snapshot",
		"undo --on-unhealthy": "revert|keep", "undo --health-timeout": "duration", "undo --stop-timeout": "duration",
		"restore --volume": "name", "restore --map": "old=new", "restore --config-from": "sid", "restore --to": "dir", "restore --health-timeout": "duration", "restore --stop-timeout": "duration",
		"recover --confirm": "transaction", "recover --resolve": "keep-old|keep-new", "recover --wait-docker": "duration",
		"deploy --health-timeout": "duration", "lock --wait": "duration",
		"export --compression": "gzip|zstd", "export --output": "file", "export --volume": "name",
		"verify --read-data": "part", "delete --wait": "duration", "prune --wait": "duration", "rename --wait": "duration",
		"status --max-age": "duration", "prune --keep-last": "n", "prune --keep-hourly": "n", "prune --keep-daily": "n", "prune --keep-weekly": "n", "prune --keep-monthly": "n", "prune --keep-yearly": "n",
		"prune --keep-within": "time", "prune --keep-within-hourly": "time", "prune --keep-within-daily": "time", "prune --keep-within-weekly": "time",
		"prune --keep-within-monthly": "time", "prune --keep-within-yearly": "time", "prune --keep-pre-restore": "time", "prune --keep-tag": "tag",
		"ls --recursive": "", "ls --null": "", "diff --volume": "name", "diff --content": "",
		"import --note": "text", "import --volume": "name",
	}
	for _, cmd := range (&app{ui: newUI(os.Stdin, io.Discard, io.Discard)}).root().Commands() {
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			name := cmd.Name() + " --" + f.Name
			if takes, _ := pflag.UnquoteUsage(f); takes != want[name] {
				t.Errorf("%s takes %q, expected %q", name, takes, want[name])
			}
			delete(want, name)
		})
	}
	if len(want) > 0 {
		t.Errorf("there are no flags for %v", want)
	}
}

// docs/operating.md has every flag of every command, in the command's section.
func TestEveryFlagIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{} // by command: "### snap list, snap show" is of both
	for _, part := range strings.Split(string(text), "\n### ")[1:] {
		heading, _, _ := strings.Cut(part, "\n")
		for _, name := range strings.Split(heading, ", ") {
			sections[name] = part
		}
	}
	a := &app{ui: newUI(os.Stdin, io.Discard, io.Discard)}
	for _, cmd := range a.root().Commands() {
		if cmd.Hidden {
			continue
		}
		section := sections[cmd.CommandPath()]
		if section == "" {
			t.Errorf("%s has no section", cmd.CommandPath())
			continue
		}
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(section, "--"+f.Name) {
				t.Errorf("%s --%s is not in its section", cmd.CommandPath(), f.Name)
			}
		})
	}
}

// docs/design.md shows which package imports which, as the command above the list
// prints it.
func TestTheDesignShowsTheImports(t *testing.T) {
	const top = "../.."
	text, err := os.ReadFile(top + "/docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```sh\ngo list ")
	args, rest, _ := strings.Cut(rest, "\n```\n\n```\n")
	shown, _, found := strings.Cut(rest, "```\n")
	if !found {
		t.Fatal("there is no `go list` in docs/design.md with a list after it")
	}
	list := exec.Command("sh", "-c", "go list "+args)
	list.Dir, list.Stderr = top, os.Stderr
	printed, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	if len(mayImport) != strings.Count(shown, "\n") {
		t.Errorf("the page lists %d packages, and TestTheWallsHold knows %d", strings.Count(shown, "\n"), len(mayImport))
	}
	if shown != string(printed) {
		t.Errorf("docs/design.md shows\n%s\nand go list prints\n%s", shown, printed)
	}
}
