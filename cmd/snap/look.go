package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/catalog"
	"github.com/tiny-forge/snap/pkg/diff"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/restore"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/verify"
)

// entryJSON is one name of a volume.
type entryJSON struct {
	Volume string `json:"volume"`
	nameJSON
	metaJSON
}

// nameJSON is a name. JSON has no bytes that are not UTF-8, so such a name is there in
// base64 as well.
type nameJSON struct {
	Path   string `json:"path"` // "" for the volume's own directory
	Base64 string `json:"path_base64,omitempty"`
}

// metaJSON is what stat shows.
type metaJSON struct {
	Type  string    `json:"type"`
	Mode  string    `json:"mode"` // octal
	UID   uint32    `json:"uid"`
	GID   uint32    `json:"gid"`
	Size  int64     `json:"size"`
	Mtime time.Time `json:"mtime"`
	Link  string    `json:"link,omitempty"` // of a hardlink: the first name of the file
}

func showName(name string) nameJSON {
	switch {
	case name == ".":
		return nameJSON{}
	case utf8.ValidString(name):
		return nameJSON{Path: name}
	}
	return nameJSON{name, base64.StdEncoding.EncodeToString([]byte(name))}
}

func showMeta(l *archive.Line) metaJSON {
	m := metaJSON{Type: l.Type.String(), Mode: fmt.Sprintf("%04o", l.Mode), UID: l.UID, GID: l.GID, Size: l.Size, Mtime: mtime(l)}
	if l.Type == archive.Hardlink {
		m.Link = l.Link
	}
	return m
}

// mtime is a time that JSON can hold: a file may say that it is of any year.
func mtime(l *archive.Line) time.Time {
	t := time.Unix(l.Mtime.Sec, l.Mtime.Nsec).UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		return time.Time{}
	}
	return t
}

// argument is VOLUME:PATH, as ls, cat, diff and restore --to take it.
func argument(volume, name string) string {
	if name == "." {
		return volume
	}
	return volume + ":" + name
}

// modeText is the mode as ls(1) shows it.
func modeText(l *archive.Line) string {
	b := []byte("?rwxrwxrwx")
	b[0] = map[archive.Type]byte{
		archive.Regular: '-', archive.Hardlink: '-', archive.Directory: 'd', archive.Symlink: 'l',
		archive.Fifo: 'p', archive.CharacterDevice: 'c', archive.BlockDevice: 'b',
	}[l.Type]
	for i := range 9 {
		if l.Mode&(1<<(8-i)) == 0 {
			b[1+i] = '-'
		}
	}
	for i, letter := range []byte("sst") {
		at := 3 * (i + 1)
		switch set := l.Mode&(0o4000>>i) != 0; {
		case set && b[at] == 'x':
			b[at] = letter
		case set:
			b[at] = letter - 'a' + 'A'
		}
	}
	return string(b)
}

func lsText(volume string, n *catalog.Name) string {
	return fmt.Sprintf("%s %9s %12d %s %s", modeText(&n.Line), fmt.Sprintf("%d:%d", n.UID, n.GID), n.Size,
		mtime(&n.Line).Local().Format(time.DateTime), remedy.Shown(argument(volume, n.Name)))
}

func (a *app) lsCommand() *cobra.Command {
	var recursive, null bool
	cmd := &cobra.Command{
		Use:   "ls <workload> <sid> [VOLUME[:PATH]]",
		Short: "List the files of a snapshot",
		Long: `List the files of a snapshot: mode, owner, size, mtime and name. A directory is
followed by what is in it, with --recursive by everything below it. Without VOLUME
the top of all volumes is listed. The index of the snapshot says it; the data is not
read. So where a symlink leads to is not shown.

Names are written as VOLUME:PATH, as cat and restore --to take them. A name with
bytes that a terminal could obey is quoted as $'...', which a shell takes as it is.
With -0 the bare names are printed, with a NUL after each, for xargs -0.`,
		Example: `  snap ls blog 20261123T170024Z-77668a
  snap ls blog 20261123T170024Z-77668a content:img --recursive`,
		Args: cobra.RangeArgs(2, 3),
	}
	cmd.Flags().BoolVarP(&recursive, "recursive", "R", false, "list everything that is below a directory")
	cmd.Flags().BoolVarP(&null, "null", "0", false, "print names alone, as they are, with a NUL after each")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		switch {
		case null && a.json:
			return errors.New("--null and --json are two forms of the same list")
		case null && terminal(a.out.w):
			return &usageError{errors.New("--null prints names as they are, and a terminal could obey them"), "leave --null out, or pass the list on: … --null | xargs -0 …"}
		}
		return nil
	}
	cmd.RunE = a.with(knownStore, func(ctx context.Context, e *restore.Engine, args []string) error {
		what := ""
		if len(args) == 3 {
			what = args[2]
		}
		a.list = "entries"
		return a.look(e, args, "ls", func(x *catalog.Look) error {
			a.result = map[string]any{"workload": args[0], "sid": x.Manifest.SID}
			return x.List(ctx, what, recursive, func(volume string, n *catalog.Name) error {
				if null {
					return a.put(argument(volume, n.Name) + "\x00")
				}
				if a.json {
					return a.item("", entryJSON{volume, showName(n.Name), showMeta(&n.Line)})
				}
				return a.item(lsText(volume, n), nil)
			})
		})
	})
	return cmd
}

// look looks into a snapshot. A reader of stdout that has gone away ends it without a word.
func (a *app) look(e *restore.Engine, args []string, verb string, do func(*catalog.Look) error) error {
	sid, err := a.sid(e, fault.Failed, args[0], args[1])
	if err != nil {
		return err
	}
	err = e.Read(verb, args[0], sid, func(m *store.Manifest) error {
		return do(&catalog.Look{Store: e.Store, Manifest: m, Line: a.Line})
	})
	if a.out.lost != nil {
		return nil // the end of the command says so
	}
	return err
}

