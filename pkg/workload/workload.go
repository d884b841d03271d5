package workload

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-connections/nat"
	"gopkg.in/yaml.v3"

	"github.com/tiny-forge/snap/pkg/near"
	"github.com/tiny-forge/snap/pkg/retain"
)

// Workload is one app: its containers, if it has any, and its volumes.
type Workload struct {
	Name   string `yaml:"-"`
	Config string `yaml:"-"` // the real path of the config that it is from

	Project string       `yaml:"project"`
	Stage   string       `yaml:"stage"`
	Compose *Composition `yaml:"compose"` // excludes the image keys
	Volumes []Volume     `yaml:"volumes"`
	// Exclude names volumes that a Compose workload leaves alone: by their path, by
	// their key in the Compose file, or by the name that the engine has for them.
	Exclude []string `yaml:"exclude"`
	// AlsoStop names containers outside the workload that use its volumes:
	// they are stopped for a restore and started again after it.
	AlsoStop []string `yaml:"also_stop"`
	// Guard says when a restore makes the snapshot of what it replaces:
	// GuardBefore, the default, or GuardAfter.
	Guard string `yaml:"guard"`
	// Retain says which snapshots stay; nil: as the config says for all.
	Retain *retain.Policy `yaml:"retain"`
	Hooks  Hooks          `yaml:"hooks"`
	Notify *Notify        `yaml:"notify"` // what it leaves out is as the config says for all
	Ping   Ping           `yaml:",inline"`

	Container `yaml:",inline"`

	engineRoot string // see WithVolumes
}

// When a restore makes the snapshot of what it replaces.
const (
	GuardBefore = "before" // before the first live directory moves, with the app down
	GuardAfter  = "after"  // when the app is up again, of the displaced trees
)

// Container are the keys of an image workload: the Compose specification's own
// names, with its meanings.
type Container struct {
	Image           string            `yaml:"image"`
	ContainerName   string            `yaml:"container_name"`
	Command         Words             `yaml:"command"`
	Entrypoint      Words             `yaml:"entrypoint"`
	Environment     Mapping           `yaml:"environment"`
	Ports           []string          `yaml:"ports"`
	Restart         string            `yaml:"restart"`
	Healthcheck     *Healthcheck      `yaml:"healthcheck"`
	User            string            `yaml:"user"`
	WorkingDir      string            `yaml:"working_dir"`
	Hostname        string            `yaml:"hostname"`
	Labels          Mapping           `yaml:"labels"`
	StopSignal      string            `yaml:"stop_signal"`
	StopGracePeriod Duration          `yaml:"stop_grace_period"`
	ShmSize         Bytes             `yaml:"shm_size"`
	Init            *bool             `yaml:"init"`
	ReadOnly        bool              `yaml:"read_only"`
	Tmpfs           Words             `yaml:"tmpfs"`
	CapAdd          []string          `yaml:"cap_add"`
	CapDrop         []string          `yaml:"cap_drop"`
	SecurityOpt     []string          `yaml:"security_opt"`
	ExtraHosts      []string          `yaml:"extra_hosts"`
	Sysctls         map[string]string `yaml:"sysctls"`
}

// Healthcheck is the Compose specification's healthcheck.
type Healthcheck struct {
	Test        Test     `yaml:"test"`
	Interval    Duration `yaml:"interval"`
	Timeout     Duration `yaml:"timeout"`
	Retries     int      `yaml:"retries"`
	StartPeriod Duration `yaml:"start_period"`
	Disable     bool     `yaml:"disable"`
}

// Kind says who starts a workload's containers.
type Kind string

const (
	Data    Kind = "data"    // nobody: it has none
	Image   Kind = "image"   // snap itself
	Compose Kind = "compose" // the host's docker compose
)

// Kind returns who starts the workload's containers.
func (w *Workload) Kind() Kind {
	switch {
	case w.Compose != nil:
		return Compose
	case w.Image != "":
		return Image
	}
	return Data
}

