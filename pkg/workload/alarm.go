package workload

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Secret is a text that no message may show: a URL often holds a token.
type Secret string

// String implements [fmt.Stringer]: it hides the text from every verb of package fmt.
func (Secret) String() string { return "(secret)" }

// GoString implements [fmt.GoStringer].
func (s Secret) GoString() string { return s.String() }

// MarshalText hides the text from whoever writes the config down.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalYAML never repeats the text in an error.
func (s *Secret) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return fmt.Errorf("line %d: expected one URL", n.Line)
	}
	*s = Secret(n.Value)
	return nil
}

// Secrets are one secret or a list of them.
type Secrets []Secret

// UnmarshalYAML implements [yaml.Unmarshaler].
func (l *Secrets) UnmarshalYAML(n *yaml.Node) error {
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		nodes = n.Content
	}
	*l = Secrets{}
	for _, n := range nodes {
		var s Secret
		if err := s.UnmarshalYAML(n); err != nil {
			return err
		}
		*l = append(*l, s)
	}
	return nil
}

// Notify says whom to tell how an operation ended. The URLs are those of shoutrrr.
type Notify struct {
	URLs     Secrets `yaml:"urls"`
	URLsFile string  `yaml:"urls_file"` // one a line
	// On says what is told: OnFailure, OnRecovery, OnSuccess. Nil: what the config says
	// for all, else failures and recoveries.
	On []string `yaml:"on"`
}

// What a notification tells.
const (
	OnFailure  = "failure"
	OnRecovery = "recovery" // the first success after a failure
	OnSuccess  = "success"
)

// Ping is the address of a service that raises an alarm when it hears nothing.
type Ping struct {
	URL  Secret `yaml:"ping"`
	File string `yaml:"ping_file"` // holds the URL
}

// Empty reports whether there is none.
func (p Ping) Empty() bool { return p.URL == "" && p.File == "" }

// NotifyOf returns whom to tell about a workload: what the workload says, and else what
// the config says for all.
func (c *Config) NotifyOf(name string) Notify {
	n := Notify{On: []string{OnFailure, OnRecovery}}
	own := c.Workloads[name]
	for _, of := range []*Notify{c.Notify, own.notify()} {
		if of == nil {
			continue
		}
		if of.URLs != nil || of.URLsFile != "" {
			n.URLs, n.URLsFile = of.URLs, of.URLsFile
		}
		if of.On != nil {
			n.On = of.On
		}
	}
	return n
}

func (w *Workload) notify() *Notify {
	if w == nil {
		return nil
	}
	return w.Notify
}

func (n *Notify) check() error {
	if n == nil {
		return nil
	}
	for _, on := range n.On {
		if !slices.Contains([]string{OnFailure, OnRecovery, OnSuccess}, on) {
			return fmt.Errorf("notify: on: %q: use %s, %s or %s", on, OnFailure, OnRecovery, OnSuccess)
		}
	}
	for i, u := range n.URLs {
		if !hasScheme(u) {
			return fmt.Errorf("notify: urls: number %d is not a URL such as ntfy://ntfy.sh/topic", i+1)
		}
	}
	return secretFile("notify: urls_file", &n.URLsFile)
}

func (p *Ping) check() error {
	if p.URL != "" && p.File != "" {
		return errors.New("ping and ping_file: use one of them")
	}
	if p.URL != "" && !HTTP(p.URL) {
		return errors.New("ping: it is not a URL with http or https")
	}
	return secretFile("ping_file", &p.File)
}

// HTTP reports whether a secret is a URL of the web.
func HTTP(s Secret) bool {
	u, err := url.Parse(string(s))
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

func hasScheme(s Secret) bool {
	u, err := url.Parse(string(s))
	return err == nil && u.Scheme != "" && strings.Contains(string(s), "://")
}

func secretFile(key string, path *string) error {
	if *path == "" {
		return nil
	}
	if err := cleanAbsolute(path); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// checkAlarms checks who is told of all workloads.
func (c *Config) checkAlarms() error {
	if err := cmp.Or(c.Notify.check(), c.Ping.check()); err != nil {
		return err
	}
	if c.Textfile == "" {
		return nil
	}
	if err := cleanAbsolute(&c.Textfile); err != nil {
		return fmt.Errorf("textfile: %w", err)
	}
	if filepath.Ext(c.Textfile) != ".prom" {
		return fmt.Errorf("textfile: %q: the collector reads only files that end in .prom", c.Textfile)
	}
	return nil
}
