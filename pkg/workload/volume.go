package workload

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/docker/go-units"
	"gopkg.in/yaml.v3"
)

// Volume is one directory, or one file, of a workload's data.
type Volume struct {
	Name     string   `yaml:"name"` // default: the source
	Was      Names    `yaml:"was"`  // names or sources by which earlier snapshots know it
	Scope    Scope    `yaml:"scope"`
	Source   string   `yaml:"source"`
	Target   string   `yaml:"target"`
	ReadOnly bool     `yaml:"read_only"`
	Symlinks Symlinks `yaml:"symlinks"`
	Setuid   Setuid   `yaml:"setuid"`
	Special  Special  `yaml:"special"`
	Exclude  []string `yaml:"exclude"` // see Excludes

	ExcludeCaches bool `yaml:"exclude_caches"` // what is in directories with a CACHEDIR.TAG

	// Alias is a second name by which a command may call the volume: the key that
	// a named volume has in its Compose file.
	Alias string `yaml:"-"`

	root, rel string // of a named volume: "" until the engine has said it
}

// Scope says where a volume's source is looked for.
type Scope string

// The scopes of a config.
const (
	Absolute Scope = "absolute" // source is the path, below one of absolute_roots
	Stage    Scope = "stage"    // <base>/<project>/<stage>/<source>
	Project  Scope = "project"  // <base>/<project>/<source>
	Named    Scope = "named"    // source is the name that the engine has for the volume
	// ProjectNamed is another way to write Named: the name is <project>_<source>.
	ProjectNamed Scope = "project_named"
)

// Scopes are those that snap supports, for capture and for restore.
const Scopes = Absolute + ", " + Stage + ", " + Project + ", " + Named + " or " + ProjectNamed

// unsupported are scopes of other tools that snap refuses, each with the reason.
var unsupported = map[Scope]string{
	"instance":  "an instance's directory ends with its container, so there is nothing to restore",
	"ephemeral": "an ephemeral volume is gone when its container stops",
}

// Symlinks says what an archive's symbolic links become.
type Symlinks string

const (
	PreserveSymlinks Symlinks = "preserve"
	RejectSymlinks   Symlinks = "reject"
)

// Setuid says what becomes of setuid and setgid bits of files, and of the
// attributes security.capability and trusted.*.
type Setuid string

const (
	StripSetuid Setuid = "strip"
	KeepSetuid  Setuid = "keep"
)

// Special says what becomes of fifos and devices.
type Special string

const (
	RefuseSpecial Special = "refuse" // they fail the capture or the restore
	SkipSpecial   Special = "skip"   // they are left out
	KeepSpecial   Special = "keep"
)

// Root returns the directory that the operator trusts: base, an absolute root, or the
// folder in which the engine keeps a named volume.
func (v *Volume) Root() string { return v.root }

// Rel returns the volume's path below Root; no symbolic link in it is followed.
func (v *Volume) Rel() string { return v.rel }

// Path returns the volume's host path, for messages and for mounts. It is "" for a
// named volume while the engine has not said where that is.
func (v *Volume) Path() string { return filepath.Join(v.root, v.rel) }

// At returns the named volume as one whose directory is rel below root. Both come
// from the engine alone.
func (v Volume) At(root, rel string) Volume {
	v.root, v.rel = root, rel
	return v
}

// resolve fills in the defaults, and finds the volume's place below its root.
func (v *Volume) resolve(c *Config, w *Workload) error {
	if v.Source == "" || strings.ContainsRune(v.Source, 0) {
		return errors.New("source is missing")
	}
	v.Name = cmp.Or(v.Name, v.Source)
	if v.Name != v.Source && !validName(v.Name) {
		return fmt.Errorf("name %q: use printable characters, at most 255 bytes, without . and .. between slashes, and without - or a blank in front", v.Name)
	}
	v.Symlinks = cmp.Or(v.Symlinks, PreserveSymlinks)
	if v.Symlinks != PreserveSymlinks && v.Symlinks != RejectSymlinks {
		return fmt.Errorf("symlinks is %q: use preserve or reject", v.Symlinks)
	}
	v.Setuid = cmp.Or(v.Setuid, StripSetuid)
	if v.Setuid != StripSetuid && v.Setuid != KeepSetuid {
		return fmt.Errorf("setuid is %q: use keep or strip", v.Setuid)
	}
	v.Special = cmp.Or(v.Special, RefuseSpecial)
	if v.Special != RefuseSpecial && v.Special != SkipSpecial && v.Special != KeepSpecial {
		return fmt.Errorf("special is %q: use refuse, skip or keep", v.Special)
	}
	if err := checkPatterns(v.Exclude); err != nil {
		return err
	}
	if why, known := unsupported[v.Scope]; known {
		return fmt.Errorf("scope %s is not supported: %s; use %s", v.Scope, why, Scopes)
	}
	switch v.Scope {
	case Absolute:
		var err error
		if v.root, err = c.absoluteRoot(v.Source); err != nil {
			return err
		}
		v.rel, _ = filepath.Rel(v.root, v.Source)
	case Stage, Project:
		if !filepath.IsLocal(v.Source) || v.Source != filepath.Clean(v.Source) || v.Source == "." {
			return fmt.Errorf("source must be a plain relative path below the %s's directory: no .., no leading or trailing /", v.Scope)
		}
		v.root = c.Base
		v.rel = filepath.Join(w.Project, v.Source)
		if v.Scope == Stage {
			v.rel = filepath.Join(w.Project, w.Stage, v.Source)
		}
	case Named, ProjectNamed:
		if v.Scope == ProjectNamed {
			if v.Alias == "" {
				v.Alias = v.Source
			}
			named := v.Name == v.Source
			v.Scope, v.Source = Named, w.Project+"_"+v.Source
			if named {
				v.Name = v.Source
			}
		}
		if !volumeForm.MatchString(v.Source) {
			return errors.New("source must be the name of a volume (`docker volume ls`): letters and digits, after the first also _ . -")
		}
		if v.root == "" {
			return nil
		}
		return c.checkOwn(v.Path())
	default:
		return fmt.Errorf("unknown scope %q: use %s", v.Scope, Scopes)
	}
	return c.CheckPath(v.Path(), w.engineRoot)
}

