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
	Occupied bool     // of PutBack: something stands there, to be moved first
	SID      string   // of RestoreOld, RestoreNew and Nothing: the snapshot; may be ""
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
		wanted, to, words := keep, v.Path(), ""
		if seen[i].Layout() == NewGone && x.Goal() == Guarding {
			if x.GuardUnknown != nil { // the tree may have been deleted because the old data is a snapshot
				return x.GuardUnknown
			}
			wanted, to = Old, v.EntryPath()
			words = "the new data is live; the old data is not a snapshot yet, and is not at " + to
			if where, _ := v.whereabouts(Old); where != "" {
				words += "; " + where
			}
		} else {
			words = v.Describe()
		}
		text = append(text, fmt.Sprintf("volume %s (%s): %s", v.Name, v.Path(), words))
		if seen[i].Live == wanted || seen[i].Staged == wanted {
			continue
		}
		if way := x.putBack(v, wanted, to); way.Path != "" {
			m.Ways = append(m.Ways, way)
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

// putBack is the way to put back a directory that is at neither name. Its Path is ""
// if the directory cannot be found.
func (x *Tx) putBack(v *Volume, tree Occupant, to string) Way {
	_, path := v.whereabouts(tree)
	return Way{Do: PutBack, Workload: x.Begin.Workload, Volume: v.Name, Tree: tree, Path: path, To: to, Occupied: to == v.Path()}
}

// bringBack says what can be done about a directory that is at neither name.
func (x *Tx) bringBack(v *Volume, keep Occupant) Way {
	way := x.putBack(v, keep, v.Path())
	switch {
	case way.Path != "":
		return way
	case keep == Old && x.PreRestoreSID() == "":
		return Way{Do: OnlyNew, Workload: x.Begin.Workload}
	case keep == Old:
		return Way{Do: RestoreOld, Workload: x.Begin.Workload, SID: x.PreRestoreSID()}
	}
	return Way{Do: RestoreNew, Workload: x.Begin.Workload, SID: x.Begin.SID}
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
