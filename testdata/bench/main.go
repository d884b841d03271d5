// Command bench measures snap beside what operators use today, from outside:
// the built program and each peer by its own command line. "make bench" runs it;
// docs/performance.md explains what it measures and shows what it found.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	// SIGHUP too: a session that drops must not leave a filesystem mounted.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := start(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// The parts by which "make bench BENCH=…" names what it wants.
var (
	setNames = []string{"small", "pg", "random"}
	setParts = []string{"capture", "verify", "again", "restore"} // of each data set
	parts    = slices.Concat(setNames, setParts, []string{"scale", "downtime"})
)

func start(ctx context.Context, args []string) error {
	b := &bench{appMiB: []int{64, 256, 1024}, imageMiB: 12 << 10, log: os.Stderr}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("only", "", "the `parts` to measure, separated by commas: "+strings.Join(parts, " ")+"; docs/ is then not written")
	dir := flags.String("dir", "/var/tmp", "a `directory` with room for the image of the filesystem that is measured on")
	file := flags.String("json", "", "a `file` for the numbers")
	flags.IntVar(&b.rounds, "rounds", 3, "the `number` of rounds")
	nights := flags.Bool("year", false, "measure a year of nights, and nothing else; -only chooses among "+strings.Join(append(manners, "small", "pg"), " "))
	flags.IntVar(&b.nights, "nights", 365, "the `number` of nights")
	flags.IntVar(&b.shrink, "shrink", 0, "divide the data sets by this `number`; by default 1, and 10 for a year of nights")
	if err := flags.Parse(args); err != nil {
		return err
	}
	b.only = strings.FieldsFunc(*only, func(r rune) bool { return r == ',' || r == ' ' })
	for _, part := range append(b.only, flags.Args()...) {
		if !slices.Contains(parts, part) && !slices.Contains(manners, part) {
			return fmt.Errorf("there is no part %q; the parts are %s", part, strings.Join(parts, ", "))
		}
	}
	measure, begin, end := b.throughputs, beginMark, endMark
	if *nights {
		measure, begin, end = b.years, beginYear, endYear
		b.shrink, b.imageMiB = cmp.Or(b.shrink, 10), 4<<10
	}
	b.shrink = cmp.Or(b.shrink, 1)
	if err := b.measure(ctx, *dir, measure); err != nil {
		return err
	}
	if *file != "" {
		numbers, err := json.MarshalIndent(b.report, "", "\t")
		if err = errors.Join(err, os.WriteFile(*file, numbers, 0o644)); err != nil {
			return err
		}
	}
	fmt.Print(b.report.tables())
	if len(b.only) > 0 {
		return nil
	}
	return b.report.writeDocs(filepath.Join(b.source, "docs"), begin, end)
}

// bench is a run.
type bench struct {
	shrink    int   // the number of files, and the like, is divided by this
	appMiB    []int // the sizes of volumes in the downtime scenes, ascending
	imageMiB  int   // of the filesystem that is measured on
	rounds    int
	nights    int      // of a year
	only      []string // the wanted parts; empty: all
	source    string   // the repository
	work, dir string   // what the image lies in, and where it is mounted
	engine    bool     // a Docker engine answers
	leftOut   map[string]bool
	peaks     map[string]float64 // the most memory of each contender, in MiB
	report    *report
	log       io.Writer
	began     time.Time
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.log, "bench %6.1f s: %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

// note says what was left out, here and on the page.
func (b *bench) note(format string, args ...any) {
	text := strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")
	if !slices.Contains(b.report.About, text) {
		b.report.About = append(b.report.About, text)
		b.say("%s", text)
	}
}

// wants says whether something is to be measured. Data sets and what is done
// with them choose separately: "small,restore" is the restore of the set small.
func (b *bench) wants(name string) bool {
	named := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return slices.Contains(b.only, p) })
	}
	return len(b.only) == 0 || named(name) ||
		slices.Contains(setNames, name) && !named(setNames...) && named(setParts...) ||
		slices.Contains(setParts, name) && !named(setParts...)
}

