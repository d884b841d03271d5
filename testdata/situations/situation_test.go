package situations

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// situation is what situation.yaml may say. In every file of the directory
//
//	@PROJECT@    is the project's name and the name of its folder, unique in this run
//	@DIR@        is the project's folder
//	@APP@        is the image of ./app; @APP@:1 and @APP@:2 are two releases of it, and
//	             @APP@:volume declares the anonymous volume /cache
//	@DATABASES@  is the image of testdata/databases
//
// Scripts are for sh -eu, in the project's folder. In them "compose" is docker compose
// with the options of the key compose. Whatever a script makes in the engine must
// have a name that begins with @PROJECT@: that is how it is removed.
type situation struct {
	// About says in a sentence what the operator has, or does.
	About string `yaml:"about"`
	// API is the engine's API that the situation needs, such as "1.45". An older
	// engine does not run it.
	API string `yaml:"api"`

	// Compose are the operator's options of docker compose: "-p @PROJECT@-team".
	Compose string `yaml:"compose"`
	// Workload is the workload in snap's config. Default: "compose: @DIR@/compose.yaml".
	Workload map[string]any `yaml:"workload"`
	// Data are the places that the harness fills before the capture, changes after
	// it, and compares: "./dir" or "./file" of the project's folder, or
	// "volume NAME" of the engine.
	Data []string `yaml:"data"`
	// Others are places like those of Data that snap must leave alone.
	Others []string `yaml:"others"`

	Up      string `yaml:"up"`      // brings the project up; default "compose up -d"
	Before  string `yaml:"before"`  // runs before the capture, when the data is there
	Capture run    `yaml:"capture"` // where it does not end with 0, nothing follows
	Change  string `yaml:"change"`  // runs after the capture, when the data has changed
	// Plan are regular expressions, each of which must match a line of the plan.
	Plan    []string `yaml:"plan"`
	Restore run      `yaml:"restore"`
	After   string   `yaml:"after"` // runs after the restore

	// Containers say how each container must end, by its name without
	// "@PROJECT@-". Default: those that ran start again, the others rest; where snap
	// refuses, all are untouched.
	Containers map[string]end `yaml:"containers"`
	// Settled must find nothing to do after all: no container is made, replaced or
	// restarted. Default "compose up -d"; "skip" where there is something to do, and
	// the situation says why.
	Settled string `yaml:"settled"`
}

// run is one command of snap and its expected end.
type run struct {
	Args []string `yaml:"args"` // further arguments
	Exit int      `yaml:"exit"`
	Code string   `yaml:"code"` // of the error; "" is any
	// Says are regular expressions. Each must match a line of what snap prints.
	Says []string `yaml:"says"`
	// Unsaid are regular expressions that no line may match.
	Unsaid []string `yaml:"unsaid"`
}

// end is how a container must end.
type end string

const (
	again     end = "starts again" // the same container runs, and it is another run of it
	anew      end = "is made anew" // another container of this name runs
	started   end = "is started"   // it did not run, and does now
	rests     end = "rests"        // it does not run, as before
	untouched end = "is untouched" // it is the same run as before
	failed    end = "ends again"   // it did not run, was started, and has ended
	gone      end = "is gone"
)

// skip is the Settled of a situation that leaves something to do.
const skip = "skip"

const sheet = "situation.yaml"

// api is the line of a situation that needs a newer engine.
var api = regexp.MustCompile(`(?m)^api: "(.+)"$`)

// others finds a mount of a directory in which the tests that run at the same time
// have their own engines and volumes. snap would rightly warn them of it.
var others = regexp.MustCompile(`[\s"'](/tmp|/var|/var/tmp)/?:/`)

// read reads a case's situation.yaml, and writes its other files to the project's
// folder.
func (h *host) read(name string) *situation {
	h.Helper()
	s := &situation{Up: "compose up -d", Settled: "compose up -d", Workload: map[string]any{"compose": filepath.Join(h.dir, "compose.yaml")}}
	from := filepath.Join("cases", name)
	h.must(filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(h.dir, strings.TrimPrefix(path, from))
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text := h.replace(string(raw))
		if mount := others.FindString(text); mount != "" {
			return fmt.Errorf("%s mounts %s, where other tests work", path, mount)
		}
		if d.Name() == sheet {
			return s.parse(text)
		}
		return os.WriteFile(to, []byte(text), 0o644)
	}))
	return s
}

func (s *situation) parse(text string) error {
	dec := yaml.NewDecoder(strings.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(s); err != nil {
		return fmt.Errorf("%s: %w", sheet, err)
	}
	if s.About == "" {
		return fmt.Errorf("%s: about is missing", sheet)
	}
	for name, e := range s.Containers {
		if !slices.Contains([]end{again, anew, started, rests, untouched, failed, gone}, e) {
			return fmt.Errorf("%s: container %s: there is no end %q", sheet, name, e)
		}
	}
	return nil
}
