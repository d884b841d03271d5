package runtime

import "testing"

func TestCrashedIsNotStopped(t *testing.T) {
	always, unless := Policy{Name: "always"}, Policy{Name: "unless-stopped"}
	failure, thrice := Policy{Name: "on-failure"}, Policy{Name: "on-failure", Retries: 3}
	for name, c := range map[string]struct {
		x    Exit
		want bool
	}{
		"never started":                          {Exit{StopSignal: 15}, false},
		"its start failed":                       {Exit{StopSignal: 15, Code: 128, Failed: true}, true},
		"its start failed, always":               {Exit{Policy: always, Code: 128, Failed: true}, true},
		"done":                                   {Exit{StopSignal: 15}, false},
		"an error":                               {Exit{StopSignal: 15, Code: 1}, true},
		"a segmentation fault":                   {Exit{StopSignal: 15, Code: 139}, true},
		"stopped: SIGTERM":                       {Exit{StopSignal: 15, Code: 143}, false},
		"stopped: SIGKILL":                       {Exit{StopSignal: 15, Code: 137}, false},
		"stopped: its own signal":                {Exit{StopSignal: 2, Code: 130}, false},
		"SIGINT, though its signal is another":   {Exit{StopSignal: 15, Code: 130}, true},
		"killed for want of memory":              {Exit{StopSignal: 15, Code: 137, OOM: true}, true},
		"restarting":                             {Exit{Policy: always, Code: 1, Restarting: true}, true},
		"restarting after an exit with 0":        {Exit{Policy: unless, Restarting: true}, true},
		"always, stopped, with an error":         {Exit{Policy: always, Code: 1}, false},
		"unless-stopped, stopped, out of memory": {Exit{Policy: unless, Code: 137, OOM: true}, false},
		"on-failure, done":                       {Exit{Policy: thrice, Restarts: 3}, false},
		"on-failure, given up":                   {Exit{Policy: thrice, Code: 1, Restarts: 3}, true},
		"on-failure, stopped before that":        {Exit{Policy: thrice, Code: 1, Restarts: 2}, false},
		"on-failure without end, stopped":        {Exit{Policy: failure, Code: 1, Restarts: 20}, false},
	} {
		if got := c.x.Crashed(); got != c.want {
			t.Errorf("%s: crashed is %t", name, got)
		}
	}
}

func TestWhatHasCrashedCountsAsHavingRun(t *testing.T) {
	list := Containers{{ID: "a", Service: "job", ImageID: "1"}, {ID: "b", Service: "web", ImageID: "2"}}
	if list.Ran() {
		t.Error("what was stopped counts")
	}
	list = append(list, Container{ID: "c", Service: "web", ImageID: "3", Crashed: true})
	if !list.Ran() || list.Running() {
		t.Error("what has crashed does not count, or counts as running")
	}
	if pin := list.Pins()["web"]; pin.ImageID != "3" {
		t.Errorf("the pin is image %s, want that of the container that shall run", pin.ImageID)
	}
	if (Containers{{Crashed: true, Also: true}}).Ran() {
		t.Error("a container of also_stop counts")
	}
}
