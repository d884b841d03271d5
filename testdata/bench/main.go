package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

func main() {
	// SIGHUP too: a session that drops must not leave a filesystem mounted.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := start(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	only, dir, docs, json, from string
	rounds                      int
	tiny                        bool
}

func start(ctx context.Context, args []string, out, log io.Writer) error {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(log)
	flags.StringVar(&o.only, "only", "", "the `parts` to measure, with commas between: "+strings.Join(append(setNames, scenarioNames...), " ")+"; docs are then not written")
	flags.StringVar(&o.dir, "dir", "/var/tmp", "a `directory` with room for the image of the filesystem that is measured on")
	flags.StringVar(&o.docs, "docs", "docs", "the `directory` of performance.md and downtime.svg")
	flags.StringVar(&o.json, "json", "", "a `file` for the numbers")
	flags.StringVar(&o.from, "from", "", "measure nothing; write the docs from a `file` of -json")
	flags.IntVar(&o.rounds, "rounds", 0, "the `number` of rounds, however long they take")
	flags.BoolVar(&o.tiny, "tiny", false, "tiny data sets and one round, to see that the benchmark works; not a measurement")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q: there are only flags; see -help", flags.Arg(0))
	}
	if o.from != "" {
		r, err := readReport(o.from)
		if err != nil {
			return err
		}
		return writeDocs(o.docs, r)
	}
	p := fullPlan()
	if o.tiny {
		p = tinyPlan()
	}
	if o.rounds > 0 {
		p.Least, p.Most, p.Due = o.rounds, o.rounds, nil
	}
	if err := p.choose(o.only); err != nil {
		return err
	}
	r, err := measureAll(ctx, p, o.dir, log)
	if err != nil {
		return err
	}
	if o.json != "" {
		if err := r.write(o.json); err != nil {
			return err
		}
	}
	fmt.Fprint(out, tables(r))
	if !p.complete() {
		return nil
	}
	return writeDocs(o.docs, r)
}

// bench is a run.
type bench struct {
	plan   plan
	place  *place
	report *report
	source string // of the repository
	snap   string // the programs
	app    string
	engine bool // a Docker engine answers
	zstd   bool // what this snap knows
	guard  bool
	log    io.Writer
	began  time.Time
	part   string // that is being measured
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.log, "bench %6.1f s: %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

// late says whether two rounds have to do: a whole run is to take less than a
// quarter of an hour, of which each part has its share.
func (b *bench) late() bool {
	due, has := b.plan.Due[b.part]
	return has && time.Since(b.began) > due
}

// measureAll makes a filesystem in dir and measures everything that the plan wants.
func measureAll(ctx context.Context, p plan, dir string, log io.Writer) (_ *report, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("it takes root: it mounts a filesystem and owns files as others")
	}
	// The kernel charges a program with the memory of whoever started it.
	debug.SetGCPercent(20)
	b := &bench{plan: p, report: &report{Tiny: p.Tiny, Complete: p.complete()}, log: log, began: time.Now()}
	if p.Tiny {
		b.say("tiny data sets, one round: this is NOT a measurement")
	}
	b.say("making the filesystem")
	if err := b.touch(ctx, p.ImageMiB/2); err != nil {
		return nil, err
	}
	if b.place, err = newPlace(ctx, dir, p.ImageMiB); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.place.close()) }()
	if err := b.build(ctx); err != nil {
		return nil, err
	}
	_, noEngine := output(ctx, cmd("docker", "version"))
	b.engine = noEngine == nil
	b.zstd, b.guard = b.knowsZstd(ctx), b.knowsGuard(ctx)
	b.report.Machine, b.report.Versions = b.machine(), b.versions(ctx)

	for _, set := range b.datasets() {
		if b.part = set.name; p.wants(set.name) {
			if err := b.throughput(ctx, set); err != nil {
				return nil, err
			}
		}
	}
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{{"sparse", b.sparse}, {"downtime", b.downtime}, {"scale", b.scale}} {
		if b.part = part.name; p.wants(part.name) {
			if err := part.run(ctx); err != nil {
				return nil, err
			}
		}
	}
	b.report.FloorMiB = max(b.report.FloorMiB, ownPeak())
	b.report.Seconds = time.Since(b.began).Seconds()
	b.say("done")
	return b.report, nil
}

// build builds snap as it is installed, and the app for its container.
func (b *bench) build(ctx context.Context) error {
	module, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("go list: %w: run it in the repository", err)
	}
	b.source = strings.TrimSpace(string(module))
	b.snap, b.app = filepath.Join(b.place.work, "snap"), filepath.Join(b.place.work, "app")
	for program, source := range map[string]string{b.snap: "./cmd/snap", b.app: "./testdata/app"} {
		build := cmd("go", "build", "-trimpath", "-buildvcs=false", "-o", program, source).in(b.source).with("CGO_ENABLED=0")
		if _, err := run(ctx, build); err != nil {
			return err
		}
	}
	return nil
}
