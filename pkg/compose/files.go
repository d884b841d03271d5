package compose

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"gopkg.in/yaml.v3"

	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Sources reads the files that the project is made from: those of the command, what they
// include and extend, and the env files of all. What cannot be kept is among them, with
// the reason. The files of configs and secrets are not.
func (c Command) Sources() []runtime.File {
	r := &sources{}
	for _, path := range c.Files {
		r.compose(path, c.Folder())
	}
	for _, path := range c.EnvFiles {
		r.read(path, runtime.EnvFile)
	}
	if len(c.EnvFiles) == 0 && c.Folder() != "" {
		r.dotEnv(c.Folder())
	}
	return r.list
}

// Bounds of what is kept of a project: files, and bytes of one and of all of them.
const (
	mostFiles  = 200
	mostOfFile = 1 << 20
	mostOfAll  = 8 << 20
)

type sources struct {
	list  []runtime.File
	bytes int
}

// read adds a file, once. It returns nil for one that cannot be read.
func (r *sources) read(path string, kind runtime.FileKind) []byte {
	f := runtime.File{Path: path, Kind: kind}
	if len(r.list) >= mostFiles || slices.ContainsFunc(r.list, func(o runtime.File) bool { return o.Path == path }) {
		return nil
	}
	text, err := small(path)
	if err == nil && r.bytes+len(text) > mostOfAll {
		err = fmt.Errorf("all files together are longer than %d bytes", mostOfAll)
	}
	if err != nil {
		f.Left, text = err.Error(), nil
	}
	f.Content = text
	r.bytes += len(text)
	r.list = append(r.list, f)
	return text
}

// dotEnv adds the env file that Compose reads of itself, if it is there.
func (r *sources) dotEnv(folder string) {
	path := filepath.Join(folder, ".env")
	if _, err := os.Lstat(path); err == nil {
		r.read(path, runtime.EnvFile)
	}
}

// small reads a regular file that is not long. It never blocks.
func small(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("it is not a regular file")
	}
	text, err := io.ReadAll(io.LimitReader(f, mostOfFile+1))
	if err == nil && len(text) > mostOfFile {
		err = fmt.Errorf("it is longer than %d bytes", mostOfFile)
	}
	return text, err
}

// compose adds a Compose file, and what it names. folder is where relative paths begin.
func (r *sources) compose(path, folder string) {
	text := r.read(path, runtime.ComposeFile)
	if text == nil {
		return
	}
	var file struct {
		Include  []yaml.Node `yaml:"include"`
		Services map[string]struct {
			EnvFile yaml.Node `yaml:"env_file"`
			Extends yaml.Node `yaml:"extends"`
		} `yaml:"services"`
	}
	// Compose has read it. What this reader does not understand it passes over.
	_ = yaml.Unmarshal(text, &file)
	for _, name := range slices.Sorted(maps.Keys(file.Services)) {
		s := file.Services[name]
		r.envFiles(&s.EnvFile, folder)
		for _, from := range r.paths(inMapping(&s.Extends, "file"), runtime.ComposeFile, folder) {
			r.compose(from, filepath.Dir(from))
		}
	}
	for i := range file.Include {
		r.include(&file.Include[i], folder)
	}
}

func (r *sources) envFiles(n *yaml.Node, folder string) {
	for _, path := range r.paths(n, runtime.EnvFile, folder) {
		r.read(path, runtime.EnvFile)
	}
}

// include adds what an entry of include names: a path, or a mapping.
func (r *sources) include(n *yaml.Node, folder string) {
	files := r.paths(n, runtime.ComposeFile, folder)
	if len(files) == 0 {
		return
	}
	at := filepath.Dir(files[0])
	for _, own := range r.paths(inMapping(n, "project_directory"), runtime.ComposeFile, folder) {
		at = own
	}
	for _, path := range files {
		r.compose(path, at)
	}
	r.envFiles(inMapping(n, "env_file"), folder)
	r.dotEnv(at)
}

// inMapping returns the value of a key, nil where there is none.
func inMapping(n *yaml.Node, key string) *yaml.Node {
	_, value := workload.Key(n, key)
	return value
}

// paths returns the paths in a value of a Compose file: a string, a list of such values, or
// a mapping that has them under the key path. One that has a variable in it is left out,
// with the reason; so is, without a word, one that is not a file of this host.
func (r *sources) paths(n *yaml.Node, kind runtime.FileKind, folder string) (list []string) {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n == nil {
		return nil
	}
	switch n.Kind {
	case yaml.ScalarNode:
		switch path := n.Value; {
		case n.Tag == "!!null" || path == "" || strings.Contains(path, "://"):
		case strings.Contains(path, "$"):
			r.list = append(r.list, runtime.File{Path: path, Kind: kind, Left: "its path has a variable in it"})
		case filepath.IsAbs(path):
			list = append(list, filepath.Clean(path))
		default:
			list = append(list, filepath.Join(folder, path))
		}
	case yaml.SequenceNode:
		for _, item := range n.Content {
			list = append(list, r.paths(item, kind, folder)...)
		}
	case yaml.MappingNode:
		list = r.paths(inMapping(n, "path"), kind, folder)
	}
	return list
}
