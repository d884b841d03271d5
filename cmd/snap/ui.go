package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/crew"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/docker/endpoint"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/restore"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// The rules of the user interface. All of them are kept here:
//
//   - stdout carries the result, stderr everything else.
//   - With --json stdout carries exactly one JSON object, also on failure and
//     after a crash that snap can still report.
//   - A result that cannot be written is an error, but undoes nothing: results
//     are written when the work is done. The exit code still tells the truth
//     about data and containers.
//   - An error is printed once, here: "error: …", and the remedy as "hint: …".
//   - No byte that a terminal could take as a command is ever printed: names
//     come from archives and containers. What ls -0 and cat print is the
//     operator's own wish; ls -0 does not print it to a terminal.
//   - A list that may have millions of items is printed as it comes (ui.item),
//     with --json too, and is one object all the same.
//   - Only this file knows the exit codes.
type ui struct {
	in          *os.File
	out         *stdout
	err         io.Writer
	json        bool
	command     string // as the user types it: "snap capture"
	called      string // the name that snap was called by
	asked       asked
	configGiven string          // the value of --config, "" where it was not given
	choice      endpoint.Choice // of the engine, on the command line
	result      any             // the fields that --json prints beside ok
	printed     bool            // the JSON object
	quiet       bool            // --quiet
	silent      bool            // and the command prints no result
	effect      effect          // of the command
	list        string          // the key of a list whose items are printed as they come
	items       *bufio.Writer   // they go through it; nil before the first
}

// effect is what a command that succeeded has changed.
type effect int

const (
	noEffect effect = iota
	adds            // a snapshot or a file: data and containers are as before
	replaces        // data or containers
)

func newUI(in *os.File, out, errOut io.Writer) *ui {
	return &ui{in: in, out: &stdout{w: out}, err: errOut, called: os.Args[0]}
}

// stdout writes nothing after its first error, so that a result never has holes.
type stdout struct {
	w    io.Writer
	lost error
}

func (s *stdout) Write(p []byte) (n int, err error) {
	if s.lost != nil {
		return 0, s.lost
	}
	n, s.lost = s.w.Write(p)
	return n, s.lost
}

// guessJSON looks for --json before cobra parses the flags.
func (u *ui) guessJSON(args []string) {
	for _, arg := range args {
		if arg == "--" {
			return
		}
		if arg == "--json" || arg == "--json=true" {
			u.json = true
		}
	}
}

// usageError is an error of the command line.
type usageError struct {
	err  error
	hint string // default: the command's --help
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// exitStatus is the exit code of a command that `snap lock` ran.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("the command ended with exit code %d", int(e)) }

// report is an error as snap prints it.
type report struct {
	exit int
	body struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Hint    string `json:"hint"`
	}
}

// crashExit is also the exit code of the Go runtime when a panic is not recovered.
const crashExit = 2

// usageExit is EX_USAGE of sysexits.h(3head). Many tools use 2, but that is what
// the Go runtime uses for a crash.
const usageExit = 64

// exitCodes maps what an error leaves on disk to the exit code that says so.
var exitCodes = map[fault.Kind]int{
	fault.Failed: 1, fault.Usage: usageExit, fault.Refused: 3, fault.Busy: 4,
	fault.RolledBack: 5, fault.Frozen: 6, fault.Pending: 7, fault.Damaged: 8,
}

func (u *ui) describe(err error) report {
	r := report{exit: 1}
	r.body.Code, r.body.Message = "failed", err.Error()
	var engine *fault.Error
	var config *workload.Error
	var unusable *disk.Unusable
	var missing *store.Missing
	var usage *usageError
	var sig *fault.Signal
	switch {
	case errors.As(err, &engine):
		r.body.Code, r.body.Hint = engine.Code, engine.Remedy.Text(u.spell)
		r.exit = exitCodes[engine.Kind]
		if engine.Kind == fault.Interrupted && errors.As(err, &sig) {
			r.exit = sig.Code
		}
	case errors.As(err, &config):
		r.exit, r.body.Code, r.body.Hint = usageExit, "config", config.Hint
	case errors.As(err, &unusable):
		r.exit, r.body.Code, r.body.Hint = usageExit, unusable.What, unusable.Hint
	case errors.As(err, &missing):
		r.exit, r.body.Code, r.body.Hint = exitCodes[fault.Refused], "store_missing", missing.Hint()
	case errors.As(err, &usage):
		r.exit, r.body.Code, r.body.Hint = usageExit, "usage", cmp.Or(usage.hint, u.command+" --help")
	}
	return r
}

