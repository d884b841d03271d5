package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/cmd/snap/process"
	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/restore"
	"github.com/tiny-forge/snap/pkg/snapshot"
)

func (a *app) exportCommand() *cobra.Command {
	var volume, output, compression string
	cmd := &cobra.Command{
		Use:         "export <workload> <sid> -o FILE|-",
		Annotations: doing,
		Short:       "Write a volume of a snapshot as a plain .tar.gz or .tar.zst",
		Long: `Write a volume of a snapshot as a plain .tar.gz or .tar.zst. The compression is
that of --compression. Without it, the file's name decides (.gz, .tgz, .zst,
.tzst; a name such as .tar or .xz is refused). If the name does not tell, the
compression is the snapshot's own. Every byte is verified before it is written.`,
		Args: cobra.ExactArgs(2),
	}
	cmd.Flags().StringVar(&volume, "volume", "", "the volume's `name`; needed if the snapshot has several")
	cmd.Flags().StringVarP(&output, "output", "o", "", "the `file` to write; - is stdout")
	cmd.Flags().StringVar(&compression, "compression", "", "compress with `gzip|zstd` (default: what the file's name says, else the snapshot's own)")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		switch {
		case output == "":
			return errors.New("no file to write: use -o FILE, or -o - for stdout")
		case output == "-" && a.json:
			return errors.New("-o - and --json both write to stdout")
		}
		var err error
		if cmd.Flags().Changed("compression") {
			_, err = archive.ParseCodec(compression)
		} else {
			compression, err = compressionOf(output)
		}
		return err
	}
	cmd.RunE = a.with(knownStore, func(ctx context.Context, e *restore.Engine, args []string) error {
		sid, err := a.sid(e, fault.Failed, args[0], args[1])
		if err != nil {
			return err
		}
		if output == "-" {
			_, err := e.Export(ctx, args[0], sid, volume, compression, a.out)
			return err
		}
		return a.exportFile(ctx, e, args[0], sid, volume, compression, output)
	})
	return cmd
}

// compressionOf returns the compression that the file's name promises, "" if the
// name promises none, and an error if snap does not write what it promises. So a
// script that names a .tar.gz gets one, whatever the snapshot's compression is.
func compressionOf(name string) (string, error) {
	switch ext := filepath.Ext(name); strings.ToLower(ext) {
	case ".gz", ".tgz", ".gzip":
		return "gzip", nil
	case ".zst", ".tzst", ".zstd":
		return "zstd", nil
	case ".tar", ".xz", ".txz", ".bz2", ".tbz", ".tbz2", ".lz", ".lzma", ".tlz", ".lz4", ".lzo", ".br", ".z", ".taz", ".zip", ".7z", ".rar":
		return "", &usageError{
			fmt.Errorf("%s would not be a %s file: snap writes .tar.gz or .tar.zst", name, ext),
			"use one of these names, or --compression gzip or zstd to keep the name",
		}
	}
	return "", nil
}

// exportFile writes to a temporary name and renames at the end, so that a file of
// the final name is always complete.
func (a *app) exportFile(ctx context.Context, e *restore.Engine, name, sid, volume, compression, output string) error {
	path, err := filepath.Abs(output)
	if err != nil {
		return err
	}
	dir, err := disk.OpenRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	switch st, err := dir.Lstat(filepath.Base(path)); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return &usageError{
			fmt.Errorf("%s is not a regular file, and would be replaced by one", output),
			"use another name, or redirect -o - to it",
		}
	}
	tmp := filepath.Base(path) + "." + sid + ".tmp"
	f, err := dir.CreateFile(tmp)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	v, err := e.Export(ctx, name, sid, volume, compression, w)
	if err == nil {
		err = errors.Join(w.Flush(), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = dir.RenameSync(tmp, dir, filepath.Base(path))
	}
	if err != nil {
		_ = dir.Remove(tmp)
		return err
	}
	a.effect = adds
	a.result = map[string]any{"workload": name, "sid": sid, "volume": v.Name, "file": output, "compression": v.Compression, "files": v.Files, "bytes": v.Bytes}
	a.say("%s: volume %s of %s, %d files, %s, %s", output, v.Name, sid, v.Files, size(v.Bytes), v.Compression)
	return nil
}

type importJSON struct {
	snapshotJSON
	Seconds  float64            `json:"seconds"`
	Dropped  map[string]int64   `json:"dropped"`
	Warnings []string           `json:"warnings"`
	NotKept  []snapshot.NotKept `json:"not_kept"`
}

func (a *app) importCommand() *cobra.Command {
	var volume, note string
	cmd := &cobra.Command{
		Use:         "import <workload> --volume NAME FILE",
		Annotations: doing,
		Short:       "Make a snapshot of one volume from another tool's archive",
		Long: `Make a snapshot of one volume from a .tar.gz, .tar.zst or .tar that another tool
made, for example tar czf. snap tells the format by the first bytes. Names may
begin with "./". FILE may be a fifo, or - for stdin. The archive is not trusted: an
entry that could reach outside the volume is refused. What the archive has and a
snapshot does not hold is named.`,
		Args: cobra.ExactArgs(2),
	}
	cmd.Flags().StringVar(&volume, "volume", "", "the `name` of the volume that the archive is for")
	cmd.Flags().StringVar(&note, "note", "", "a `text` that list shows with the snapshot (default: the file's name)")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if volume == "" {
			return errors.New("no volume: use --volume NAME")
		}
		return nil
	}
	cmd.RunE = a.with(ownStore, func(ctx context.Context, e *restore.Engine, args []string) error {
		process.LimitImportMemory()
		in, err := process.OpenInput(ctx, a.in, args[1])
		var path *os.PathError
		switch {
		case errors.Is(err, unix.EISDIR):
			return &usageError{fmt.Errorf("%s is a directory, and not an archive", args[1]),
				"archive it first: tar -C DIRECTORY --format=posix --xattrs --xattrs-include='*' -cf ARCHIVE ."}
		case errors.As(err, &path):
			return &usageError{err: err}
		case err != nil:
			return err
		}
		defer in.Close()
		if note == "" {
			note = "imported from " + filepath.Base(args[1])
		}
		r, err := e.Import(ctx, args[0], volume, in, note)
		if err != nil {
			return err
		}
		shown := importJSON{showSnapshot(r.Manifest.Summary()), r.Seconds, r.Dropped, notNil(r.Warnings), notNil(r.NotKept)}
		a.result, a.effect = shown, adds
		a.say("%s", shown.SID)
		a.progress("imported volume %s of %s: %d files, %s in %.1f s", volume, args[0], shown.Files, size(shown.Bytes), r.Seconds)
		for _, what := range slices.Sorted(maps.Keys(r.Dropped)) {
			a.progress("warning: lost from the archive: %s (%d times), which a snapshot does not hold", what, r.Dropped[what])
		}
		for _, warning := range r.Warnings {
			a.progress("warning: %s", warning)
		}
		return nil
	})
	return cmd
}
