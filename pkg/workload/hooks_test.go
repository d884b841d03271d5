package workload_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/workload"
)

// with is a config of one workload with further lines, of the workload and of the config.
func with(workload string, config ...string) string {
	text := "version: 1\n" + strings.Join(config, "\n") + "\nworkloads:\n  blog:\n    volumes: [{scope: stage, source: x}]\n"
	for line := range strings.Lines(workload) {
		text += "    " + line
	}
	return text
}

func TestHooksAreOneOrAList(t *testing.T) {
	cfg, err := load(t, with(`hooks:
  before_quiesce: {command: [pg_dump, -f, /d/dump], container: db, user: postgres, timeout: 10m, on_failure: warn}
  after_thaw:
    - {command: [one]}
    - command: [two, "a b"]
`))
	if err != nil {
		t.Fatal(err)
	}
	got := cfg.Workloads["blog"].Hooks
	want := workload.Hooks{
		BeforeQuiesce: workload.HookList{{Command: workload.Command{"pg_dump", "-f", "/d/dump"}, Container: "db", User: "postgres", Timeout: workload.Duration(10 * time.Minute), OnFailure: workload.HookWarns}},
		AfterThaw: workload.HookList{
			{Command: workload.Command{"one"}, Timeout: workload.Duration(time.Minute), OnFailure: workload.HookFails},
			{Command: workload.Command{"two", "a b"}, Timeout: workload.Duration(time.Minute), OnFailure: workload.HookFails},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestWhoIsToldIsInheritedKeyByKey(t *testing.T) {
	global := "notify: {urls: ['a://1'], on: [success]}"
	for own, want := range map[string]string{
		"":                                   "1 [success]",
		"notify: {on: [failure, recovery]}":  "1 [failure recovery]",
		"notify: {on: []}":                   "1 []",
		"notify: {urls: 'a://2'}":            "1 [success]",
		"notify: {urls: []}":                 "0 [success]",
		"notify: {urls_file: /etc/snap/url}": "0/etc/snap/url [success]",
	} {
		cfg, err := load(t, with(own, global))
		if err != nil {
			t.Fatalf("%s: %v", own, err)
		}
		n := cfg.NotifyOf("blog")
		if got := fmt.Sprint(len(n.URLs), n.URLsFile, " ", n.On); strings.ReplaceAll(got, " /", "/") != want && strings.ReplaceAll(got, "  ", " ") != want {
			t.Errorf("%s: got %q, expected %q", own, got, want)
		}
	}
	cfg, err := load(t, with(""))
	if n := cfg.NotifyOf("blog"); err != nil || n.URLs != nil || fmt.Sprint(n.On) != "[failure recovery]" {
		t.Errorf("without a word of it: %+v, %v", n, err)
	}
}

// A URL may hold a token: no error and no verb of fmt shows it, whatever is wrong.
func TestASecretIsNeverShown(t *testing.T) {
	const token = "t0ken"
	for _, text := range []string{
		with("ping: [https://x/" + token + "]"), with("ping: ftp://" + token), with("ping: " + token), with("ping: {a: " + token + "}"),
		with("notify: {urls: [" + token + "]}"), with("notify: {urls: [[" + token + "]]}"), with("notify: {urls: {a: " + token + "}}"),
		with("", "ping: ':"+token+"'"), with("", "notify: {urls: ['://"+token+"']}"), with("ping: https://x/" + token + "\nping_file: /x"),
		with("notify: {urls: ['a:\x01//" + token + "']}"),
	} {
		_, err := load(t, text)
		if err == nil || strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), token) {
			t.Errorf("%q: the error is %v", text, err)
		}
	}
	cfg, err := load(t, with("ping: https://x/"+token+"\nnotify: {urls: ['a://"+token+"']}", "ping: https://y/"+token))
	if err != nil {
		t.Fatal(err)
	}
	if said := fmt.Sprintf("%v %+v %#v %q", cfg.Ping, *cfg.Workloads["blog"].Notify, cfg.Workloads["blog"].Ping, cfg.NotifyOf("blog").URLs); strings.Contains(said, token) {
		t.Errorf("it says %s", said)
	}
	if text, _ := json.Marshal(cfg); strings.Contains(string(text), token) {
		t.Errorf("JSON has it: %s", text)
	}
}

func TestWrongHooksAndAlarmsAreRefused(t *testing.T) {
	for _, c := range []struct{ config, want string }{
		{with("hooks: {before_quiesce: {comand: [x]}}"), "unknown key comand in a hook (it knows command, container"},
		{with("hooks: {before_thaw: {command: [x]}}"), "unknown key before_thaw"},
		{with("hooks: {after_thaw: {command: pg_dump -f x}}"), "for a shell write [sh, -c"},
		{with("hooks: {after_thaw: {command: []}}"), "needs a command"},
		{with("hooks: {after_thaw: {container: db}}"), "needs a command"},
		{with("hooks: {after_thaw: [x]}"), "a hook is a mapping"},
		{with("hooks: {after_thaw: {command: [x], timeout: long}}"), `"long" is not a duration`},
		{with("hooks: {after_thaw: {command: [x], on_failure: ignore}}"), "use fail or warn"},
		{with("hooks: {after_thaw: {command: [x], user: www}}"), "user is for a hook in a container"},
		{with("notify: {on: [failed]}"), `on: "failed": use failure, recovery or success`},
		{with("notify: {url: 'a://b'}"), "unknown key url"},
		{with("notify: {urls_file: url}"), "not an absolute path"},
		{with("ping_file: ping"), "not an absolute path"},
		{with("", "textfile: /x/snap.txt"), "end in .prom"},
		{with("", "textfile: snap.prom"), "not an absolute path"},
	} {
		if _, err := load(t, c.config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, expected %q", c.config, err, c.want)
		}
	}
}
