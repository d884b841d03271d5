package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// reportOf returns what is reported of some lines, and the exit code.
func reportOf(t *testing.T, skipsFail bool, lines ...string) (out string, exit int) {
	t.Helper()
	var b strings.Builder
	r := &report{out: &b, progress: io.Discard, module: "m/", begun: time.Now(), running: map[name]*test{}}
	if err := r.read(strings.NewReader(strings.Join(lines, "\n")+"\n"), nil); err != nil {
		t.Fatal(err)
	}
	exit = r.exit(skipsFail)
	return b.String(), exit
}

func ran(test, outcome, output string) string {
	return fmt.Sprintf(`{"Action":"run","Package":"m/p","Test":%q}
{"Action":"output","Package":"m/p","Test":%[1]q,"Output":"=== RUN   %[1]s\n"}
{"Action":"output","Package":"m/p","Test":%[1]q,"Output":%[3]q}
{"Action":"output","Package":"m/p","Test":%[1]q,"Output":"--- %[4]s: %[1]s (0.50s)\n"}
{"Action":%[2]q,"Package":"m/p","Test":%[1]q,"Elapsed":0.5}`, test, outcome, output, strings.ToUpper(outcome))
}

func TestAReportTellsFailuresSkipsAndPackages(t *testing.T) {
	const (
		start  = `{"Action":"start","Package":"m/p"}`
		passed = `{"Action":"output","Package":"m/p","Output":"ok  \tm/p\t1s\n"}` + "\n" + `{"Action":"pass","Package":"m/p"}`
		failed = `{"Action":"output","Package":"m/p","Output":"FAIL\tm/p\t1s\n"}` + "\n" + `{"Action":"fail","Package":"m/p"}`
	)
	for what, c := range map[string]struct {
		lines     []string
		skipsFail bool
		out       string
		exit      int
	}{
		"a pass": {[]string{start, ran("TestA", "pass", "quiet\n"), passed}, true, "ok  \tm/p\t1s\n", 0},
		"a failure": {
			[]string{start, ran("TestA/b", "fail", "wrong\n"), ran("TestA", "fail", "whole\n"), failed}, false,
			"--- FAIL: p TestA/b (0.50s)\nwrong\n--- FAIL: p TestA (0.50s)\nwhole\nFAIL\tm/p\t1s\n", 1,
		},
		"a skip": {[]string{start, ran("TestA", "skip", "needs x\n"), passed}, false, "--- SKIP: p TestA (0.50s)\nneeds x\nok  \tm/p\t1s\n", 0},
		"a skip that counts": {
			[]string{start, ran("TestA", "skip", "needs x\n"), passed}, true,
			"--- SKIP: p TestA (0.50s)\nneeds x\nok  \tm/p\t1s\ntest: 1 skipped, and SNAP_TEST_SKIPS=fail\n", 3,
		},
		"lines that are no events": {
			[]string{"# go says", "{", `{"a":1}`, start, ran("TestA", "pass", "x"), passed, "null"}, true,
			"# go says\n{\n{\"a\":1}\nok  \tm/p\t1s\nnull\n", 0,
		},
		"a package that cannot be built": {
			[]string{`{"Action":"build-output","Output":"c.go:1: undefined\n"}`, `{"Action":"build-fail"}`, start, failed}, false,
			"c.go:1: undefined\nFAIL\tm/p\t1s\n", 1,
		},
	} {
		if out, exit := reportOf(t, c.skipsFail, c.lines...); out != c.out || exit != c.exit {
			t.Errorf("%s: exit %d, expected %d, and\n%s\nexpected\n%s", what, exit, c.exit, out, c.out)
		}
	}
	running := strings.Join(strings.Split(ran("TestA", "pass", "so far\n"), "\n")[:3], "\n")
	for what, lines := range map[string][]string{
		"its package failed": {start, running, failed}, "the output ended": {start, running}, "there is no output": {start},
	} {
		out, exit := reportOf(t, false, lines...)
		if exit != 1 || len(lines) > 1 && (!strings.Contains(out, "--- NOT ENDED: p TestA (") || !strings.Contains(out, ")\nso far\n")) {
			t.Errorf("a test had no outcome when %s: exit %d, and\n%s", what, exit, out)
		}
	}
}

func TestProgressNamesTheTestThatRunsLongestIn80Columns(t *testing.T) {
	begun := time.Now()
	ago := func(seconds int) *test { return &test{begun: begun.Add(-time.Duration(seconds) * time.Second)} }
	r := &report{module: "m/", begun: begun.Add(-2 * time.Minute), running: map[name]*test{}}
	if line := r.status(begun); !strings.HasSuffix(line, "2m0s building") {
		t.Errorf("before the first package: %q", line)
	}
	r.running[name{"m/p", ""}], r.running[name{"m/q", ""}] = ago(90), ago(99)
	if line := r.status(begun); !strings.HasSuffix(line, " 1m39s q") {
		t.Errorf("before the first test: %q", line)
	}
	waits := ago(70)
	waits.paused = true
	r.running[name{"m/p", "TestWaits"}] = waits
	r.running[name{"m/p", "TestA"}], r.running[name{"m/p", "TestA/b"}] = ago(60), ago(50)
	r.running[name{"m/p", "TestC"}] = ago(40)
	r.passed, r.failed = 7, 2
	if line := r.status(begun); line != "   2m0s  7 passed, 2 failed;  50s p TestA/b" {
		t.Errorf("while tests run: %q", line)
	}
	r.running[name{"m/p", "TestA/" + strings.Repeat("ü", 100)}] = ago(55)
	if line := r.status(begun); len([]rune(line)) != 80 || !strings.HasSuffix(line, "ü...") {
		t.Errorf("with a long name: %d columns, %q", len([]rune(line)), line)
	}
}
