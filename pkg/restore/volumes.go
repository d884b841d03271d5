package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// findVolumes gives the session a workload with its volumes. A recovery relies on its
// records, so neither the engine nor docker compose need answer.
func (s *session) findVolumes(ctx context.Context) error {
	w, mounts, err := s.withVolumes(ctx, s.rt, s.w)
	var unfit *workload.Error
	switch {
	case err == nil:
		s.w, s.mounts = w, mounts
	case (s.verb == "recover" || s.verb == "watchdog") && !errors.As(err, &unfit):
		s.say("notice: %v", err)
	case s.w.AsksEngine() || errors.As(err, &unfit): // else whoever needs the containers says so
		return err
	}
	return nil
}

// withVolumes returns a copy of a workload with its volumes: those that the config
// lists, or else those that its containers mount, each where the config and the engine
// say that it is.
func (e *Engine) withVolumes(ctx context.Context, rt runtime.Runtime, w *workload.Workload) (*workload.Workload, *runtime.Mounts, error) {
	mounts, err := rt.Volumes(ctx)
	if err != nil {
		return nil, nil, err
	}
	own, err := w.WithVolumes(e.Config, mounts.Places(), mounts.Root)
	if err != nil {
		return nil, nil, &workload.Error{Where: e.Config.Path + ": workload " + w.Name, Err: err,
			Hint: "add the folder to the config (`absolute_roots: [" + strings.Join(e.Config.RootsFor(mounts.Places()), ", ") + "]`), leave the volume alone with `exclude:`, or list the workload's volumes under `volumes:`"}
	}
	return own, mounts, nil
}

// goneOr returns failed, or that a volume is gone, which is why it failed.
func (r *restoration) goneOr(ctx context.Context, failed error) error {
	there := slices.DeleteFunc(r.plan.Chosen(), func(v *workload.Volume) bool { m := r.mounts.Volume(v.Name); return m == nil || m.Absent })
	gone := r.host().SamePlaces(ctx, there)
	if gone == nil || fault.Classify(gone).Code != "volume_gone" || fault.Classify(failed).Kind != fault.Failed || r.tx.Committed {
		return failed
	}
	return fmt.Errorf("%w: %w", gone, failed)
}

// vanished returns the named volumes of a transaction that somebody has removed, or
// removed and made anew: the engine names the place, and the wrapper is not there.
// Nothing is exchanged yet, so the other volumes can go back without them. Only the
// engine's word counts: a filesystem that is not mounted looks the same.
func (f *finish) vanished(ctx context.Context, tx *journal.Tx) (names []string) {
	without := swap.WithoutWrapper(tx)
	var now *runtime.Mounts
	if len(without) > 0 {
		now, _ = f.rt.Volumes(ctx) // without an answer nothing counts as removed
	}
	for _, v := range without {
		if now != nil && slices.ContainsFunc(now.Volumes, func(m runtime.Volume) bool { return m.Scope == workload.Named && m.Path() == v.Root+"/"+v.Rel }) {
			names = append(names, v.Name)
		}
	}
	return names
}

// unmake has the engine remove the volumes that a restore made, where it went back.
// They are empty, so one that stays does no harm.
func (f *finish) unmake(ctx context.Context) {
	for _, v := range f.x.Begin.Volumes {
		if v.EngineVolume == "" || f.offline || f.x.Goal().Keeps() == swap.New {
			continue
		}
		if err := f.rt.UnmakeVolume(ctx, v.EngineVolume, f.x.ID); err != nil {
			f.say("notice: the empty volume %s that the restore made is still there: %v", v.EngineVolume, err)
		}
	}
}
