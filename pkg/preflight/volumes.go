package preflight

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/catalog"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// choose puts the volumes that were asked for into the plan, all of them for none.
func (h *Host) choose(_ context.Context, p *Plan) error {
	wanted := map[*workload.Volume]bool{}
	for _, name := range p.req.Volumes {
		v, err := h.Workload.Volume(name)
		if err != nil {
			return fault.New(fault.Usage, "no_such_volume", remedy.Of(h.Workload.Meant(name)), "%w", err)
		}
		wanted[v] = true
	}
	for i := range h.Workload.Volumes {
		v := &h.Workload.Volumes[i]
		if p.captures && h.unmade(v.Name) {
			p.warn("volume %s does not exist, and no container that mounts it was made: it is not in the snapshot", v.Name)
			continue
		}
		if len(p.req.Volumes) == 0 || wanted[v] {
			p.Volumes = append(p.Volumes, &Volume{Name: v.Name, Scope: string(v.Scope), Source: v.Source, Path: v.Path(), Config: v})
		}
	}
	if len(p.Volumes) == 0 {
		return fault.Refuse("no_volumes", remedy.Of("give the workload volumes in the config"), "workload %s has no volumes", h.Workload.Name)
	}
	return nil
}

// match finds the chosen volumes in the snapshot. Where data goes the current config
// alone says, so what the snapshot has and the config lacks is refused.
func (h *Host) match(ctx context.Context, p *Plan) error {
	var err error
	if p.manifest, err = catalog.Load(h.Store, fault.Refused, h.Workload.Name, p.SID); err != nil {
		return err
	}
	pairs, err := h.pair(p)
	if err != nil {
		return err
	}
	p.Volumes = slices.DeleteFunc(p.Volumes, func(v *Volume) bool {
		return len(p.req.Volumes) == 0 && h.unmade(v.Name) && pairs[v.Name] == nil
	})
	for _, v := range p.Volumes {
		if err := h.matchOne(ctx, p, v, pairs[v.Name]); err != nil {
			return err
		}
	}
	return nil
}

// unmade reports whether nothing has made a volume yet. A snapshot cannot have it, and a
// restore of a snapshot that lacks it leaves it so.
func (h *Host) unmade(name string) bool {
	found := h.Mounts.Volume(name)
	return found != nil && found.Unmade
}

func (h *Host) matchOne(ctx context.Context, p *Plan, v *Volume, m *store.Volume) error {
	if m == nil {
		return fault.Refuse("volume_missing", remedy.Of("choose volumes with --volume, or restore a snapshot that has it; of a volume that had another name, --map says which it was"),
			"the snapshot lacks volume %q (scope %s, source %q) of workload %s", v.Name, v.Scope, v.Source, h.Workload.Name)
	}
	if own := filepath.Base(v.Source); m.Kind == store.File && filepath.Base(m.Source) != own {
		return fault.Refuse("file_renamed", remedy.Of("give the file its old name for the restore, or put it into a directory: ", remedy.RestoreTo(h.Workload.Name, p.SID)),
			"volume %q: the snapshot has the file %q, and here it is %q", v.Name, filepath.Base(m.Source), own)
	}
	if m.Specials > 0 && v.Config.Special == workload.RefuseSpecial {
		return fault.Refuse("special_files", remedy.Of("set `special: skip` for the volume in the config, to leave them out, or `special: keep`"),
			"volume %q: the snapshot holds %d fifos and devices", v.Name, m.Specials)
	}
	if err := catalog.Complete(ctx, h.Store, p.manifest, v.Name, m.Members); err != nil {
		return err
	}
	v.Stored, v.From, v.Kind, v.Files, v.Bytes = m, m.Name, m.Kind, m.Files, m.Bytes
	return nil
}

