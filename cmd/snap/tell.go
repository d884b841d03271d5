package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/metrics"
	"github.com/tiny-forge/snap/pkg/notify"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/restore"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// What is told of an operation is told when it has ended. Whatever goes wrong here is a
// warning, and takes seconds at most: the outcome stands.

// pingPatience is how long the end of a capture waits for a service that is pinged.
const pingPatience = 5 * time.Second

// event is something that notifications tell.
type event struct {
	workload string
	kinds    []string // it is told where the config asks for one of them
	notify.Message
}

// outcome returns the event of an operation that has ended, as the history has it.
// success says in one sentence what it did.
func (a *app) outcome(e *restore.Engine, verb, name, success string, err error) event {
	ev := event{workload: name, kinds: []string{workload.OnSuccess}}
	ev.Title, ev.Text = fmt.Sprintf("snap on %s: %s of %s", hostname(), verb, name), success
	if err != nil {
		r := a.describe(err)
		ev.kinds = []string{workload.OnFailure}
		ev.Title += fmt.Sprintf(" ended with exit code %d (%s)", r.exit, r.body.Code)
		ev.Text = r.body.Message
		if r.body.Hint != "" {
			ev.Text += "\nwhat to do: " + r.body.Hint
		}
		return ev
	}
	runs, err := e.Journal.Runs(name)
	if err == nil && journal.Recovered(runs, verb) {
		ev.kinds = append(ev.kinds, workload.OnRecovery)
		ev.Title += " works again"
	} else {
		ev.Title += " succeeded"
	}
	return ev
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "this host"
	}
	return name
}

// tell sends an event to those whom the config names.
func (a *app) tell(ctx context.Context, e *restore.Engine, ev event) {
	a.told = true
	if _, err := e.Config.Workload(ev.workload); err != nil {
		return
	}
	n := e.Config.NotifyOf(ev.workload)
	if !slices.ContainsFunc(ev.kinds, func(kind string) bool { return slices.Contains(n.On, kind) }) {
		return
	}
	var urls []string
	for _, url := range n.URLs {
		urls = append(urls, string(url))
	}
	if n.URLsFile != "" {
		more, err := notify.Read(n.URLsFile)
		if err != nil {
			a.progress("warning: nobody is notified through urls_file: %v", err)
		}
		urls = append(urls, more...)
	}
	if len(urls) == 0 {
		return
	}
	const most = 1500
	ev.Text = ev.Title + "\n" + ev.Text // not every service shows a title
	if text := []rune(runtime.Printable(ev.Text)); len(text) > most {
		ev.Text = string(text[:most]) + "…"
	} else {
		ev.Text = string(text)
	}
	for i, reason := range a.send(ctx, urls, ev.Message) {
		if reason != "" {
			a.progress("warning: notification %d of %d about %s could not be sent: %s", i+1, len(urls), ev.workload, reason)
		}
	}
}

// letter is what the process that sends is told on its standard input: in no list of
// processes.
type letter struct {
	URLs []string
	notify.Message
}

// send sends a message in a process of its own: see package notify.
func (a *app) send(ctx context.Context, urls []string, m notify.Message) []string {
	reasons := slices.Repeat([]string{"the process that sends it ended early"}, len(urls))
	text, err := json.Marshal(letter{urls, m})
	if err != nil {
		return reasons
	}
	// A signal ended the operation; that is to be told too.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), notify.Patience+pingPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "notify")
	cmd.Args[0], cmd.Dir = os.Args[0], "/"
	var out runtime.End
	cmd.Stdin, cmd.Stdout = bytes.NewReader(text), &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // no interrupt of the terminal reaches it
	if cmd.Run() != nil {
		return reasons
	}
	last := strings.TrimSpace(out.String())
	var said []string
	if json.Unmarshal([]byte(last[strings.LastIndexByte(last, '\n')+1:]), &said) != nil || len(said) != len(urls) {
		return reasons
	}
	return said
}