// end prints the result or the error and returns the exit code.
func (u *ui) end(err error) int {
	var status exitStatus
	if errors.As(err, &status) {
		return int(status)
	}
	var r report
	if err != nil {
		r = u.describe(err)
	}
	if u.json && !(err == nil && u.result == nil) { // --help and --version have no result
		u.object(err, r)
	}
	u.flush()
	if err != nil && (!u.json || u.out.lost != nil) {
		u.complain(fault.Line(err), r.body.Hint)
	}
	switch lost := u.out.lost; {
	case lost == nil || errors.Is(err, lost):
	case err != nil:
		u.progress("warning: the result could not be written to stdout: %v", lost)
	case u.effect == noEffect:
		if !errors.Is(lost, unix.EPIPE) { // `snap list | head` has read enough
			u.complain(fmt.Sprintf("the result could not be written to stdout: %v", lost), "")
		}
		return exitCodes[fault.Failed]
	default:
		u.complain(fmt.Sprintf("the command succeeded, but its result could not be written to stdout: %v", lost),
			fmt.Sprintf("there is no need to run it again: `%s` and `%s` show what there is now", u.spell(remedy.Operation{Verb: remedy.DoList}), u.spell(remedy.Operation{Verb: remedy.DoStatus})))
		if u.effect == replaces {
			return exitCodes[fault.Pending]
		}
		return exitCodes[fault.Failed]
	}
	return r.exit
}

// crashed reports a panic and returns the exit code.
func (u *ui) crashed(v any) int {
	stack := debug.Stack()
	var p *crew.Panic
	if err, is := v.(error); is && errors.As(err, &p) {
		v, stack = p.Value, p.Stack
	}
	for line := range strings.Lines(string(stack)) {
		u.line(u.err, strings.ReplaceAll(strings.TrimSuffix(line, "\n"), "\t", "    "))
	}
	r := report{exit: crashExit}
	r.body.Code, r.body.Message, r.body.Hint = "crashed", fmt.Sprintf("snap crashed: %v", v), u.spell(remedy.Operation{Verb: remedy.DoRecover})
	if u.json && !u.printed {
		u.result = nil // it may be incomplete
		u.object(errors.New(r.body.Message), r)
	}
	if !u.json || u.out.lost != nil {
		u.complain(r.body.Message, r.body.Hint)
	}
	return r.exit
}

// complain prints an error for people.
func (u *ui) complain(message, hint string) {
	u.line(u.err, "error: "+message)
	if hint != "" {
		u.line(u.err, "hint: "+hint)
	}
}

// object prints the one JSON object: the result's fields, ok, and the error.
func (u *ui) object(err error, r report) {
	fields := map[string]any{}
	if u.result != nil {
		data, merr := json.Marshal(u.result)
		if merr == nil {
			merr = json.Unmarshal(data, &fields)
		}
		if merr != nil {
			err = merr
			r = u.describe(merr)
		}
	}
	fields["ok"] = err == nil
	if err != nil {
		fields["exit"], fields["error"] = r.exit, r.body
	}
	if u.list != "" && u.items == nil && err == nil {
		fields[u.list] = []any{}
	}
	if text, merr := encode(fields); merr == nil {
		u.printed = true
		if u.items != nil { // the object has begun with its list
			text = "]," + strings.TrimPrefix(text, "{")
		}
		u.flush()
		_, _ = io.WriteString(u.out, text+"\n") // remembered
	}
}

func encode(v any) (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return escapeJSON(strings.TrimSuffix(b.String(), "\n")), err
}

