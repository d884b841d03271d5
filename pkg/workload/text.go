package workload

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"
)

// Text returns a workload as it is written in the config: a mapping with its name as the
// one key, with the comments in it. What an alias or << takes from elsewhere in the file
// stands in its place. The keys notify and ping are left out, since they may hold secrets
// that no snapshot is to have. It is "" for a config that was not read from a file.
func (c *Config) Text(name string) (string, error) {
	if c.data == nil {
		return "", nil
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(c.data, &doc); err != nil {
		return "", err
	}
	if len(doc.Content) != 1 {
		return "", errors.New("the config is empty")
	}
	x := expansion{left: maxText}
	_, all := Key(&doc, "workloads")
	key, own := Key(all, name)
	if own == nil {
		return "", fmt.Errorf("the config has no workload %q", name)
	}
	out := yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{x.copy(key), without(x.copy(own), "notify", "ping")}}
	if x.left < 0 {
		return "", fmt.Errorf("longer than %d bytes without aliases", maxText)
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(&out), enc.Close()); err != nil {
		return "", err
	}
	return b.String(), nil
}

// without takes keys out of a mapping.
func without(n *yaml.Node, names ...string) *yaml.Node {
	for i := len(n.Content) - 2; n.Kind == yaml.MappingNode && i >= 0; i -= 2 {
		if slices.Contains(names, n.Content[i].Value) {
			n.Content = slices.Delete(n.Content, i, i+2)
		}
	}
	return n
}

// maxText bounds the text of a workload, in bytes.
const maxText = 4 << 20

// Key returns a key of a mapping and its value, nil where there is none.
func Key(n *yaml.Node, name string) (key, value *yaml.Node) {
	for n != nil && (n.Kind == yaml.DocumentNode || n.Kind == yaml.AliasNode) {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		} else {
			n = n.Content[0]
		}
	}
	if n == nil || n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name && !merges(n.Content[i]) {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}

func merges(key *yaml.Node) bool { return key.Tag == "!!merge" || key.Tag == "" && key.Value == "<<" }

// expansion copies nodes without anchors, aliases and merges. It ends when as much is
// copied as a text may be long.
type expansion struct{ left int }

func (x *expansion) copy(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	out := *n
	out.Anchor, out.Content = "", nil
	if n.Kind == yaml.ScalarNode && strings.ContainsFunc(n.Value, func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) }) {
		out.Style = yaml.DoubleQuotedStyle // in which an escape that the door prints means the same
	}
	if x.left -= len(n.Value) + 1; x.left < 0 {
		return &out
	}
	if n.Kind != yaml.MappingNode {
		for _, item := range n.Content {
			out.Content = append(out.Content, x.copy(item))
		}
		return &out
	}
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		if merges(n.Content[i]) {
			merged = append(merged, n.Content[i+1])
			continue
		}
		out.Content = append(out.Content, x.copy(n.Content[i]), x.copy(n.Content[i+1]))
	}
	for _, m := range merged {
		x.merge(&out, m)
	}
	return &out
}

// merge adds the keys of a mapping, or of each in a list, that out does not have yet: what
// stands in the mapping itself counts before what it merges, and the first before the next.
func (x *expansion) merge(out, from *yaml.Node) {
	from = x.copy(from)
	if from.Kind == yaml.SequenceNode {
		for _, one := range from.Content {
			x.merge(out, one)
		}
		return
	}
	for i := 0; i+1 < len(from.Content); i += 2 {
		if key, _ := Key(out, from.Content[i].Value); key == nil {
			out.Content = append(out.Content, from.Content[i], from.Content[i+1])
		}
	}
}
