package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tiny-forge/snap/pkg/catalog"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/restore"
	"github.com/tiny-forge/snap/pkg/snapshot"
)

// extractJSON is the result of restore --to.
type extractJSON struct {
	Workload string                    `json:"workload"`
	SID      string                    `json:"sid"`
	To       string                    `json:"to"`
	Seconds  float64                   `json:"seconds"`
	Files    int64                     `json:"files"`
	Bytes    int64                     `json:"bytes"`
	Volumes  []catalog.ExtractedVolume `json:"volumes"`
	Space    []disk.Room               `json:"space"`
	Warnings []string                  `json:"warnings"`
	NotKept  []snapshot.NotKept        `json:"not_kept"`
}

// restoreArgs takes parts of a snapshot only for a directory.
func restoreArgs(cmd *cobra.Command, args []string, to string) error {
	switch {
	case to != "":
		return cobra.MinimumNArgs(2)(cmd, args)
	case len(args) > 2:
		return &usageError{fmt.Errorf("%q: a part of a snapshot goes into a directory", args[2]), "add --to DIR, or choose whole volumes with --volume"}
	}
	return cobra.ExactArgs(2)(cmd, args)
}

// errNoDirectory is that of an empty --to.
var errNoDirectory = &usageError{errors.New("--to names no directory"), "name one that does not exist, or is empty"}

// alone refuses flags that say how an app is stopped and comes up: --to touches none.
func alone(flags *pflag.FlagSet, to string) error {
	for _, name := range []string{"confirm", "guard", "image", "on-unhealthy", "take-over", "trust-index", "health-timeout", "stop-timeout", "plan-hash", "map"} {
		if flags.Changed(name) {
			return &usageError{
				fmt.Errorf("--%s makes no sense with --to, which replaces nothing and stops nothing", name),
				"leave --" + name + " out; or leave --to out, to put the snapshot back under the app",
			}
		}
	}
	if to == "" {
		return errNoDirectory
	}
	return nil
}

func (a *app) extract(ctx context.Context, e *restore.Engine, req restore.ExtractRequest) error {
	start := time.Now()
	var err error
	if req.Dir, err = filepath.Abs(req.Dir); err != nil {
		return err
	}
	x, err := e.Extract(ctx, req)
	if err != nil {
		return err
	}
	shown := extractJSON{
		Workload: req.Workload, SID: req.SID, To: x.Dir, Volumes: notNil(x.Volumes), Space: notNil(x.Space),
		Warnings: notNil(x.Warnings), NotKept: notNil(x.NotKept), Seconds: time.Since(start).Seconds(),
	}
	for _, v := range x.Volumes {
		shown.Files += v.Files
		shown.Bytes += v.Bytes
	}
	a.result = shown
	rows := [][]string{{"VOLUME", "DIRECTORY", "FILES", "SIZE"}}
	for _, v := range x.Volumes {
		rows = append(rows, []string{v.Name, v.Path, fmt.Sprint(v.Files), size(v.Bytes)})
	}
	a.table(rows)
	if req.Plan {
		for _, s := range x.Space {
			a.say("needs %s on the filesystem of %s, which has %s free", size(int64(s.NeedBytes)), s.Path, size(int64(s.FreeBytes)))
		}
		return nil
	}
	a.effect = adds
	a.say("%s: snapshot %s of %s, %d files, %s", x.Dir, req.SID, req.Workload, shown.Files, size(shown.Bytes))
	a.progress("in %.1f s; live data and containers are as they were", shown.Seconds)
	return nil
}
