package swap

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
)

// Probe tries a real exchange for each volume, in a wrapper that a transaction
// records, so that a crash leaves nothing unnamed. What is exchanged has the
// properties of the live directory, and lies in a directory with those of its
// parent: a filesystem may refuse one project and not another. begin opens that
// transaction. The first error is that of the exchange, and is [*Unfit] where these
// directories can never be exchanged; the second says that the probe could not be
// cleared away.
func Probe(volumes []*Volume, begin func(*journal.Begin) (*journal.Tx, error)) (failed, uncleared error) {
	record := &journal.Begin{Kind: journal.Probe}
	probed := map[trial]bool{}
	var trials []trial
	for _, v := range volumes {
		if v.EngineVolume != "" { // the folder around it is the engine's
			continue
		}
		t, err := v.trial()
		if err != nil {
			return err, nil
		}
		if probed[t] {
			continue
		}
		probed[t] = true
		trials = append(trials, t)
		record.Volumes = append(record.Volumes, journal.Volume{Name: v.Name, Root: v.Root, Rel: v.nearestRel(), Entry: "probe"})
	}
	if len(record.Volumes) == 0 {
		return nil, nil
	}
	tx, err := begin(record)
	if err != nil {
		return err, nil
	}
	x, err := Open(tx, true, nil) // its points are not a restore's
	if err != nil {
		return errors.Join(err, tx.Close()), nil
	}
	defer x.CloseVolumes()
	for i, v := range x.Volumes {
		if failed = v.probe(trials[i]); failed != nil {
			break
		}
	}
	return failed, x.Discard()
}

// trial is what the outcome of a probe depends on.
type trial struct {
	filesystem   disk.FSID
	parent, live disk.Properties
}

func (v *Volume) trial() (t trial, err error) {
	if t.filesystem, err = v.Nearest().Filesystem(); err != nil {
		return t, err
	}
	if t.parent, err = v.Nearest().Properties(); err != nil {
		return t, err
	}
	t.parent.Subvolume, t.parent.Label = false, "" // no rename depends on them
	if v.Live != nil {
		t.live, err = v.Live.Properties()
	}
	if v.File { // directories stand for it in the trial
		t.live = t.live.OnlyProject()
	}
	return t, err
}

func (v *Volume) probe(t trial) error {
	wrapper, err := v.makeWrapper()
	if err != nil {
		return err
	}
	defer wrapper.Close()
	err = wrapper.ProbeExchange(t.parent, t.live)
	if errors.Is(err, unix.EXDEV) {
		return v.unfit("project_id", fmt.Sprintf("chattr -P %s, so that it takes directories of every project, or give both one project (chattr -p)", remedy.Quote(v.parent.Path())),
			"%s has project id %d, and its parent directory admits only project %d: %w", v.Path(), t.live.Project, t.parent.Project, err)
	}
	return err
}