// nameForm is the form of the names of workloads, projects and stages, which become
// components of paths, and parts of container names.
var nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$`)

// CheckName refuses what cannot be the name of a workload.
func CheckName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("%q is not a name (letters and digits, after the first also _ . -, at most 63)", name)
	}
	// The state's lock folder has a file store.lock, and vol-… for volumes.
	if name == "store" || strings.HasPrefix(name, "vol-") {
		return fmt.Errorf("%q is a name that snap needs for itself: choose another", name)
	}
	return nil
}

func (w *Workload) check(c *Config) error {
	if err := CheckName(w.Name); err != nil {
		return err
	}
	w.Project = cmp.Or(w.Project, w.Name)
	w.Stage = cmp.Or(w.Stage, "default")
	if !nameForm.MatchString(w.Project) || !nameForm.MatchString(w.Stage) {
		return fmt.Errorf("project %q and stage %q must be plain names", w.Project, w.Stage)
	}
	w.Guard = cmp.Or(w.Guard, GuardBefore)
	if w.Guard != GuardBefore && w.Guard != GuardAfter {
		return fmt.Errorf("guard %q: must be %s or %s", w.Guard, GuardBefore, GuardAfter)
	}
	if w.Image == "" && !reflect.ValueOf(w.Container).IsZero() {
		return errors.New("has keys of a container but no image: a Compose workload's belong in its Compose file")
	}
	if err := cmp.Or(w.Hooks.check(), w.Notify.check(), w.Ping.check()); err != nil {
		return err
	}
	w.ContainerName = cmp.Or(w.ContainerName, w.Name)
	if len(w.Exclude) > 0 && (w.Kind() != Compose || len(w.Volumes) > 0) {
		return errors.New("exclude is for a Compose workload without volumes: with volumes, leave it out of them")
	}
	switch w.Kind() {
	case Compose:
		if w.Image != "" {
			return errors.New("has both image and compose: only one can bring it up")
		}
		if err := w.Compose.check(); err != nil {
			return err
		}
	case Data:
		if len(w.Volumes) == 0 {
			return errors.New("has no image, no compose file and no volumes")
		}
	case Image:
		if err := w.checkContainer(); err != nil {
			return err
		}
	}
	return w.setVolumes(c, w.Volumes)
}

func (w *Workload) checkContainer() error {
	if _, _, err := nat.ParsePortSpecs(w.Ports); err != nil {
		return fmt.Errorf("ports: %w", err)
	}
	policy, count, _ := strings.Cut(w.Restart, ":")
	_, err := strconv.ParseUint(count, 10, 31)
	known := slices.Contains([]string{"", "no", "always", "unless-stopped", "on-failure"}, policy)
	if !known || count != "" && (policy != "on-failure" || err != nil) {
		return fmt.Errorf("restart %q: must be no, always, unless-stopped, or on-failure[:times]", w.Restart)
	}
	if h := w.Healthcheck; h != nil && !h.Disable && len(h.Test) == 0 {
		return errors.New("healthcheck: test is missing")
	}
	return nil
}

// WithVolumes returns a copy of a workload that has these volumes, each resolved to a
// host directory and checked against the others: what containers mount, and where the
// engine keeps a named volume, is known only after Load. engineRoot is the engine's own
// folder, "" where it is not known: no directory may lie there but a named volume's.
// The config does not change: several operations at once may use it.
func (w *Workload) WithVolumes(c *Config, volumes []Volume, engineRoot string) (*Workload, error) {
	own := *w
	own.engineRoot = engineRoot
	if err := own.setVolumes(c, slices.Clone(volumes)); err != nil {
		return nil, err
	}
	return &own, nil
}

// setVolumes resolves the volumes in place and gives them to the workload.
func (w *Workload) setVolumes(c *Config, volumes []Volume) error {
	seen := map[string]bool{}
	var errs []error
	for i := range volumes {
		if err := volumes[i].resolve(c, w); err != nil {
			errs = append(errs, fmt.Errorf("volume %q: %w", volumes[i].Source, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for i := range volumes {
		v := &volumes[i]
		if w.Kind() == Image && !filepath.IsAbs(v.Target) {
			return fmt.Errorf("volume %q: target %q is not an absolute path in the container", v.Source, v.Target)
		}
		if seen[v.Name] {
			return fmt.Errorf("two volumes are named %q: give one another name", v.Name)
		}
		seen[v.Name] = true
		for j := range volumes[:i] {
			if v.meets(&volumes[j]) {
				return fmt.Errorf("volumes %q and %q contain one another", volumes[j].Name, v.Name)
			}
		}
	}
	if err := checkWas(volumes); err != nil {
		return err
	}
	w.Volumes = volumes
	return nil
}

// checkWas refuses a former name that a snapshot could mean another volume by.
func checkWas(volumes []Volume) error {
	of := map[string]string{}
	for i := range volumes {
		v := &volumes[i]
		for _, was := range v.Was {
			if was == "" || of[was] != "" {
				return fmt.Errorf("volume %q: was %q: give a name or source that no other volume was", v.Name, was)
			}
			of[was] = v.Name
		}
	}
	for i := range volumes {
		for _, now := range []string{volumes[i].Name, volumes[i].Source} {
			if was := of[now]; was != "" && was != volumes[i].Name {
				return fmt.Errorf("volume %q: was %q, which volume %q is now: choose with --map of restore instead", was, now, volumes[i].Name)
			}
		}
	}
	return nil
}

// meets reports whether two volumes are one directory, or one lies in the other.
func (v *Volume) meets(o *Volume) bool {
	if v.Scope == Named && o.Scope == Named {
		return v.Source == o.Source
	}
	return v.Path() != "" && o.Path() != "" && (Contains(v.Path(), o.Path()) || Contains(o.Path(), v.Path()))
}

// AsksEngine reports whether the config alone does not say where all volumes are.
func (w *Workload) AsksEngine() bool {
	return len(w.Volumes) == 0 || slices.ContainsFunc(w.Volumes, func(v Volume) bool { return v.Scope == Named })
}

// Excludes reports whether the config leaves a volume alone that has one of these
// names.
func (w *Workload) Excludes(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return slices.Contains(w.Exclude, name) })
}

// Volume returns the volume of that name, or the only one with that alias.
func (w *Workload) Volume(name string) (*Volume, error) {
	var also []*Volume
	for i := range w.Volumes {
		if w.Volumes[i].Name == name {
			return &w.Volumes[i], nil
		}
		if w.Volumes[i].Alias == name {
			also = append(also, &w.Volumes[i])
		}
	}
	if len(also) == 1 {
		return also[0], nil
	}
	return nil, fmt.Errorf("workload %s has no volume %q (it has: %s)", w.Name, name, strings.Join(w.volumeNames(), ", "))
}

func (w *Workload) volumeNames() (names []string) {
	for i := range w.Volumes {
		names = append(names, w.Volumes[i].Name)
	}
	return names
}

// Meant asks which volume was meant with a name that Volume does not know, "" where no
// name resembles it.
func (w *Workload) Meant(name string) string { return near.Question(name, w.volumeNames()) }

// Words is a command: a list, or one string. No shell sees the string; it is
// split at blanks, and quotes are honoured.
type Words []string

func (w *Words) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return n.Decode((*[]string)(w))
	}
	var err error
	if *w, err = splitWords(n.Value); err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	return nil
}

// Test is a health check's command: a list whose first word is CMD, CMD-SHELL
// or NONE, or a string that a shell runs.
type Test []string

func (t *Test) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*t = Test{"CMD-SHELL", n.Value}
		return nil
	}
	if err := n.Decode((*[]string)(t)); err != nil {
		return err
	}
	if len(*t) == 0 || ((*t)[0] != "CMD" && (*t)[0] != "CMD-SHELL" && (*t)[0] != "NONE") {
		return fmt.Errorf("line %d: a health check's list begins with CMD, CMD-SHELL or NONE", n.Line)
	}
	return nil
}

// Mapping is environment or labels: a mapping, or a list of KEY=VALUE.
type Mapping map[string]string

func (m *Mapping) UnmarshalYAML(n *yaml.Node) error {
	out := Mapping{}
	switch n.Kind {
	case yaml.MappingNode:
		for pair := range slices.Chunk(n.Content, 2) {
			key, value := pair[0], pair[1]
			if key.Kind != yaml.ScalarNode || value.Kind != yaml.ScalarNode {
				return fmt.Errorf("line %d: %s: expected one value", key.Line, key.Value)
			}
			if _, twice := out[key.Value]; twice {
				return fmt.Errorf("line %d: %s stands here twice", key.Line, key.Value)
			}
			if value.Tag == "!!null" {
				return fmt.Errorf("line %d: %s has no value: snap does not pass on its own environment", key.Line, key.Value)
			}
			out[key.Value] = value.Value
		}
	case yaml.SequenceNode:
		for _, item := range n.Content {
			key, value, ok := strings.Cut(item.Value, "=")
			if !ok || key == "" {
				return fmt.Errorf("line %d: %q is not KEY=VALUE", item.Line, item.Value)
			}
			if _, twice := out[key]; twice {
				return fmt.Errorf("line %d: %s stands here twice", item.Line, key)
			}
			out[key] = value
		}
	default:
		return fmt.Errorf("line %d: expected a mapping or a list of KEY=VALUE", n.Line)
	}
	*m = out
	return nil
}

// Duration is a Compose duration: "1m30s". All of them are Go durations.
type Duration time.Duration

func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil || v < 0 {
		return fmt.Errorf("line %d: %q is not a duration such as 30s or 1m30s", n.Line, n.Value)
	}
	*d = Duration(v)
	return nil
}

// splitWords splits a command line as Compose does: at blanks, with single and
// double quotes and backslashes honoured, nothing expanded.
func splitWords(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote rune
	inWord, escaped := false, false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, inWord = r, true
		case quote == 0 && strings.ContainsRune(" \t\n\r", r):
			if inWord {
				words = append(words, word.String())
			}
			word.Reset()
			inWord = false
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, errors.New("a quote is not closed")
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
