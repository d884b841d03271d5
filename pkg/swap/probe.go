package swap

import (
	"errors"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
)

// Probe tries a real exchange on each filesystem of the volumes, in a wrapper that
// a transaction records, so that a crash leaves nothing unnamed. begin opens that
// transaction. The first error is that of the exchange, and wraps
// [disk.ErrNoExchange] where the filesystem cannot; the second says that the probe
// could not be cleared away.
func Probe(volumes []*Volume, begin func(*journal.Begin) (*journal.Tx, error)) (failed, uncleared error) {
	record := &journal.Begin{Kind: journal.Probe}
	probed := map[disk.FSID]bool{}
	for _, v := range volumes {
		id, err := v.Nearest().Filesystem()
		if err != nil {
			return err, nil
		}
		if probed[id] {
			continue
		}
		probed[id] = true
		record.Volumes = append(record.Volumes, journal.Volume{Name: v.Name, Root: v.Root, Rel: v.nearestRel(), Entry: "probe"})
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
	for _, v := range x.Volumes {
		if failed = v.probe(); failed != nil {
			break
		}
	}
	return failed, x.Discard()
}

func (v *Volume) probe() error {
	wrapper, err := v.parent.MakePrivate(v.wrapper)
	if err != nil {
		return err
	}
	defer wrapper.Close()
	return wrapper.ProbeExchange()
}
