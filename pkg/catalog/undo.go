package catalog

import (
	"errors"
	"strings"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/store"
)

// Undone is the snapshot that undoes a restore: it holds what the restore replaced, and
// only the volumes that it replaced.
type Undone struct {
	*store.Manifest
	// Unsure says that the history of this host does not know the restore, and so not
	// whether it stayed: another version of snap made it, or another host.
	Unsure bool
}

// Volumes are the names of the volumes.
func (u *Undone) Volumes() (names []string) {
	for i := range u.Manifest.Volumes {
		names = append(names, u.Manifest.Volumes[i].Name)
	}
	return names
}

// Undo returns the snapshot that undoes the last restore of a workload. It refuses where
// that restore was rolled back, for what it would have replaced is live; where its snapshot
// is gone; and where no restore is known. It never goes back beyond the last restore: the
// operator has to say that.
func Undo(st *store.Store, j *journal.Journal, workload string) (*Undone, error) {
	runs, err := j.Runs(workload)
	if err != nil {
		return nil, fault.Classify(err)
	}
	last := journal.LastRestore(runs)
	found, err := replaced(st, workload)
	if found != nil && (last == nil || found.SID != last.PreRestoreSID && found.Created.After(last.Time)) {
		return &Undone{Manifest: found, Unsure: true}, nil
	}
	switch {
	case last == nil && err != nil:
		return nil, err
	case last == nil:
		return nil, fault.Refuse("nothing_to_undo", remedy.Of(remedy.List(workload)),
			"there is no restore of workload %s to undo: this host knows of none, and the store has no snapshot from before one", workload)
	case last.Live == journal.KeepOld:
		return nil, fault.Refuse("nothing_to_undo", earlier(st, workload, runs),
			"there is nothing to undo: the last restore of workload %s, of snapshot %s at %s, was rolled back, and the data from before it is live", workload, last.SID, last.Time.Local().Format(minute))
	}
	m, err := Load(st, fault.Refused, workload, last.PreRestoreSID)
	var own *fault.Error
	if errors.As(err, &own) && own.Code == "snapshot_not_found" {
		return nil, fault.Refuse("snapshot_not_found", remedy.Of("restore another one by its id: ", remedy.List(workload)),
			"the last restore of workload %s, of snapshot %s at %s, cannot be undone: snapshot %s, of the data from before it, is not in the store (deleted, pruned, or never made)",
			workload, last.SID, last.Time.Local().Format(minute), last.PreRestoreSID)
	}
	if err != nil {
		return nil, err
	}
	return &Undone{Manifest: m}, nil
}

const minute = "2006-01-02 15:04"

// replaced returns the newest snapshot of what a restore replaced, nil if there is none. err
// is of a newer one that cannot be read.
func replaced(st *store.Store, workload string) (found *store.Manifest, err error) {
	for m, loadErr := range st.All(workload) {
		switch {
		case loadErr != nil && err == nil:
			err = unusable(fault.Refused, workload, loadErr)
		case loadErr == nil && m.Reason == store.PreRestore && strings.HasPrefix(m.Note, store.BeforeRestore):
			return m, err
		}
	}
	return nil, err
}

// earlier is the way to undo the last restore that stayed, where one after it was rolled back.
func earlier(st *store.Store, workload string, runs []journal.Run) remedy.Remedy {
	var stayed string
	for _, r := range runs {
		if r.Live == journal.KeepNew {
			stayed = r.PreRestoreSID
		}
	}
	if _, err := st.Load(workload, stayed); err != nil {
		return remedy.Of(remedy.List(workload))
	}
	return remedy.Of("to undo the restore before that: ", remedy.Restore(workload, stayed))
}
