package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A list that is printed as it comes is one JSON object, however the command ends, and so
// is one that never began.
func TestAListInPiecesIsOneObject(t *testing.T) {
	failed := errors.New("the disk is gone")
	for name, c := range map[string]struct {
		items int
		err   error
		want  string // the list; "": the key is not there
	}{
		"all": {2, nil, `[{"n":0},{"n":1}]`}, "cut": {2, failed, `[{"n":0},{"n":1}]`}, "one": {1, failed, `[{"n":0}]`},
		"none": {0, nil, `[]`}, "not begun": {0, failed, ""},
	} {
		var out bytes.Buffer
		u := newUI(os.Stdin, &out, &bytes.Buffer{})
		u.json, u.list, u.result = true, "entries", map[string]any{"sid": "x"}
		for i := range c.items {
			if err := u.item("for people", map[string]int{"n": i}); err != nil {
				t.Fatal(err)
			}
		}
		exit := u.end(c.err)
		var got map[string]json.RawMessage
		dec := json.NewDecoder(&out)
		if err := dec.Decode(&got); err != nil || dec.More() {
			t.Errorf("%s: %v, more: %v", name, err, dec.More())
		}
		failed := c.err != nil
		if string(got["entries"]) != c.want || string(got["ok"]) != fmt.Sprint(!failed) || (got["error"] != nil) != failed || (exit != 0) != failed || string(got["sid"]) != `"x"` {
			t.Errorf("%s: %s, exit %d", name, got, exit)
		}
	}
}

// ls prints bare names into a pipe, and not to a terminal.
func TestBareNamesDoNotReachATerminal(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	args := []string{"ls", "blog", "20261123T170024Z-77668a", "--null", "--config", "/nonexistent/snap.yaml"}
	for what, c := range map[string]struct {
		out  any
		want string
	}{"a terminal": {tty, "a terminal could obey them"}, "a pipe": {&bytes.Buffer{}, "/nonexistent/snap.yaml"}} {
		var errOut bytes.Buffer
		u := newUI(os.Stdin, &bytes.Buffer{}, &errOut)
		u.out.w = c.out.(interface{ Write([]byte) (int, error) })
		if exit := (&app{ui: u}).run(args); exit != usageExit || !strings.Contains(errOut.String(), c.want) {
			t.Errorf("%s: exit %d: %s", what, exit, errOut.String())
		}
	}
}
