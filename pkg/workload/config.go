package workload

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"gopkg.in/yaml.v3"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/near"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/retain"
)

// DefaultPath is where the config lies unless --config or SNAP_CONFIG say otherwise.
const DefaultPath = "/etc/snap/snap.yaml"

// StateVariable is the environment variable that stands above `state:` of the
// config, for a host whose config is shared with others.
const StateVariable = "SNAP_STATE"

// Config is the whole file, checked and with its defaults filled in.
type Config struct {
	Path          string      `yaml:"-"`
	Real          string      `yaml:"-"`     // Path, absolute and without symbolic links
	State         string      `yaml:"state"` // of the host: journal, locks, audit log
	Store         string      `yaml:"store"`
	Base          string      `yaml:"base"`
	AbsoluteRoots []string    `yaml:"absolute_roots"`
	Compression   Compression `yaml:"compression"`
	// Scrub is within how many captures of a workload every member that they use again
	// is read; 0: none is.
	Scrub     int                  `yaml:"scrub"`
	Retain    *retain.Policy       `yaml:"retain"`   // of workloads that have none of their own
	Notify    *Notify              `yaml:"notify"`   // nil: nobody, of workloads that say nothing of it
	Ping      Ping                 `yaml:",inline"`  // of a capture of all workloads
	Textfile  string               `yaml:"textfile"` // for the textfile collector of Prometheus; "": none
	Workloads map[string]*Workload `yaml:"workloads"`

	data []byte // the file; see Text
}

// Compression is how snap compresses new snapshots. It reads both kinds.
type Compression string

const (
	Gzip Compression = "gzip" // tar xzf reads it
	Zstd Compression = "zstd" // faster to restore, smaller
)

func (c *Compression) UnmarshalYAML(n *yaml.Node) error {
	*c = Compression(n.Value)
	if *c != Gzip && *c != Zstd {
		return fmt.Errorf("line %d: compression is %q: use gzip or zstd", n.Line, n.Value)
	}
	return nil
}

// Error is a mistake in the config, or in a question to it.
type Error struct {
	Where string // path of the file, and the workload or key
	Err   error
	Hint  string
}

