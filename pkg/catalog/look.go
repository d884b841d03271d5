package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/part"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/store"
)

// Look is a snapshot that is looked into.
type Look struct {
	Store    *store.Store
	Manifest *store.Manifest
	Line     func(text string) // is given text for the person at the terminal
}

// List calls see with names of the snapshot: of a directory itself and of what is in it,
// with all that is below it where recursive says so; of all volumes for "", else of what
// arg names, a volume or a part of it. Memory is bounded: see [Names].
func (x *Look) List(ctx context.Context, arg string, recursive bool, see func(volume string, n *Name) error) error {
	var args []string
	if arg != "" {
		args = []string{arg}
	}
	list, err := choose(x.Manifest, args)
	if err != nil {
		return err
	}
	for _, c := range list {
		if err := x.list(ctx, c, recursive, see); err != nil {
			return Fault(ctx, x.Manifest.Workload, err)
		}
	}
	return nil
}

func (x *Look) list(ctx context.Context, c chosen, recursive bool, see func(string, *Name) error) error {
	names, err := NamesOf(ctx, x.Store, x.Manifest, c.volume, store.Origin{}, x.Line)
	if err != nil {
		return err
	}
	defer names.Close()
	top, within := tarstream.Root, ""
	if c.choice != nil {
		top = c.choice.Names()[0]
		within = top + "/"
	}
	for found := false; ; {
		n, err := names.Next()
		if errors.Is(err, io.EOF) && !found {
			return x.absent(ctx, c)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		below, is := strings.CutPrefix(n.Name, within)
		switch {
		case n.Name == top:
			found = true
		case !found:
			continue
		case !is:
			return nil // the names are sorted
		case !recursive && strings.Contains(below, "/"):
			continue
		}
		if err := see(c.volume.Name, n); err != nil {
			return err
		}
	}
}

// absent says which names resemble one that the volume lacks.
func (x *Look) absent(ctx context.Context, c chosen) error {
	found, err := c.choice.Find(indexOf(ctx, x.Store, x.Manifest, c.volume), len(c.volume.Members))
	if err == nil && len(found.Missing) == 0 {
		err = fmt.Errorf("%w: %q comes and goes", part.ErrMismatch, c.choice.Names()[0])
	}
	if err != nil {
		found = &part.Found{Missing: []part.Missing{{Name: c.choice.Names()[0], In: tarstream.Root}}}
	}
	return missing(x.Manifest, c.volume, found.Missing)
}

// Fault is how an error of a look into a snapshot is reported. Nothing has changed.
func Fault(ctx context.Context, workload string, err error) error {
	e := fault.Classify(fault.Because(ctx, err))
	if e.Code == "snapshot_damaged" { // no pre-flight has refused it
		e.Kind, e.Remedy = fault.Failed, remedy.Of("`", remedy.Verify(workload), "` says what else is damaged; use another snapshot (", remedy.List(workload), ")")
	}
	return e
}

// Cat writes the content of one file to w: of arg, VOLUME:PATH, or the name of a volume
// that is one file. Only the members of the file are read, and each is checked before a
// byte of it is written. After an error w holds only a part. A link to a file is the
// file; what is not a file is refused.
func (x *Look) Cat(ctx context.Context, arg string, w io.Writer) error {
	c, err := x.one(ctx, arg)
	if err != nil {
		return Fault(ctx, x.Manifest.Workload, err)
	}
	begun := false
	read := func(index part.Index, exact bool) error {
		found, err := c.find(x.Manifest, index, exact)
		if err != nil {
			return err
		}
		return found.Read(ctx, x.Store, c.volume.Members, func(e *archive.Entry, content io.Reader) error {
			begun = true
			if err := x.isFile(c, e); err != nil {
				return err
			}
			_, err := io.CopyBuffer(stopping{ctx, w}, content, make([]byte, 256<<10))
			if err != nil {
				return fmt.Errorf("%q: %w", arg, err)
			}
			return nil
		})
	}
	err = read(indexOf(ctx, x.Store, x.Manifest, c.volume), false)
	if !begun && (errors.Is(err, store.ErrIndex) || errors.Is(err, part.ErrMismatch)) {
		x.Line(scanNotice(x.Manifest, err))
		if err = read(part.Scan(ctx, x.Store, c.volume.Members), true); errors.Is(err, part.ErrMismatch) {
			err = fmt.Errorf("%w: %w", archive.ErrRefused, err)
		}
	}
	if err != nil {
		return Fault(ctx, x.Manifest.Workload, err)
	}
	return nil
}

// stopping is a writer for as long as ctx goes on: a hole may have no end.
type stopping struct {
	ctx context.Context
	w   io.Writer
}

func (s stopping) Write(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	return s.w.Write(p)
}

// one returns the file that arg names.
func (x *Look) one(ctx context.Context, arg string) (chosen, error) {
	list, err := choose(x.Manifest, []string{arg})
	if err != nil {
		return chosen{}, err
	}
	c := list[0]
	if c.choice != nil {
		return c, nil
	}
	if c.volume.Kind != store.File {
		return c, x.notFile(c, tarstream.Root, "a directory")
	}
	err = x.list(ctx, c, true, func(_ string, n *Name) (err error) {
		if n.Type == archive.Regular {
			c.choice, err = part.Choose([]string{n.Name})
		}
		return err
	})
	return c, err
}

func (x *Look) isFile(c chosen, e *archive.Entry) error {
	switch {
	case e.Type == archive.Symlink:
		return x.notFile(c, e.Name, fmt.Sprintf("a symbolic link to %q", e.Link))
	case e.Type != archive.Regular:
		return x.notFile(c, e.Name, "a "+e.Type.String())
	case e.Size > c.volume.Bytes: // or a sparse file of a few bytes could go on for ever
		return fmt.Errorf("%w: %q has %d bytes, its manifest says that all files have %d", archive.ErrRefused, e.Name, e.Size, c.volume.Bytes)
	}
	return nil
}

func (x *Look) notFile(c chosen, name, what string) error {
	arg := c.volume.Name
	if name != tarstream.Root {
		arg = join(arg, name)
	}
	way := remedy.Of("`", remedy.Ls(x.Manifest.Workload, x.Manifest.SID, arg), "` shows it, and `", remedy.PartTo(x.Manifest.Workload, x.Manifest.SID, arg), "` puts it into a directory")
	if strings.HasPrefix(what, "a symbolic link") {
		way = remedy.Of("name the file that it leads to, if that is in the volume; ", way)
	}
	return fault.Refuse("not_regular", way, "%q is %s, and only a file has bytes to write", arg, what)
}
