package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
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
			"exits": exits, "sid": sid, "leftovers": leftovers, "source": source, "listen": listen,
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

// listen FILE SECRET starts a server on the loopback interface, sets HOST to its address, and
// writes to FILE a line for each request: its path and its body. Below /refused it answers
// with an error, below /hangs never. Where what the file SECRET holds is in the command line
// or the environment of a process, the line says so.
func listen(ts *testscript.TestScript, _ bool, args []string) {
	file, token := ts.MkAbs(args[0]), strings.TrimSpace(ts.ReadFile(args[1]))
	ts.Check(os.WriteFile(file, nil, 0o644))
	var alone sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		line := r.URL.Path + " " + strings.ReplaceAll(string(body), "\n", "; ") + shown(token)
		alone.Lock()
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = fmt.Fprintln(f, line)
			err = errors.Join(err, f.Close())
		}
		alone.Unlock()
		switch {
		case err != nil || strings.HasPrefix(r.URL.Path, "/refused"):
			w.WriteHeader(http.StatusForbidden)
		case strings.HasPrefix(r.URL.Path, "/hangs"):
			<-r.Context().Done()
		}
	}))
	ts.Defer(server.Close)
	ts.Setenv("HOST", server.Listener.Addr().String())
}

// shown says where a text is that no process may show.
func shown(token string) (where string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	more, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range append(files, more...) {
		if text, err := os.ReadFile(file); err == nil && bytes.Contains(text, []byte(token)) {
			where += " SHOWN IN " + file
		}
	}
	return where
}
