package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Containers are a workload's containers at one moment, with those of also_stop.
type Containers []Container

// Ran reports whether a container of the workload itself shall run after a restore.
func (list Containers) Ran() bool {
	return slices.ContainsFunc(list, func(c Container) bool { return c.Ran() && !c.Also })
}

// Running reports whether a container of the workload itself runs.
func (list Containers) Running() bool {
	return slices.ContainsFunc(list, func(c Container) bool { return c.Running && !c.Also })
}

// Have reports whether a process of this mount namespace, in these control groups, is in
// one of the containers. A process in a container may have a namespace of its own, and an
// engine without control groups is told by the namespace.
func (list Containers) Have(namespace, cgroups string) bool {
	return slices.ContainsFunc(list, func(c Container) bool {
		if c.ID != "" && strings.Contains(cgroups, c.ID) {
			return true
		}
		own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", c.PID))
		return c.PID != 0 && err == nil && own == namespace
	})
}

// Pins returns the images that ran, by service.
func (list Containers) Pins() map[string]Pin {
	out := map[string]Pin{}
	for _, c := range list {
		if _, have := out[c.Service]; !c.Also && !c.OneOff && (!have || c.Ran()) {
			out[c.Service] = c.Pin()
		}
	}
	return out
}

// State says in words how the workload's own containers are.
func (list Containers) State() string {
	running, paused, all := 0, 0, 0
	for _, c := range list {
		switch {
		case c.Also:
			continue
		case c.Paused:
			paused++
		case c.Running:
			running++
		}
		all++
	}
	switch {
	case all == 0:
		return "absent"
	case running == all:
		return "running"
	case paused > 0:
		return "paused"
	case running > 0:
		return "partly running"
	}
	return "stopped"
}

// Resting reports whether a container that was awake in before no longer is.
func (list Containers) Resting(before []Container) bool {
	return slices.ContainsFunc(before, func(c Container) bool { return c.Awake() && !list.awake(c.ID) })
}

func (list Containers) awake(id string) bool {
	return slices.ContainsFunc(list, func(c Container) bool { return c.ID == id && c.Awake() })
}

// longestStop bounds the wait for a stop: a container may ask for any time.
const longestStop = 10 * time.Minute

// UntilAtRest waits while a container that ran before still does, since it may be
// about to be paused or stopped: at most for timeout (0: what the container itself
// asks for) and a little more. An error of the runtime ends the wait: whatever the
// caller does next meets it again.
func UntilAtRest(ctx context.Context, rt Runtime, before []Container, more, timeout time.Duration) {
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		now, err := rt.Containers(ctx)
		if err != nil {
			return
		}
		awake, longest := false, time.Duration(0)
		for _, c := range now {
			if !c.Awake() || !Containers(before).awake(c.ID) {
				continue
			}
			awake = true
			if longest = max(longest, c.StopTimeout); c.StopTimeout < 0 {
				longest = longestStop
			}
		}
		if timeout > 0 {
			longest = timeout
		}
		if !awake || time.Since(start) > min(longest+more, longestStop) {
			return
		}
	}
}

// Barred returns why these containers may not be stopped, nil when they may. With
// takeOver those that another config made may.
func (list Containers) Barred(takeOver bool) error {
	var errs []error
	for _, c := range list {
		if c.Bar != nil && !(takeOver && c.Bar.Code == OtherConfig) {
			errs = append(errs, c.Bar)
		}
	}
	return errors.Join(errs...)
}
