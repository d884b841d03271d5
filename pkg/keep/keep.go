// Package keep is what a snapshot keeps of its workload's config, so that a host that has
// the store alone can be set up again: the workload as the config had it, with what applies
// to it, and of Compose the files that the project is made from. [Of] makes the document,
// [Read] reads it.
//
// What is read is untrusted, as all of a snapshot is. It is shown to an operator, and
// decides nothing: no path in it says where data or a file goes.
//
// Not promised: secrets in the config and in env files are in the document as they are.
package keep

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

const (
	format  = "snap-config"
	version = 1
)

// Document is what is kept.
type Document struct {
	disk.Seal
	Workload string `json:"workload"`
	Host     string `json:"host"` // its name
	Path     string `json:"path"` // of the config file
	// Base and AbsoluteRoots are those of the config, as far as volumes lie there.
	Base          string   `json:"base,omitempty"`
	AbsoluteRoots []string `json:"absolute_roots,omitempty"`
	// Config is the workload in YAML: a mapping with its name as the one key.
	Config  string  `json:"config"`
	Left    string  `json:"left_out,omitempty"` // why there is no Config
	Volumes []Place `json:"volumes"`
	Files   []File  `json:"files,omitempty"`
}

// Place says where a volume was.
type Place struct {
	Name string `json:"name"`
	Path string `json:"path"`
}

// File is a file that the Compose project was made from.
type File struct {
	Path    string           `json:"path"`
	Kind    runtime.FileKind `json:"kind"`
	Content []byte           `json:"content,omitempty"`
	Left    string           `json:"left_out,omitempty"` // why there is no content
}

// Of makes the document of a workload with its volumes. m is what its containers mount, nil
// where nobody could ask: then its files are not kept.
func Of(c *workload.Config, w *workload.Workload, m *runtime.Mounts) ([]byte, error) {
	d := &Document{Workload: w.Name, Path: c.Path, Volumes: []Place{}}
	d.Host, _ = os.Hostname()
	var err error
	if d.Config, err = c.Text(w.Name); err != nil { // no reason to have no snapshot
		d.Left = err.Error()
	}
	for i := range w.Volumes {
		v := &w.Volumes[i]
		d.Volumes = append(d.Volumes, Place{v.Name, v.Path()})
		switch v.Scope {
		case workload.Stage, workload.Project:
			d.Base = c.Base
		case workload.Absolute:
			d.AbsoluteRoots = c.AbsoluteRoots
		}
	}
	if m != nil {
		for _, f := range m.Files {
			d.Files = append(d.Files, File(f))
		}
	}
	return disk.MarshalSealed(d, format, version)
}

// Read reads a document of a workload. The error wraps [disk.ErrDamaged] or
// [disk.ErrTooNew].
func Read(data []byte) (*Document, error) {
	d := &Document{}
	err := disk.UnmarshalSealed(data, d, format, version)
	if err == nil {
		if err = d.check(); err != nil {
			err = fmt.Errorf("%w: %w", disk.ErrDamaged, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the config that it keeps: %w", err)
	}
	return d, nil
}

// check refuses what Of never makes, so that what is pasted is one workload, and each file
// has a place of its own.
func (d *Document) check() error {
	if _, err := d.node(); err != nil {
		return err
	}
	for _, root := range append([]string{d.Base}, d.AbsoluteRoots...) {
		if root != "" && !plain(root) {
			return fmt.Errorf("the path %q", root)
		}
	}
	var paths []string
	for _, f := range d.Files {
		if f.Kind != runtime.ComposeFile && f.Kind != runtime.EnvFile {
			return fmt.Errorf("a file of the unknown kind %q", f.Kind)
		}
		if f.Left != "" {
			continue
		}
		meets := func(path string) bool { return workload.Contains(path, f.Path) || workload.Contains(f.Path, path) }
		if !plain(f.Path) || f.Path == "/" || len(paths) == mostFiles || slices.ContainsFunc(paths, meets) {
			return fmt.Errorf("the file %q", f.Path)
		}
		paths = append(paths, f.Path)
	}
	return nil
}

// mostFiles bounds the files of a document.
const mostFiles = 1000

// plain reports whether a path is absolute and as short as it can be.
func plain(path string) bool {
	return filepath.IsAbs(path) && path == filepath.Clean(path) && !strings.ContainsRune(path, 0) && len(path) < 4096
}

// node returns the text of the workload as a mapping with one key, nil where there is none.
func (d *Document) node() (*yaml.Node, error) {
	if d.Config == "" {
		return nil, nil
	}
	var doc yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(d.Config))
	if err := dec.Decode(&doc); err != nil {
		return nil, err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("the text has a second document")
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode || len(doc.Content[0].Content) != 2 || doc.Content[0].Content[1].Kind != yaml.MappingNode {
		return nil, errors.New("the text is not that of one workload")
	}
	return doc.Content[0], nil
}

// Paste returns what an operator adds to the config c so that it has the workload, under the
// name by which the store knows it: `base` and `absolute_roots` where c has others, and the
// workload, below its key where c has none. It is "" where the document has no workload.
func (d *Document) Paste(c *workload.Config, name string) (string, error) {
	own, err := d.node()
	if err != nil || own == nil {
		return "", err
	}
	own.Content[0].Value = name
	_, project := workload.Key(own.Content[1], "project")
	if d.Base != "" && name != d.Workload && project == nil { // the default is the name
		own.Content[1].Content = append(own.Content[1].Content, word("project"), word(d.Workload))
	}
	text := ""
	if d.Base != "" && d.Base != c.Base {
		text += encoded(map[string]string{"base": d.Base})
	}
	roots := slices.Clone(c.AbsoluteRoots)
	for _, root := range d.AbsoluteRoots {
		if !slices.ContainsFunc(roots, func(dir string) bool { return workload.Contains(dir, root) }) {
			roots = append(roots, root)
		}
	}
	if len(roots) > len(c.AbsoluteRoots) {
		text += encoded(map[string][]string{"absolute_roots": roots})
	}
	if len(c.Workloads) == 0 {
		text += "workloads:\n"
	}
	for line := range strings.Lines(encoded(own)) {
		if strings.TrimSpace(line) != "" {
			line = "  " + line
		}
		text += line
	}
	return text, nil
}

func word(text string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: text} }

func encoded(value any) string {
	var b strings.Builder
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(value), enc.Close()); err != nil {
		return "# " + err.Error() + "\n" // what was decoded can be encoded
	}
	return b.String()
}
