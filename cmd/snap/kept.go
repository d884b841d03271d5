package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tiny-forge/snap/pkg/catalog"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/keep"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/restore"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/store"
)

// keptJSON is what a snapshot keeps of the workload's config, in show without contents.
type keptJSON struct {
	Host    string       `json:"host"`
	Path    string       `json:"path"` // of the config file
	Text    string       `json:"text,omitempty"`
	LeftOut string       `json:"left_out"` // why there is no text
	Volumes []keep.Place `json:"volumes"`
	Files   []keptFile   `json:"files"`
}

type keptFile struct {
	Path    string           `json:"path"`
	Kind    runtime.FileKind `json:"kind"`
	Bytes   int              `json:"bytes"`
	Content []byte           `json:"content,omitempty"`
	LeftOut string           `json:"left_out"` // why there is no content
}

func showKept(d *keep.Document, contents bool) *keptJSON {
	out := &keptJSON{d.Host, d.Path, "", d.Left, d.Volumes, []keptFile{}}
	for _, f := range d.Files {
		shown := keptFile{f.Path, f.Kind, len(f.Content), nil, f.Left}
		if contents {
			shown.Content = f.Content
		}
		out.Files = append(out.Files, shown)
	}
	return out
}

func keptRows(d *keep.Document) [][]string {
	rows := [][]string{{"FILE", "KIND", "SIZE", ""}}
	for _, f := range d.Files {
		rows = append(rows, []string{f.Path, string(f.Kind), size(int64(len(f.Content))), f.Left})
	}
	return rows
}

// kept returns what show says of the config that a snapshot keeps. A snapshot without a
// usable one is still a snapshot.
func (a *app) kept(e *restore.Engine, m *store.Manifest) *keep.Document {
	d, err := catalog.Kept(e.Store, fault.Failed, m)
	if err != nil {
		a.progress("warning: %v", err)
	}
	return d
}

// fromConfig is restore --config-from.
type fromConfig struct{ sid, to string }

// only refuses what says how data is restored: --config-from restores nothing.
func (f *fromConfig) only(flags *pflag.FlagSet) (err error) {
	flags.Visit(func(flag *pflag.Flag) {
		switch flag.Name {
		case "config-from", "to", "config", "context", "host", "json", "quiet":
		default:
			err = &usageError{fmt.Errorf("--%s makes no sense with --config-from, which restores nothing", flag.Name), "leave --" + flag.Name + " out"}
		}
	})
	if err == nil && flags.Changed("to") && f.to == "" {
		err = errNoDirectory
	}
	return err
}

// run prints what the operator adds to the config, or puts it and the files into a directory.
func (f *fromConfig) run(ctx context.Context, a *app, e *restore.Engine, name string) error {
	kind := fault.Failed
	if f.to != "" {
		kind = fault.Refused
	}
	sid, err := a.sid(e, kind, name, f.sid)
	if err != nil {
		return err
	}
	f.sid = sid
	m, err := e.Snapshot(name, f.sid)
	if err != nil {
		return err
	}
	d, err := catalog.Kept(e.Store, kind, m)
	if err == nil && d == nil {
		err = catalog.NoConfig(kind, m)
	}
	if err != nil {
		return err
	}
	text, err := d.Paste(e.Config, name)
	if err == nil && f.to != "" {
		err = f.write(ctx, a, e, name, d)
	}
	if err != nil {
		return err
	}
	shown := showKept(d, true)
	shown.Text = text
	a.result = struct {
		Workload string `json:"workload"`
		SID      string `json:"sid"`
		To       string `json:"to,omitempty"`
		*keptJSON
	}{name, f.sid, f.to, shown}
	if f.to == "" {
		f.print(a, e, name, d, text)
	}
	return nil
}

// print prints what can be appended to the config as it is: the rest are comments.
func (f *fromConfig) print(a *app, e *restore.Engine, name string, d *keep.Document, text string) {
	a.silent = false
	where := "to " + a.config
	if len(e.Config.Workloads) > 0 {
		where = "below `workloads:` in " + a.config
	}
	a.say("# workload %s in snapshot %s, as the config %q of host %q had it. Add it %s:", name, f.sid, d.Path, d.Host, where)
	if d.Left != "" {
		a.say("# the config was not kept: %q", d.Left)
	}
	for line := range strings.Lines(text) {
		a.say("%s", strings.TrimSuffix(line, "\n"))
	}
	for _, v := range d.Volumes {
		a.say("# volume %q was %q", v.Name, v.Path)
	}
	for _, file := range d.Files {
		if file.Left != "" {
			a.say("# file %q (%s) is not kept: %q", file.Path, file.Kind, file.Left)
			continue
		}
		a.say("# file %q (%s), %s", file.Path, file.Kind, size(int64(len(file.Content))))
	}
	if len(d.Files) > 0 {
		a.say("# to have the files: %s", a.spell(remedy.ConfigTo(name, f.sid)))
	}
}

func (f *fromConfig) write(ctx context.Context, a *app, e *restore.Engine, name string, d *keep.Document) error {
	dir, err := filepath.Abs(f.to)
	if err != nil {
		return err
	}
	x, err := e.Extract(ctx, restore.ExtractRequest{Workload: name, SID: f.sid, Dir: dir, Config: true})
	if err != nil {
		return err
	}
	a.effect = adds
	a.say("%s: snap.yaml is what to add to %s; the files lie below files/, each at the path that it had", x.Dir, a.config)
	if len(d.Files) > 0 {
		a.table(keptRows(d))
	}
	return nil
}
