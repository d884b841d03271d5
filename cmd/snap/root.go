package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/cmd/snap/process"
	"github.com/tiny-forge/snap/pkg/docker"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/near"
	"github.com/tiny-forge/snap/pkg/restore"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/state"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// app is one run of snap.
type app struct {
	*ui
	config     string
	waitDocker time.Duration
	entered    bool // a command has begun, so an error is not one of usage
	pacer      process.Pacer
	told       bool // an operation has ended, so the metrics have changed

	opened func(*restore.Engine) // lets a test change the engine; nil outside tests
}

// run runs the command and returns its exit code.
func run(args []string, in *os.File, out, errOut io.Writer) int {
	return (&app{ui: newUI(in, out, errOut)}).run(args)
}

func (a *app) run(args []string) (code int) {
	// The watchdog recovers the operation when the process has ended.
	defer func() {
		if v := recover(); v != nil {
			code = a.crashed(v)
		}
	}()
	ctx, stop := signals()
	defer stop()
	root := a.root()
	root.SetArgs(args)
	a.guessJSON(args) // the command line may be what fails
	cmd, err := root.ExecuteContextC(ctx)
	a.command = a.called + strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name())
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
		sig := (<-caught).(unix.Signal)
		cancel(&fault.Signal{Name: unix.SignalName(sig), Code: 128 + int(sig)})
	}()
	return ctx, func() { signal.Stop(caught); cancel(nil) }
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "snap",
		Short: "Capture and restore the data of Docker workloads",
		Long: `snap captures the data directories and files of Docker workloads on this host, and
restores them under the running app: all volumes of a workload or none, with the
app down for seconds. The old data is kept as a snapshot.

Exit codes: 0 done, 1 failed (data and containers are as before), 2 snap itself
crashed (run snap recover), 3 refused, 4 busy, 5 rolled back, 6 frozen (an
operator must look), 7 done but something is pending, 8 damage was found,
64 usage or config,
130, 131 and 143 interrupted (all as before).`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          knownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.CompletionOptions.HiddenDefaultCmd = true
	flags := root.PersistentFlags()
	flags.StringVar(&a.config, "config", cmp.Or(os.Getenv("SNAP_CONFIG"), workload.DefaultPath), "the config `file` (SNAP_CONFIG)")
	flags.StringVar(&a.choice.Context, "context", "", "the `name` of the docker command's context whose engine to use (default: the one that the docker command uses)")
	flags.StringVarP(&a.choice.Host, "host", "H", "", "the `socket` of the engine, as unix:///var/run/docker.sock (DOCKER_HOST)")
	flags.BoolVarP(&a.quiet, "quiet", "q", false, "print only warnings and errors, what list, show, ls, cat, diff, status and --plan show, and the id of a capture")
	flags.BoolVar(&a.json, "json", a.json, "print one JSON object on stdout, on failure too")
	root.AddCommand(
		a.captureCommand(), a.listCommand(), a.showCommand(), a.lsCommand(), a.catCommand(), a.diffCommand(), a.restoreCommand(), a.recoverCommand(), a.statusCommand(),
		a.deployCommand(), a.lockCommand(), a.exportCommand(), a.importCommand(), a.verifyCommand(),
		a.pruneCommand(), a.deleteCommand(), a.renameCommand(), a.undoCommand(), a.watchdogCommand(), a.notifyCommand(),
	)
	return root
}

// knownCommand refuses a word that is not a command.
func knownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, cmd := range root.Commands() {
		if !cmd.Hidden {
			names = append(names, cmd.Name())
		}
	}
	return &usageError{fmt.Errorf("unknown command %q for %q", args[0], root.CommandPath()), near.Question(args[0], names)}
}

// duration is a flag for how long to wait. It is 0 if it is not given.
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

// need says what a command needs of the store.
type need int

const (
	anyStore   need = iota // it recovers, as far as it can, without one too
	knownStore             // it makes none, and none is there before the first capture
	ownStore               // it makes one where the host has never seen any
)

// does marks the commands that do something. With --quiet they print no result.
const does = "does"

var doing = map[string]string{does: "yes"}

// with returns a command's function, which opens the engine and then calls do.
// Errors from here on are not errors of usage.
func (a *app) with(store need, do func(ctx context.Context, e *restore.Engine, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.entered = true
		plan := cmd.Flags().Lookup("plan")
		a.silent = a.quiet && cmd.Annotations[does] != "" && (plan == nil || !plan.Changed)
		if cmd.Flags().Changed("config") {
			a.configGiven = a.config
		}
		e, done, err := a.engine(store)
		if err != nil {
			return err
		}
		defer done()
		err = do(restore.Observe(cmd.Context(), a), e, args)
		if a.told || a.effect != noEffect {
			a.measure(e)
		}
		return err
	}
}

// engine opens config, state and, where there is one, the store. The returned function
// closes them.
func (a *app) engine(store need) (*restore.Engine, func(), error) {
	cfg, err := workload.Load(a.config)
	if err != nil {
		return nil, nil, err
	}
	e := &restore.Engine{Config: cfg, Version: version(), Watchdog: a.watchdog, Runtime: a.runtime}
	if a.opened != nil {
		a.opened(e)
	}
	host, err := state.Open(cfg.State)
	if err != nil {
		return nil, nil, err
	}
	done := func() {
		if err := errors.Join(e.Store.Close(), host.Close()); err != nil {
			a.progress("closing the store: %v", err)
		}
	}
	e.Journal, e.Scrubs, e.Notes = host.Journal, host, host
	if e.Store, err = host.Store(cfg.Store, store == ownStore); err != nil && !tolerates(store, err) {
		done()
		return nil, nil, err
	}
	if !errors.Is(err, fs.ErrNotExist) { // nothing was captured yet
		e.NoStore = err
	}
	return e, done, nil
}

// tolerates reports whether a command can do without a store, for the reason err.
func tolerates(need need, err error) bool {
	var missing *store.Missing
	return need == anyStore && errors.As(err, &missing) || need != ownStore && errors.Is(err, fs.ErrNotExist)
}

// runtime opens the runtime of a workload, and waits for its engine where the
// command asks for that.
func (a *app) runtime(ctx context.Context, w *workload.Workload) (runtime.Runtime, error) {
	notice := func(line string) { a.progress("notice: %s", line) }
	rt, err := docker.Open(w, docker.Options{Notice: notice, Engine: a.choice})
	var elsewhere *docker.NotLocal
	if errors.As(err, &elsewhere) {
		return nil, &workload.Error{Where: "of the engine", Err: err, Hint: elsewhere.Hint()}
	}
	if err != nil {
		return nil, &workload.Error{Where: "of the engine", Err: err, Hint: "`docker context ls` shows the contexts; --host and DOCKER_HOST name a socket"}
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