// measure makes a filesystem in parent and measures there.
func (b *bench) measure(ctx context.Context, parent string, what func(context.Context) error) (err error) {
	// The kernel charges a program with the memory of the process that started it.
	debug.SetGCPercent(20)
	b.report, b.peaks, b.leftOut, b.began = &report{}, map[string]float64{}, map[string]bool{}, time.Now()
	b.say("making the filesystem")
	if err := b.mount(ctx, parent); err != nil {
		return fmt.Errorf("making the filesystem, which takes root: %w", err)
	}
	defer func() { err = errors.Join(err, b.unmount()) }()
	if err := b.build(ctx); err != nil {
		return err
	}
	b.about(ctx)
	err = what(ctx)
	b.report.About = append(b.report.About, fmt.Sprintf("the run of %s: %.1f minutes, %d rounds", b.began.Format(time.DateOnly), time.Since(b.began).Minutes(), b.rounds))
	return err
}

// years are the years of nights that are wanted.
func (b *bench) years(ctx context.Context) error {
	for _, set := range []string{"small", "pg"} {
		for _, manner := range manners {
			others := slices.DeleteFunc(slices.Clone(manners), func(m string) bool { return m == manner })
			if !b.wants(set) || slices.Contains(b.only, others[0]) && !slices.Contains(b.only, manner) {
				continue
			}
			if err := b.year(ctx, set, manner); err != nil {
				return err
			}
		}
	}
	return nil
}

// throughputs is everything else that is wanted.
func (b *bench) throughputs(ctx context.Context) (err error) {
	for _, set := range b.datasets() {
		if b.wants(set.name) {
			if err := b.throughput(ctx, set); err != nil {
				return err
			}
		}
	}
	for _, c := range contenders {
		if peak := b.peaks[c.who]; peak > 0 {
			b.report.add(rowMemory, "MiB", c.who, peak)
		}
	}
	if b.wants("scale") {
		err = errors.Join(b.scale(ctx, whoFewFiles, 10_000/b.shrink), b.scale(ctx, whoSnap, 1_000_000/b.shrink))
	}
	if err == nil && b.wants("downtime") {
		err = b.downtime(ctx)
	}
	return err
}

// build builds snap as it is installed, and the app for its container. Scripts
// find them by the environment.
func (b *bench) build(ctx context.Context) (err error) {
	if b.source, err = output(command(ctx, "go", "list", "-m", "-f", "{{.Dir}}")); err != nil {
		return fmt.Errorf("%w: run it in the repository", err)
	}
	for name, from := range map[string]string{"snap": "./cmd/snap", "app": "./testdata/app"} {
		program := filepath.Join(b.work, name)
		c := command(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", program, from)
		c.Dir, c.Env = b.source, append(os.Environ(), "CGO_ENABLED=0")
		if _, err := run(c); err != nil {
			return err
		}
		os.Setenv(name, program)
	}
	return nil
}

// about describes what the numbers were measured on, and looks for an engine.
func (b *bench) about(ctx context.Context) {
	text, _ := output(job{}.script(ctx, `
		echo "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, $(awk '/^MemTotal/ {printf "%.0f", $2 / 1048576}' /proc/meminfo) GiB of memory, Linux $(uname -r)"
		for program in 'tar --version' 'pigz --version' 'zstd --version' 'restic version' 'borg --version' 'kopia --version'; do
			! command -v "${program%% *}" >/dev/null || $program 2>&1 | head -n 1
		done`))
	engine, err := output(command(ctx, "docker", "version", "--format", "docker {{.Server.Version}}"))
	b.engine = err == nil
	machine, versions, _ := strings.Cut(text, "\n")
	b.report.About = []string{machine, strings.ReplaceAll(versions+"\n"+engine, "\n", ", "),
		fmt.Sprintf("ext4 with a journal, in a loop-mounted image of %d MiB", b.imageMiB)}
}