func (a *app) catCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cat <workload> <sid> VOLUME:PATH",
		Short: "Write a file of a snapshot to stdout",
		Long: `Write a file of a snapshot to stdout, as it is. Only the members that hold it are read,
and each is verified before any of it is written; if one is damaged, the output ends
there, and the exit code is 1. Another name of a file is the file. Directories,
symlinks and devices are refused: restore --to has them.`,
		Example: `  snap cat blog 20261123T170024Z-77668a content:img/logo.png >logo.png`,
		Args:    cobra.ExactArgs(3),
		PreRunE: func(*cobra.Command, []string) error {
			if a.json {
				return errors.New("cat writes the file itself, and no JSON")
			}
			return nil
		},
		RunE: a.with(knownStore, func(ctx context.Context, e *restore.Engine, args []string) error {
			return a.look(e, args, "cat", func(x *catalog.Look) error { return x.Cat(ctx, args[2], a.out) })
		}),
	}
}

type changeJSON struct {
	Volume string `json:"volume"`
	nameJSON
	Change diff.Kind `json:"change"`
	From   *metaJSON `json:"from"` // null where it is not there
	To     *metaJSON `json:"to"`
}

func showChange(volume string, c *diff.Change) changeJSON {
	shown := changeJSON{Volume: volume, nameJSON: showName(c.Name), Change: c.Kind}
	if c.From != nil {
		m := showMeta(c.From)
		shown.From = &m
	}
	if c.To != nil {
		m := showMeta(c.To)
		shown.To = &m
	}
	return shown
}

const live = "live"

func (a *app) diffCommand() *cobra.Command {
	var content bool
	var volumes []string
	cmd := &cobra.Command{
		Use:   "diff <workload> <sid> [sid|live]",
		Short: "Show what changed since a snapshot, or between two",
		Long: `Show what differs between a snapshot and the live data, or from one snapshot to
another: a line for each name, and what that is in all. The letters are

  +  added                M  another content        T  of another type
  -  removed              U  other metadata: mode, owner, links

A file counts as changed if its size or mtime differs. With --content, what that
cannot tell is read and compared. What the config excludes is left out. The exit code
is 0 whether or not anything differs. Live data is only looked at; no container is
touched.`,
		Example: `  snap diff blog 20261123T170024Z-77668a
  snap diff blog 20261123T170024Z-77668a 20261124T170024Z-90aa1b --content`,
		Args: cobra.RangeArgs(2, 3),
	}
	cmd.Flags().BoolVar(&content, "content", false, "read and compare what stat cannot tell")
	cmd.Flags().StringArrayVar(&volumes, "volume", nil, "compare only the volume of this `name` (may be repeated)")
	cmd.RunE = a.with(knownStore, func(ctx context.Context, e *restore.Engine, args []string) error {
		to := live
		if len(args) == 3 {
			to = args[2]
		}
		a.list = "changes"
		return a.look(e, args, "diff", func(x *catalog.Look) error {
			a.Phase(restore.Stage) // it may read much while the app runs
			c := &diff.Comparison{Store: x.Store, From: x.Manifest, Volumes: volumes, Content: content, Line: x.Line}
			c.See = func(volume string, one *diff.Change) error {
				if a.json {
					return a.item("", showChange(volume, one))
				}
				return a.item(string(one.Kind)+" "+remedy.Shown(argument(volume, one.Name)), nil)
			}
			if to != live {
				to, err := a.sid(e, fault.Failed, args[0], to)
				if err != nil {
					return err
				}
				return e.Read("diff", args[0], to, func(m *store.Manifest) error {
					c.To = m
					return a.compare(ctx, c)
				})
			}
			host, err := e.Looked(ctx, args[0])
			if err != nil {
				return err
			}
			c.Live = &diff.Live{Workload: host.Workload, Open: host.OpenOne, Excludes: host.Mounts.Excludes}
			return a.compare(ctx, c)
		})
	})
	return cmd
}

func (a *app) compare(ctx context.Context, c *diff.Comparison) error {
	result := map[string]any{"workload": c.From.Workload, "from": c.From.SID, "to": live}
	if c.To != nil {
		result["to"] = c.To.SID
	}
	a.result = result
	totals, err := diff.Run(ctx, c)
	if err != nil {
		return err
	}
	result["volumes"] = totals
	for _, t := range totals {
		a.say("%s: %s", remedy.Shown(t.Volume), totalsText(&t.Totals, [4]string{"added", "removed", "changed", "with other metadata"}))
	}
	return nil
}

// totalsText says what differs. words are for the four numbers.
func totalsText(t *diff.Totals, words [4]string) string {
	var parts []string
	for i, n := range []diff.Number{t.Added, t.Removed, t.Changed, t.Metadata} {
		var kinds []string
		for _, kind := range []struct {
			n    int64
			what string
		}{{n.Files, "file"}, {n.Dirs, "dir"}, {n.Others, "other name"}} {
			if kind.n > 0 {
				kinds = append(kinds, verify.Count(int(kind.n), kind.what))
			}
		}
		if kinds == nil {
			continue
		}
		bytes := ""
		if n.Bytes > 0 && i < 3 {
			bytes = " (" + size(n.Bytes) + ")"
		}
		parts = append(parts, strings.Join(kinds, ", ")+" "+words[i]+bytes)
	}
	if parts == nil {
		return "nothing differs"
	}
	return strings.Join(parts, "; ")
}
