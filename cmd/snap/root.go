package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/docker"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/restore"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// app is one run of the command.
type app struct {
	*ui
	config     string
	waitDocker time.Duration
	entered    bool // a verb has begun: what fails now is not the command line

	opened func(*restore.Engine) // lets a test change the engine; nil outside tests
}

// run runs the command and returns its exit code.
func run(args []string, in *os.File, out, errOut io.Writer) int {
	return (&app{ui: newUI(in, out, errOut)}).run(args)
}

func (a *app) run(args []string) (code int) {
	// A panic ends the process with nothing but a message: the watchdog recovers the
	// operation when the process has ended.
	defer func() {
		if v := recover(); v != nil {
			code = a.crashed(v)
		}
	}()
	ctx, stop := signals()
	defer stop()
	root := a.root()
	root.SetArgs(args)
	a.guessJSON(args) // the command line itself may be what fails
	cmd, err := root.ExecuteContextC(ctx)
	a.command = cmd.CommandPath()
	var usage *usageError
	switch {
	case err == nil || a.entered || errors.As(err, &usage):
	case errors.Is(err, a.out.lost): // of --version: end says so
		err = nil
	default:
		err = &usageError{err: err}
	}
	return a.end(err)
}

// signals returns a context that SIGINT, SIGQUIT and SIGTERM end. Without a
// handler the Go runtime would end a process at SIGQUIT with a stack dump, as if
// snap had crashed. SIGHUP and SIGPIPE do nothing: a restore must not end because
// a terminal or a pipe goes away. SIGHUP is ignored, so that the commands that
// snap runs ignore it as well; SIGPIPE is caught, so that they do not.
func signals() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signal.Ignore(unix.SIGHUP)
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM)
	go func() {
		switch <-caught {
		case unix.SIGINT:
			cancel(&restore.Signal{Name: "SIGINT", Code: 130})
		case unix.SIGQUIT:
			cancel(&restore.Signal{Name: "SIGQUIT", Code: 131})
		case unix.SIGTERM:
			cancel(&restore.Signal{Name: "SIGTERM", Code: 143})
		}
	}()
	return ctx, func() { signal.Stop(caught); cancel(nil) }
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "snap",
		Short: "Capture the data of Docker workloads, and put it back",
		Long: `snap captures the data directories of Docker workloads on this host, and puts
them back under the running app: all of a workload's volumes or none, with the
app down for seconds, and with what was there before kept as a snapshot.

Exit codes: 0 done, 1 failed (data and containers are as before), 2 snap itself
crashed (run snap recover), 3 refused, 4 busy, 5 rolled back, 6 frozen (an
operator must look), 7 done but something is pending, 64 usage or config,
130, 131 and 143 interrupted (all as before).`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.CompletionOptions.HiddenDefaultCmd = true
	flags := root.PersistentFlags()
	flags.StringVar(&a.config, "config", configPath(), "the config `file` (SNAP_CONFIG)")
	flags.BoolVar(&a.json, "json", a.json, "print one JSON object on stdout, on failure too")
	root.AddCommand(
		a.captureCommand(), a.listCommand(), a.showCommand(), a.restoreCommand(), a.recoverCommand(), a.statusCommand(),
		a.deployCommand(), a.lockCommand(), a.exportCommand(), a.importCommand(), a.watchdogCommand(),
	)
	return root
}

// duration is a flag that says how long to wait; none, which is 0, where it is
// not given.
type duration time.Duration

func durationVar(flags *pflag.FlagSet, d *time.Duration, name, usage string) {
	flags.Var((*duration)(d), name, usage)
}

// Set implements [pflag.Value].
func (d *duration) Set(s string) error {
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return errors.New("not a duration such as 30s or 1m30s")
	}
	*d = duration(v)
	return nil
}

// Type implements [pflag.Value].
func (d *duration) Type() string { return "duration" }

func (d *duration) String() string {
	if *d == 0 {
		return "" // --help shows no default
	}
	return time.Duration(*d).String()
}

// version returns the module's version, as the build recorded it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// verb wraps what a command does with the engine opened for it. What fails from
// here on is no longer the command line's fault.
func (a *app) verb(do func(ctx context.Context, e *restore.Engine, args []string) error) func(*cobra.Command, []string) error {
	return a.with(store.Open, do)
}

// look is verb for commands that make no store where there is none.
func (a *app) look(do func(ctx context.Context, e *restore.Engine, args []string) error) func(*cobra.Command, []string) error {
	return a.with(store.OpenExisting, do)
}

func (a *app) with(open func(string) (*store.Store, error), do func(ctx context.Context, e *restore.Engine, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.entered = true
		e, done, err := a.engine(open)
		if err != nil {
			return err
		}
		defer done()
		return do(cmd.Context(), e, args)
	}
}

// engine opens config, store and journal; where open finds no store and makes
// none, the engine is without. The returned function closes them.
func (a *app) engine(open func(string) (*store.Store, error)) (*restore.Engine, func(), error) {
	cfg, err := workload.Load(a.config)
	if err != nil {
		return nil, nil, err
	}
	e := &restore.Engine{
		Config: cfg, Version: version(), Say: a.progress, Watchdog: a.watchdog, Runtime: a.runtime,
	}
	if a.opened != nil {
		a.opened(e)
	}
	st, err := open(cfg.Store)
	if errors.Is(err, fs.ErrNotExist) {
		return e, func() {}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	j, err := journal.Open(st.Root())
	if err != nil {
		return nil, nil, errors.Join(err, st.Close())
	}
	e.Store, e.Journal = st, j
	return e, func() {
		if err := errors.Join(j.Close(), st.Close()); err != nil {
			a.progress("closing the store: %v", err)
		}
	}, nil
}

// runtime opens the runtime of a workload, and waits for its engine where the
// command asks for that.
func (a *app) runtime(ctx context.Context, w *workload.Workload) (runtime.Runtime, error) {
	notice := func(line string) { a.progress("notice: %s", line) }
	rt, err := docker.Open(w, docker.Options{Notice: notice})
	if errors.Is(err, docker.ErrNotLocal) {
		return nil, &workload.Error{Where: "of the environment", Err: err, Hint: "unset DOCKER_HOST, or let it name a unix socket of this host"}
	}
	if err != nil {
		return nil, fmt.Errorf("workload %s: %w", w.Name, err)
	}
	if w.Kind() != workload.Data && a.waitDocker > 0 {
		if err := waitFor(ctx, rt, a.waitDocker); err != nil {
			return nil, errors.Join(err, rt.Close())
		}
	}
	return rt, nil
}

// waitFor waits until the engine answers, at most for d.
func waitFor(ctx context.Context, rt *docker.Runtime, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		err := rt.Ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (waited %s)", err, d)
		case <-tick.C:
		}
	}
}
