package docker

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/runtime"
)

func TestACommandRunsInAContainerOfTheWorkloadOrOneNamedInFull(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	r, held := b.open(b.app(ref)), b.held()
	own := b.deployed(r, held)
	other := b.foreign("other", ref, nil)
	for name, c := range map[string]struct {
		x    runtime.Exec
		code int
		said string
		err  string
	}{
		"the workload's":  {runtime.Exec{Container: own.Name, Command: []string{"/app", "say"}, Env: []string{"SNAP_WORKLOAD=blog"}}, 0, "0 blog", ""},
		"as another user": {runtime.Exec{Container: own.Name, User: "1234", Command: []string{"/app", "say"}}, 0, "1234", ""},
		"somebody else's": {runtime.Exec{Container: b.name + "-other", Command: []string{"/app", "say"}}, 0, "0", ""},
		"it fails":        {runtime.Exec{Container: own.Name, Command: []string{"/app", "exit", "9"}}, 9, "giving up", ""},
		"a part of an id": {runtime.Exec{Container: other[:12], Command: []string{"/app", "say"}}, 0, "", "there is no container " + other[:12]},
		"there is none":   {runtime.Exec{Container: b.name + "-none", Command: []string{"/app", "say"}}, 0, "", "there is no container"},
		"no such command": {runtime.Exec{Container: own.Name, Command: []string{"/none"}}, 126, "", ""},
		"no such user":    {runtime.Exec{Container: own.Name, User: "nobody-here", Command: []string{"/app", "say"}}, 126, "", "no users found"},
	} {
		code, said, err := r.Exec(t.Context(), c.x)
		switch {
		case c.err != "" && err != nil:
			if !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", name, err)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case c.code == 126: // engines differ in what they call it
			if code == 0 {
				t.Errorf("%s: it ended with 0", name)
			}
		case code != c.code || strings.TrimSpace(said) != c.said:
			t.Errorf("%s: it ended with %d and said %q", name, code, said)
		}
	}
	b.must(r.FenceAndStop(t.Context(), time.Second))
	if code, _, err := r.Exec(t.Context(), runtime.Exec{Container: own.Name, Command: []string{"/app", "say"}}); err == nil {
		t.Errorf("in a stopped container it ended with %d", code)
	}
}

// A command that hangs is killed together with what it has started, in another session
// too.
func TestACommandThatHangsInAContainerIsKilledWithItsChildren(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	r, held := b.open(b.app(ref)), b.held()
	own := b.deployed(r, held)
	mark := "SNAP_HOOK=" + b.name
	ctx, cancel := context.WithCancelCause(t.Context())
	late := errors.New("late")
	two := make(chan int, 1)
	go func() {
		n := 0
		for ; n < 2; b.moment() {
			n = marked(mark)
		}
		two <- n
		cancel(late)
	}()
	_, _, err := r.Exec(ctx, runtime.Exec{Container: own.Name, Command: []string{"/app", "spawn"}, Env: []string{mark}, Mark: mark})
	if !errors.Is(err, late) {
		t.Errorf("it ended with %v", err)
	}
	<-two
	for deadline := time.Now().Add(10 * time.Second); marked(mark) > 0; b.moment() { // a killed one may take a moment
		if time.Now().After(deadline) {
			t.Fatal("a process of the command is alive")
		}
	}
	if now := b.only(r); !now.Running || now.ID != own.ID {
		t.Errorf("the app is %+v", now)
	}
}

func marked(mark string) (n int) {
	for _, p := range runtime.Marked("/proc", mark) {
		n++
		_ = p.Release()
	}
	return n
}