// directories opens the live directories and refuses what could not be exchanged.
func (h *Host) directories(_ context.Context, p *Plan) error {
	opened, err := h.Open(p.Chosen())
	for i, o := range opened {
		p.Volumes[i].Opened = o
	}
	if err != nil {
		return err
	}
	mounts, err := disk.ReadMounts()
	if err != nil {
		return err
	}
	for _, v := range p.Volumes {
		if err := p.fits(v, mounts); err != nil {
			return err
		}
		v.Exists = v.Opened.Live != nil
		switch {
		case v.Exists:
		case p.captures:
			return h.absent(v.Opened)
		default:
			p.warn("volume %s: %s does not exist and will be created", v.Name, v.Path)
		}
	}
	return nil
}

// fits refuses a volume that could not be exchanged. A mount point can still be
// captured and exported, and its data must not be without a copy until somebody mounts
// it elsewhere.
func (p *Plan) fits(v *Volume, mounts disk.Mounts) error {
	if !p.captures {
		if err := v.Opened.Expect(v.Kind == store.File); err != nil {
			return err
		}
	}
	err := v.Opened.Fit(mounts)
	var unfit *swap.Unfit
	if p.captures && errors.As(err, &unfit) && unfit.Code == "mount_point" {
		v.unfit = true
		p.warn("%v, so this snapshot cannot be restored in place yet: %s", err, unfit.Hint)
		return nil
	}
	if errors.As(err, &unfit) && unfit.Code == "mount_point" {
		return fault.Refuse(unfit.Code, remedy.Of(unfit.Hint+": ", remedy.RestoreTo(p.Workload, p.SID)), "%w", err)
	}
	return err
}

func (h *Host) absent(v *swap.Volume) error {
	way := remedy.Of("make it (", remedy.Operation{Verb: remedy.DoDeploy, Workload: h.Workload.Name}, " does), or correct the config")
	switch {
	case h.Workload.Kind() == workload.Data && v.EngineVolume != "":
		way = remedy.Of("docker volume create " + v.EngineVolume + " (a restore also makes it), or correct the config")
	case h.Workload.Kind() == workload.Data:
		way = remedy.Of("make the directory (mkdir -p " + remedy.Quote(v.Path()) + "; a restore also makes it), or correct the config")
	}
	return fault.Refuse("volume_absent", way, "volume %s: %s does not exist", v.Name, v.Path())
}

// live walks the live data, by stat alone, to find before anything is staged what the
// pre-restore snapshot could not hold.
func (h *Host) live(ctx context.Context, p *Plan) error {
	for _, v := range p.Volumes {
		if v.Opened.Live == nil {
			continue
		}
		found, err := archive.Survey(ctx, v.Opened.Live, snapshot.WriteOptions(v.Config))
		var locked *archive.Locked
		if errors.As(err, &locked) {
			hint := "chattr -i -a " + remedy.Quote(v.Path+"/"+locked.Name)
			if locked.More > 0 {
				hint = "chattr -R -i -a " + remedy.Quote(v.Path) + " (lsattr -R shows them)"
			}
			return fault.Refuse("immutable", remedy.Of(hint), "volume %s: %w", v.Name, err)
		}
		if err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
		v.LiveFiles, v.LiveBytes = found.Files, found.Bytes
		v.LiveExcludedFiles, v.LiveExcludedBytes = found.ExcludedFiles, found.ExcludedBytes
		if found.ExcludedFiles > 0 {
			p.warn("volume %s: the config excludes %d files (%d bytes) of the live data: they will be in no snapshot, and the restore deletes them",
				v.Name, found.ExcludedFiles, found.ExcludedBytes)
		}
		list, warnings := snapshot.NotKeptOf(v.Name, found.Lost)
		p.NotKept = append(p.NotKept, list...)
		p.Warnings = append(p.Warnings, warnings...)
	}
	return nil
}

// mounted warns of volumes that no container mounts.
func (p *Plan) mounted() {
	for _, v := range p.Volumes {
		if !slices.ContainsFunc(p.Containers, func(c runtime.Container) bool {
			return slices.ContainsFunc(c.Mounts, func(m runtime.Mount) bool { return v.Opened.Below(m.Source) })
		}) {
			p.warn("volume %s: no container mounts %s now; its service has no container, or the config has changed since they were deployed", v.Name, v.Path)
		}
	}
}
