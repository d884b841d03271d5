package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"snap": func() { os.Exit(testCommand()) },
	})
}

// TestScripts runs the sessions of testdata/script with the real command, on
// workloads of only data. Each ends with a check that nothing is left over.
func TestScripts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("SNAP_CONFIG", filepath.Join(env.WorkDir, "snap.yaml"))
			docs, err := filepath.Abs("../../docs")
			if err != nil {
				return err
			}
			env.Setenv("DOCS", docs)
			env.Setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
			return os.Chmod(env.WorkDir, 0o755)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "sid": sid, "leftovers": leftovers, "source": source,
		},
	})
}

// exits N COMMAND… runs a command that must end with exit code N.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: exits N COMMAND…")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("%q ended with %s, expected exit code %s", args[1:], got, args[0])
	}
}

// sid NAME sets NAME to the snapshot's id on the last command's stdout.
func sid(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// source NAME FILE sets NAME to what FILE holds.
func source(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}

// leftovers DIR STATE STORE fails where something lies beside the live directories in DIR, or
// in the transactions of STATE, or in what STORE has not published.
func leftovers(ts *testscript.TestScript, _ bool, args []string) {
	for _, pattern := range []string{args[0] + "/.snap-*", args[1] + "/tx/*", args[1] + "/tx/.*", args[2] + "/scratch/*"} {
		found, err := filepath.Glob(ts.MkAbs(pattern))
		ts.Check(err)
		if len(found) > 0 {
			ts.Fatalf("left behind: %q", found)
		}
	}
}