func (a *app) notifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "notify",
		Short:  "Send the notification that stdin holds",
		Hidden: true, // only snap starts it
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.entered = true
			beFirst("/proc/self/oom_score_adj")
			var l letter
			if err := json.NewDecoder(a.in).Decode(&l); err != nil {
				return errors.New("stdin holds no notification")
			}
			return json.NewEncoder(a.out).Encode(notify.Send(cmd.Context(), l.URLs, l.Message))
		},
	}
}

// ping tells the service at the address in the config that something starts. The returned
// function tells how it ended.
func (a *app) ping(ctx context.Context, p workload.Ping, what string) func(error) {
	address := string(p.URL)
	if p.File != "" {
		lines, err := notify.Read(p.File)
		if err == nil && len(lines) > 1 {
			err = fmt.Errorf("%s holds more than one URL", p.File)
		}
		if err != nil {
			a.progress("warning: %s is not pinged: %v", what, err)
			return func(error) {}
		}
		address = lines[0]
	}
	if address == "" {
		return func(error) {}
	}
	ctx = context.WithoutCancel(ctx) // a signal is a failure that is told
	starting, stop := context.WithCancel(ctx)
	started, start := make(chan error, 1), time.Now()
	go func() { started <- notify.Ping(starting, address, notify.Started, what) }()
	return func(err error) {
		defer stop()
		ctx, cancel := context.WithTimeout(ctx, pingPatience)
		defer cancel()
		state, text := notify.Passed, "ok"
		if err != nil {
			r := a.describe(err)
			state, text = notify.Failed, fmt.Sprintf("exit code %d (%s)", r.exit, r.body.Code)
		}
		select { // a service should hear of the start first
		case <-started:
		case <-ctx.Done():
		}
		if err := notify.Ping(ctx, address, state, fmt.Sprintf("%s: %s after %.1f s", what, text, time.Since(start).Seconds())); err != nil {
			a.progress("warning: the service that waits for the ping of %s was not reached: %s", what, notify.Reason(err))
		}
	}
}

// tellRecovery tells of a recovery, but not twice in a row of the same failure: cron may
// run one every few minutes.
func (a *app) tellRecovery(ctx context.Context, e *restore.Engine, r restore.Recovery) {
	if !r.News {
		return
	}
	ev := a.outcome(e, "recover", r.Workload, "what was interrupted has been recovered: "+r.Action, r.Err)
	if r.Err == nil {
		ev.kinds = []string{workload.OnSuccess, workload.OnRecovery}
	}
	a.tell(ctx, e, ev)
}

// tellKilled tells that snap was killed, and what its watchdog has done.
func (a *app) tellKilled(ctx context.Context, e *restore.Engine, r restore.Recovery) {
	ev := event{workload: r.Workload, kinds: []string{workload.OnFailure}}
	ev.Title = fmt.Sprintf("snap on %s was killed while it worked on %s", hostname(), r.Workload)
	ev.Text = "its watchdog has recovered: " + cmp.Or(r.Action, "nothing")
	if r.Err != nil {
		ev.Text = "its watchdog could not recover: " + fault.Line(r.Err) + "\nwhat to do: " + a.spell(remedy.Recover(r.Workload))
	}
	a.tell(ctx, e, ev)
}

// measure writes the metrics, where the config asks for them.
func (a *app) measure(e *restore.Engine) {
	if e.Config.Textfile == "" {
		return
	}
	h := &metrics.Host{Workloads: e.Config.Names(), Journal: e.Journal, Store: e.Store, ExitCode: exitOf}
	if err := h.Write(e.Config.Textfile); err != nil {
		a.progress("warning: the metrics in %s could not be brought up to date: %v", e.Config.Textfile, err)
	}
}

// exitOf is the exit code of a run of which only the history is left.
func exitOf(r journal.Run) int {
	if r.Left == fault.Interrupted.String() {
		return 130 // which of the signals it was, nobody knows any more
	}
	for kind, code := range exitCodes {
		if kind.String() == r.Left {
			return code
		}
	}
	return exitCodes[fault.Failed]
}
