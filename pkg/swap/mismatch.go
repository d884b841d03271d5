package swap

import (
	"fmt"
	"strings"

	"github.com/tiny-forge/snap/pkg/journal"
)

// Unmounted says that the directory above a volume's directories is missing.
type Unmounted struct{ Volume, Path string }

func (u *Unmounted) Error() string {
	return fmt.Sprintf("volume %s: the directory above %s is missing: its filesystem is not mounted, or it was moved away", u.Volume, u.Path)
}

// Mismatch says that the directories are not as the records say, with the ways
// out of it. Nothing was touched.
type Mismatch struct {
	Text string
	Ways []Way
}

func (m *Mismatch) Error() string { return m.Text }

// Way is one thing that an operator can do about a mismatch.
type Way struct {
	Do       WayOut
	Workload string
	Volume   string
	Tree     Occupant // which generation: of PutBack and Resolve
	Path     string   // what it is about
	To       string   // of PutBack: where it belongs
	// Occupied says, of PutBack, that something stands there, to be moved first.
	Occupied bool
	SID      string // of RestoreOld, RestoreNew and Nothing: the snapshot; may be ""
}

// WayOut is a kind of [Way].
type WayOut int

// The ways out. After each the operator runs the recovery again.
const (
	MoveAway   WayOut = iota // move Path to another name
	Unmount                  // unmount Path
	PutBack                  // move Path to To
	Resolve                  // keep Tree for all volumes
	RestoreOld               // keep the new data of all volumes, then restore SID
	RestoreNew               // keep the old data of all volumes, then restore SID again
	OnlyNew                  // keep the new data of all volumes: no snapshot of the old data exists yet
	Nothing                  // neither generation is complete: by hand (SID may hold the old data)
)

// mismatch describes directories that the table of recovery does not know, or
// knows only with other records.
func (x *Tx) mismatch(seen []Observation) error {
	var text []string
	m := &Mismatch{}
	keep := x.Goal().Keeps()
	for i, v := range x.Volumes {
		if ActionFor(seen[i].Layout(), x.Goal()) != Freeze {
			continue
		}
		if ok, err := v.anchored(); err == nil && !ok {
			return &Unmounted{v.Name, v.Path()}
		}
		if seen[i].Layout() == NewGone && x.Goal() == Guarding {
			if x.GuardUnknown != nil { // the tree may have been deleted because the old data is a snapshot
				return x.GuardUnknown
			}
			words, ways := v.astray(x)
			text, m.Ways = append(text, words), append(m.Ways, ways...)
			continue
		}
		text = append(text, fmt.Sprintf("volume %s (%s): %s", v.Name, v.Path(), v.Describe()))
		if seen[i].Live == keep || seen[i].Staged == keep {
			continue
		}
		if _, path := v.whereabouts(keep); path != "" {
			m.Ways = append(m.Ways, Way{Do: PutBack, Workload: x.Begin.Workload, Volume: v.Name, Tree: keep, Path: path, To: v.Path(), Occupied: true})
		}
	}
	for _, g := range []Occupant{Old, New} {
		list, err := x.PlanResolution(g)
		switch {
		case err == nil:
			m.Ways = append(m.Ways, Way{Do: Resolve, Workload: x.Begin.Workload, Tree: g})
		case list == nil: // not for want of the data
			return err
		}
	}
	if len(m.Ways) == 0 {
		m.Ways = []Way{{Do: Nothing, SID: x.PreRestoreSID()}}
	}
	m.Text = fmt.Sprintf("the restore was %s, but %s", x.Goal(), strings.Join(text, "; "))
	return m
}

// astray describes a displaced tree that somebody moved away before it became a
// snapshot, and how to put it back.
func (v *Volume) astray(x *Tx) (text string, ways []Way) {
	text = fmt.Sprintf("volume %s (%s): the new data is live; the old data is not a snapshot yet, and is not at %s", v.Name, v.Path(), v.EntryPath())
	words, path := v.whereabouts(Old)
	if words != "" {
		text += "; " + words
	}
	if path != "" {
		ways = []Way{{Do: PutBack, Volume: v.Name, Tree: Old, Path: path, To: v.EntryPath()}}
	}
	return text, ways
}

// bringBack says what can be done about a directory that is at neither name.
func (v *Volume) bringBack(x *Tx, keep Occupant) Way {
	if _, path := v.whereabouts(keep); path != "" {
		return Way{Do: PutBack, Workload: x.Begin.Workload, Volume: v.Name, Tree: keep, Path: path, To: v.Path(), Occupied: true}
	}
	switch {
	case keep == Old && x.PreRestoreSID() == "":
		return Way{Do: OnlyNew, Workload: x.Begin.Workload}
	case keep == Old:
		return Way{Do: RestoreOld, Workload: x.Begin.Workload, SID: x.PreRestoreSID()}
	}
	return Way{Do: RestoreNew, Workload: x.Begin.Workload, SID: x.Begin.SID}
}

// Quote quotes a path for a command that an operator pastes (sh(1), quoting with
// single quotes).
func Quote(path string) string {
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// Word is the operator's word for a generation: journal.KeepOld or KeepNew.
func (o Occupant) Word() string {
	if o == New {
		return journal.KeepNew
	}
	return journal.KeepOld
}

// Generation is the data that a word of the operator's keeps.
func Generation(word string) Occupant {
	if word == journal.KeepNew {
		return New
	}
	return Old
}
