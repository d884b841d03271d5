package swap

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/remedy"
)

const (
	// patience is how long NoHolders waits for holders that are about to go: a program
	// that only looks around, a mount that the engine takes down after its container.
	patience = time.Second
	// shown is how many holders a message names.
	shown = 5
)

// ThenAgain ends the hint of [NoHolders].
const ThenAgain = ", then try again"

// NoHolders refuses, with [*Unfit], directories that somebody can still reach other
// than by their present paths: see [disk.Holders]. It leaves out the holders that
// ignore names. An idle one, such as a shell at its prompt, is not refused but named in
// the result.
func NoHolders(dirs []*disk.Dir, ignore func(disk.Holder) bool) (idle []string, err error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(patience / 20) {
		found, err := disk.Holders(dirs)
		if err != nil {
			return nil, err
		}
		idle = nil
		found = slices.DeleteFunc(found, func(h disk.Holder) bool {
			if h.Idle && !ignore(h) {
				idle = append(idle, h.String()+"; it will be in a directory that no longer exists")
			}
			return h.Idle || ignore(h)
		})
		if len(found) == 0 {
			return idle, nil
		}
		if time.Now().After(deadline) {
			return idle, &Unfit{"in_use", waysOut(found) + ThenAgain, fmt.Errorf("the data is in use: %s", listed(found))}
		}
	}
}

// listed names the first holders, a process once.
func listed(found []disk.Holder) string {
	var list []string
	more := 0
	for i, h := range found {
		others := 0
		for j, other := range found {
			if h.PID == 0 || other.PID != h.PID {
				continue
			}
			if j < i { // named already
				others = -1
				break
			}
			others++
		}
		switch {
		case others < 0:
		case len(list) == shown:
			more++
		case others > 1:
			list = append(list, fmt.Sprintf("%s (and %d more)", h, others-1))
		default:
			list = append(list, h.String())
		}
	}
	if more > 0 {
		list = append(list, fmt.Sprintf("%d others", more))
	}
	return strings.Join(list, "; ")
}

// waysOut says what to do about holders of each kind, in commands.
func waysOut(found []disk.Holder) string {
	var pids, spaces []string
	var list []string
	add := func(to *[]string, what string) {
		if !slices.Contains(*to, what) {
			*to = append(*to, what)
		}
	}
	for _, h := range found {
		pid := strconv.Itoa(h.PID)
		switch {
		case h.How != disk.Mounted && h.PID != 0:
			add(&pids, pid)
		case h.How != disk.Mounted:
			add(&list, "unmount these devices and detach them (losetup -d "+h.Command+")")
		case h.PID != 0:
			add(&spaces, pid)
		case h.Command != "":
			add(&list, "umount "+remedy.Quote(h.Command))
		default:
			add(&list, "umount "+remedy.Quote(h.Path))
		}
	}
	spaces = slices.DeleteFunc(spaces, func(pid string) bool { return slices.Contains(pids, pid) })
	if len(spaces) > 0 {
		list = append([]string{"stop what runs in these mount namespaces (lsns -t mnt; kill " + strings.Join(spaces, " ") + ")"}, list...)
	}
	if len(pids) > 0 {
		list = append([]string{"end these processes (kill " + strings.Join(pids, " ") + ")"}, list...)
	}
	return strings.Join(list, "; ")
}