// item prints an item of the list u.list: with --json v, else text. The error says that
// nothing more can be written.
func (u *ui) item(text string, v any) error {
	if !u.json {
		return u.put(clean(text) + "\n")
	}
	sign := ","
	if u.items == nil {
		sign = fmt.Sprintf("{%q:[", u.list)
	}
	text, err := encode(v)
	if err != nil {
		return err
	}
	return u.put(sign + text)
}

// put prints text as it is.
func (u *ui) put(text string) error {
	if u.items == nil {
		u.items = bufio.NewWriterSize(u.out, 64<<10)
	}
	_, err := u.items.WriteString(text)
	return err
}

// flush prints the items that were not printed yet.
func (u *ui) flush() {
	if u.items != nil {
		_ = u.items.Flush() // stdout remembers its error
	}
}

// escapeJSON escapes the characters that JSON allows but a terminal may obey: DEL
// and the C1 controls.
func escapeJSON(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r >= 0x7f && r <= 0x9f {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// clean makes a text harmless for a terminal, on one line: whoever chooses a name must
// not be able to write a line of ours.
func clean(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0 {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func (u *ui) line(w io.Writer, text string) {
	_, _ = fmt.Fprintln(w, clean(text)) // stdout remembers its error; without stderr nobody can be told
}

// say prints a line of the result for people, and nothing with --json. With --quiet it
// prints nothing of a command that has done what it was asked for.
func (u *ui) say(format string, args ...any) {
	if !u.json && !u.silent {
		u.flush()
		u.line(u.out, fmt.Sprintf(format, fault.InLines(args)...))
	}
}

// progress prints a line about the work in progress. --quiet silences all but warnings.
func (u *ui) progress(format string, args ...any) {
	if text := fmt.Sprintf(format, fault.InLines(args)...); !u.quiet || strings.HasPrefix(text, "warning: ") {
		u.line(u.err, text)
	}
}

// table prints rows of cells for people, and nothing with --json.
func (u *ui) table(rows [][]string) {
	if u.json || u.silent {
		return
	}
	for _, line := range columns(rows) {
		u.line(u.out, line)
	}
}

// columns are the lines of a table.
func columns(rows [][]string) (lines []string) {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(cell)
		}
		_, _ = fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	_ = tw.Flush()
	for line := range strings.Lines(b.String()) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return lines
}

// asks reports whether somebody at a terminal can be asked, and sees the question.
func (u *ui) asks() bool {
	return terminal(u.in) && terminal(u.err)
}

// confirm asks the user to type an id, and returns what they typed. Without a terminal it
// does not ask and returns "", and so at the end of the input. A signal ends it at once
// with an error. The terminal keeps its settings all the time.
func (u *ui) confirm(ctx context.Context, question, id string) (string, error) {
	if !u.asks() {
		return "", nil
	}
	u.line(u.err, question)
	typed := make(chan string, 1)
	go func() { // read(2) hears of no context
		line, _ := bufio.NewReader(u.in).ReadString('\n') // cut short at the end of the input
		typed <- line
	}()
	line := ""
	select {
	case <-ctx.Done():
	case line = <-typed:
	}
	if sig := fault.Interruption(context.Cause(ctx)); sig != nil {
		u.line(u.err, "") // after the ^C that the terminal shows
		u.forget()
		return "", sig
	}
	if !strings.HasSuffix(line, "\n") {
		u.line(u.err, "")
		line = ""
	}
	if line = strings.TrimSpace(line); line == "" {
		u.line(u.err, fmt.Sprintf("not confirmed (the id is %s)", id))
	}
	return line, nil
}

// forget drops what was typed and not sent, so that the shell does not get it. A process in
// the background may not do so: the kernel would stop it (termios(3)).
func (u *ui) forget() {
	fd := int(u.in.Fd())
	if group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err == nil && group == unix.Getpgrp() {
		_ = unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH) // it is a courtesy
	}
}

// terminal reports whether a file is a terminal.
func terminal(f any) bool {
	file, ok := f.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

func size(n int64) string { return units.BytesSize(float64(n)) }

// timing lists the phases that took 50 ms or longer.
func timing(phases restore.Seconds) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(phases)) {
		if phases[name] >= 0.05 {
			parts = append(parts, fmt.Sprintf("%s %.1f s", name, phases[name]))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return ": " + strings.Join(parts, ", ")
}