// validName refuses a name that, as a path, leads out of where it begins, that one line
// cannot hold, or that a command line takes for a flag.
func validName(name string) bool {
	path := strings.TrimPrefix(name, "/")
	return utf8.ValidString(name) && len(name) <= 255 && path == filepath.Clean(path) && filepath.IsLocal(path) && path != "." &&
		!strings.HasPrefix(name, "-") && strings.TrimSpace(name) == name &&
		strings.IndexFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// Names is a name, or a list of names.
type Names []string

// UnmarshalYAML implements [yaml.Unmarshaler].
func (l *Names) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*l = Names{n.Value}
		return nil
	}
	return n.Decode((*[]string)(l))
}

// volumeForm is what the engine takes for the name of a volume.
var volumeForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// absoluteRoot returns the longest of absolute_roots that source lies under.
func (c *Config) absoluteRoot(source string) (string, error) {
	if !filepath.IsAbs(source) || source != filepath.Clean(source) {
		return "", fmt.Errorf("source must be a clean absolute path: write %q", filepath.Clean("/"+source))
	}
	best := ""
	for _, root := range c.AbsoluteRoots {
		if source != root && Contains(root, source) && len(root) > len(best) {
			best = root
		}
	}
	if best == "" && slices.Contains(c.AbsoluteRoots, source) {
		return "", fmt.Errorf("source is one of absolute_roots, and has to lie under one: a restore works in the folder around it")
	}
	if best == "" {
		return "", fmt.Errorf("source lies under none of absolute_roots (%s)", strings.Join(c.AbsoluteRoots, ", "))
	}
	return best, nil
}

// RootsFor returns the absolute_roots with which the volumes would be admitted: those
// that there are, and the folders around the sources that lie under none of them.
func (c *Config) RootsFor(volumes []Volume) []string {
	roots := slices.Clone(c.AbsoluteRoots)
	for _, v := range volumes {
		around := filepath.Dir(v.Source)
		if _, err := c.absoluteRoot(v.Source); err != nil && v.Scope == Absolute && around != "/" && !slices.Contains(roots, around) {
			roots = append(roots, around)
		}
	}
	return roots
}

// systemDirs are directories that a volume may not be, contain, or lie in.
var systemDirs = []string{
	"/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run", "/sbin", "/sys", "/usr",
	"/var/lib/docker", "/var/lib/containerd", "/var/run",
}

// sharedDirs are directories that a volume may not be: all programs of the host write to
// them. A folder in one of them may be a volume.
var sharedDirs = []string{"/tmp", "/var/log", "/var/tmp"}

// SystemDirectory returns the directory of the system that path is, contains, or lies
// in, and "" where there is none. more are further such directories: the root of an
// engine that does not keep its data in the usual place.
func SystemDirectory(path string, more ...string) string {
	for _, dir := range append(slices.Clone(systemDirs), more...) {
		if dir != "" && (Contains(path, dir) || Contains(dir, path)) {
			return dir
		}
	}
	for _, dir := range sharedDirs {
		if Contains(path, dir) {
			return dir
		}
	}
	return ""
}

// CheckPath refuses a directory that is, contains, or lies in one that the
// system, the store or the state needs. more are further directories of the system.
func (c *Config) CheckPath(path string, more ...string) error {
	if dir := SystemDirectory(path, more...); dir != "" {
		return fmt.Errorf("%s is refused: it is, contains, or lies in system directory %s", path, dir)
	}
	return c.checkOwn(path)
}

// checkOwn refuses a directory that meets the store or the state.
func (c *Config) checkOwn(path string) error {
	for _, own := range []struct{ what, dir string }{{"the store", c.Store}, {"the state", c.State}} {
		if Contains(path, own.dir) || Contains(own.dir, path) {
			return fmt.Errorf("%s is refused: it is, contains, or lies in %s %s", path, own.what, own.dir)
		}
	}
	return nil
}

// Admit refuses a volume whose path really leads to real: into the system's, the
// store's or the engine's own directories. A named volume is admitted only as the
// very directory that the engine names for it.
func (w *Workload) Admit(c *Config, v *Volume, real string) error {
	if v.Scope != Named {
		return c.CheckPath(real, w.engineRoot)
	}
	if real != v.Path() {
		return fmt.Errorf("%s is refused: it leads to %s, and a named volume must be the directory that the engine names", v.Path(), real)
	}
	return c.checkOwn(real)
}

// Contains reports whether path is dir or lies below it; both are clean.
func Contains(dir, path string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// Bytes is a Compose size: a number of bytes, or "64m", in powers of 1024.
type Bytes int64

func (b *Bytes) UnmarshalYAML(n *yaml.Node) error {
	v, err := units.RAMInBytes(n.Value)
	if err != nil || v < 0 {
		return fmt.Errorf("line %d: %q is not a size such as 64m", n.Line, n.Value)
	}
	*b = Bytes(v)
	return nil
}