func (e *Error) Error() string { return fmt.Sprintf("config %s: %v", e.Where, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// file is the YAML as it is written.
type file struct {
	Version int `yaml:"version"`
	Config  `yaml:",inline"`
}

// Load reads the config at path. Run as root it refuses a file that somebody
// else may write: whoever can change the config can make root overwrite any
// directory. Every error is an [*Error].
func Load(path string) (*Config, error) {
	data, real, err := readTrusted(path)
	if err != nil {
		return nil, err
	}
	cfg, err := parse(data)
	if err != nil {
		return nil, &Error{Where: path, Err: err, Hint: "the keys are described in docs/operating.md, section Config"}
	}
	cfg.Path, cfg.Real, cfg.data = path, real, data
	for _, w := range cfg.Workloads {
		if w != nil {
			w.Config = cfg.Real
		}
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// readTrusted also returns the path without symbolic links.
func readTrusted(path string) (data []byte, real string, err error) {
	full, err := filepath.Abs(path)
	if err != nil {
		return nil, "", &Error{Where: path, Err: err}
	}
	pass := func(disk.Passed) error { return nil }
	if os.Geteuid() == 0 {
		pass = rootsOnly()
	}
	f, real, err := disk.OpenPassing(full, pass)
	var refused *Error
	switch {
	case errors.As(err, &refused):
		return nil, "", err
	case errors.Is(err, os.ErrNotExist):
		return nil, "", &Error{Where: path, Err: err, Hint: "name the file with --config or SNAP_CONFIG"}
	case err != nil:
		return nil, "", &Error{Where: path, Err: err, Hint: "make the file readable for the user that runs snap"}
	}
	defer f.Close()
	const most = 4 << 20 // bytes
	data, err = io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && len(data) > most {
		err = fmt.Errorf("longer than %d bytes", most)
	}
	if err != nil {
		return nil, "", &Error{Where: path, Err: err, Hint: "check that this is the config file"}
	}
	return data, real, nil
}

// rootsOnly refuses a way to the config on which somebody else than root can put another
// file in its place: who can write to the file, to a folder above it, or to one that a
// symbolic link on the way is in. In a folder such as /tmp, whose sticky bit lets
// nobody rename what another one owns, root's own directory is safe.
func rootsOnly() func(disk.Passed) error {
	var open error // the folder that was passed last, if others can write to it
	sticky := false
	return func(p disk.Passed) error {
		kind := p.Stat.Mode & unix.S_IFMT
		if open != nil && !(sticky && kind == unix.S_IFDIR && p.Stat.Uid == 0) {
			return open
		}
		open, sticky = nil, p.Stat.Mode&unix.S_ISVTX != 0
		if kind == unix.S_IFLNK { // who may change one is who can write to its folder
			return nil
		}
		err := trusted(p)
		if kind != unix.S_IFDIR {
			return err
		}
		open = err
		return nil
	}
}

func trusted(p disk.Passed) error {
	// In a file with an ACL, the group bits are the mask: the most that any entry
	// may grant, whomever it names (acl(5)).
	st := p.Stat
	byGroup := st.Mode&0o020 != 0 && (st.Gid != 0 || p.ACL)
	if st.Uid == 0 && !byGroup && st.Mode&0o002 == 0 {
		return nil
	}
	hint := fmt.Sprintf("chown root:root %[1]s && chmod go-w %[1]s", remedy.Quote(p.Path))
	if st.Mode&unix.S_ISVTX != 0 { // /tmp is as it should be
		hint = "move the config into a folder of root's own, such as /etc/snap"
	}
	return &Error{Where: p.Path, Err: fmt.Errorf("refused: writable by others than root (owner %d, mode %#o)", st.Uid, st.Mode&0o777), Hint: hint}
}

func parse(data []byte) (*Config, error) {
	if err := named(data); err != nil {
		return nil, err
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	f := file{Config: Config{
		State: "/var/lib/snap", Store: "/var/lib/snap/store",
		Base: "/srv/apps", AbsoluteRoots: []string{"/srv", "/opt"}, Compression: Gzip, Scrub: 30,
	}}
	switch err := dec.Decode(&f); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("the file is empty")
	case err != nil:
		return nil, plainYAML(err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("a second YAML document follows the first")
	}
	if f.Version != 1 {
		return nil, fmt.Errorf("version is %d, this program knows version 1", f.Version)
	}
	f.State = cmp.Or(os.Getenv(StateVariable), f.State)
	return &f.Config, nil
}

// named refuses a key that is null, ~ or empty: the decoder leaves it out with all that
// is below it, without a word.
func named(data []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return err
	}
	var look func(n *yaml.Node) error
	look = func(n *yaml.Node) error {
		for i, sub := range n.Content {
			if n.Kind == yaml.MappingNode && i%2 == 0 && sub.ShortTag() == "!!null" {
				return fmt.Errorf("line %d: a key is null: give it a name, in quotes if the name is \"null\"", sub.Line)
			}
			if err := look(sub); err != nil {
				return err
			}
		}
		return nil
	}
	return look(&doc)
}

// plainYAML rids the decoder's message of Go types, which mean nothing to an operator.
func plainYAML(err error) error {
	var te *yaml.TypeError
	if !errors.As(err, &te) {
		return err
	}
	lines := make([]string, len(te.Errors))
	for i, line := range te.Errors {
		if head, in, ok := strings.Cut(line, " not found in type "); ok {
			line = strings.Replace(head, "field ", "unknown key ", 1)
			if meant := near.Question(head[strings.LastIndexByte(head, ' ')+1:], keysOf(reflect.TypeFor[file](), in)); meant != "" {
				line += " (" + meant + ")"
			}
		}
		if at := strings.LastIndex(line, " into "); at >= 0 {
			line = line[:at] + " here: another kind of value is expected"
		}
		lines[i] = line
	}
	return errors.New(strings.Join(lines, "; "))
}

// keysOf returns the keys of the type of that name, which is t or in it.
func keysOf(t reflect.Type, name string) (keys []string) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return keysOf(t.Elem(), name)
	case reflect.Struct:
	default:
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		switch key, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); {
		case key == "-" || !f.IsExported():
		case t.String() != name:
			if keys = keysOf(f.Type, name); keys != nil {
				return keys
			}
		case key == "": // inline
			keys = append(keys, keysOf(f.Type, f.Type.String())...)
		default:
			keys = append(keys, key)
		}
	}
	return keys
}

// RetainOf returns which snapshots of a workload stay, without a rule where the config
// says nothing. The config need not have the workload.
func (c *Config) RetainOf(name string) *retain.Policy {
	if w := c.Workloads[name]; w != nil && w.Retain != nil {
		return w.Retain
	}
	if c.Retain != nil {
		return c.Retain
	}
	return &retain.Policy{}
}

func (c *Config) checkRetain() error {
	policies := map[string]*retain.Policy{"retain": c.Retain}
	for name, w := range c.Workloads {
		if w != nil {
			policies["workload "+name+": retain"] = w.Retain
		}
	}
	for where, p := range policies {
		if p == nil {
			continue
		}
		if err := p.Check(); err != nil {
			return &Error{Where: c.Path + ": " + where, Err: err}
		}
	}
	return nil
}

// check fills in defaults and refuses values that make no sense.
func (c *Config) check() error {
	if c.Scrub < 0 || c.Scrub > 10000 {
		return &Error{Where: c.Path, Err: fmt.Errorf("scrub is %d: use a number of captures, from 1 to 10000, or 0 for none", c.Scrub)}
	}
	if err := c.checkRetain(); err != nil {
		return err
	}
	if err := c.checkAlarms(); err != nil {
		return &Error{Where: c.Path, Err: err, Hint: "correct the key in the config"}
	}
	paths := map[*string]string{&c.State: "state", &c.Store: "store", &c.Base: "base"}
	for i := range c.AbsoluteRoots {
		paths[&c.AbsoluteRoots[i]] = "absolute_roots"
	}
	for path, key := range paths {
		if err := cleanAbsolute(path); err != nil {
			return &Error{Where: c.Path + ": " + key, Err: err, Hint: "give an absolute path"}
		}
	}
	for path, key := range map[*string]string{&c.State: "state", &c.Store: "store"} {
		if dir := SystemDirectory(*path); dir != "" {
			return &Error{Where: c.Path + ": " + key, Err: fmt.Errorf("%s is refused: it is, contains, or lies in system directory %s", *path, dir), Hint: "name a directory of its own, such as /var/lib/snap"}
		}
	}
	for _, name := range c.Names() {
		w := c.Workloads[name]
		if w == nil {
			return &Error{Where: c.Path + ": workload " + name, Err: errors.New("is empty"), Hint: "give it volumes, an image, or a compose file"}
		}
		w.Name = name
		if err := w.check(c); err != nil {
			return &Error{Where: c.Path + ": workload " + name, Err: err, Hint: "correct the workload in the config"}
		}
	}
	return nil
}

func cleanAbsolute(path *string) error {
	if !filepath.IsAbs(*path) || strings.ContainsRune(*path, 0) {
		return fmt.Errorf("%q is not an absolute path", *path)
	}
	*path = filepath.Clean(*path)
	return nil
}

// Names returns the workloads' names, sorted.
func (c *Config) Names() []string { return slices.Sorted(maps.Keys(c.Workloads)) }

// Workload returns the workload of that name.
func (c *Config) Workload(name string) (*Workload, error) {
	if w, ok := c.Workloads[name]; ok {
		return w, nil
	}
	hint := "the config has: " + cmp.Or(strings.Join(c.Names(), ", "), "no workload yet")
	if meant := near.Question(name, c.Names()); meant != "" {
		hint = meant + " " + hint
	}
	return nil, &Error{Where: c.Path, Err: fmt.Errorf("no workload %q", name), Hint: hint}
}
