package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/crew"
	"github.com/tiny-forge/snap/pkg/store"
)

// Request is what is to be verified.
type Request struct {
	Workload string  // "": all of the store
	SID      string  // "": all of the workload
	Data     float64 // the part of the members that is read, 0 to 1
	// Suspect were found damaged before, and are read in any case.
	Suspect []store.MemberKey
	// Progress is told how many bytes of how many were read. It may be nil.
	Progress func(done, total int64)
}

// Report is what was found.
type Report struct {
	Snapshots int
	Members   int   // distinct ones
	Stored    int64 // their bytes
	Read      int64 // bytes of those that were read
	Problems  []Problem
	Repaired  []Problem        // what was one until [Report.Healed] was told
	Bad       []archive.Member // which are missing or damaged, each once

	of *verification
}

// bad is a way in which a member can be bad.
type bad string

// The ways in which a member can be bad.
const (
	missing  bad = "are missing"
	damaged  bad = "are damaged"
	replaced bad = "have something in their place that is not a file"

	wasMissing bad = "were missing"
	wasDamaged bad = "were damaged"
)

type verification struct {
	store    *store.Store
	req      Request
	from     store.Turn // of what is read, where that is a part
	list     []snapshot
	seen     map[store.MemberKey]bool
	suspect  map[store.MemberKey]bool
	bad      map[store.MemberKey]bad
	due      []archive.Member // to be read
	dueBytes int64
	report   Report
	general  []Problem // of snapshots as a whole
}

// Run verifies. What is damaged is in the report; an error says that not everything
// could be looked at. The error wraps fs.ErrNotExist for a snapshot that is not there.
func Run(ctx context.Context, st *store.Store, req Request) (*Report, error) {
	v := &verification{
		store: st, req: req, from: store.Turn(rand.Uint64()),
		seen: map[store.MemberKey]bool{}, suspect: map[store.MemberKey]bool{}, bad: map[store.MemberKey]bad{},
	}
	v.report.of = v
	for _, k := range req.Suspect {
		v.suspect[k] = true
	}
	var err error
	if v.list, err = v.snapshots(); err != nil {
		return nil, err
	}
	for _, s := range v.list {
		if err := v.look(ctx, s); err != nil {
			return nil, err
		}
	}
	if err := v.read(ctx); err != nil {
		return nil, err
	}
	v.tellAll()
	return &v.report, nil
}

// tellAll fills in the problems.
func (v *verification) tellAll() {
	v.report.Problems, v.report.Repaired = slices.Clone(v.general), nil
	if len(v.report.Bad) == 0 {
		return
	}
	for _, s := range v.list {
		if m, err := v.store.Load(s.workload, s.sid); err == nil {
			v.report.Problems = append(v.report.Problems, v.tell(m, v.bad)...)
		}
	}
}

// Looked reports whether the run has looked at a member, and so knows how it is, or
// whether it has looked at everything and nothing names the member.
func (r *Report) Looked(k store.MemberKey) bool {
	return r.of.seen[k] || r.of.req.Workload == "" && len(r.of.general) == 0
}

// Healed tells the report which members were stored anew and read whole since. Their
// problems move to Repaired.
func (r *Report) Healed(list []archive.Member) {
	v := r.of
	healed := map[store.MemberKey]bad{}
	for _, m := range list {
		k := store.KeyOf(m)
		healed[k] = wasDamaged
		if v.bad[k] == missing {
			healed[k] = wasMissing
		}
		delete(v.bad, k)
	}
	r.Bad = slices.DeleteFunc(r.Bad, func(m archive.Member) bool { return v.bad[store.KeyOf(m)] == "" })
	v.tellAll()
	for _, s := range v.list {
		if m, err := v.store.Load(s.workload, s.sid); err == nil {
			r.Repaired = append(r.Repaired, v.tell(m, healed)...)
		}
	}
}

type snapshot struct{ workload, sid string }

// snapshots returns what is to be verified.
func (v *verification) snapshots() ([]snapshot, error) {
	names := []string{v.req.Workload}
	if v.req.Workload == "" {
		var err error
		if names, err = v.store.Workloads(); err != nil {
			return nil, err
		}
	}
	var list []snapshot
	for _, name := range names {
		sids, err := v.store.SIDs(name)
		if err != nil {
			return nil, err
		}
		for _, sid := range sids {
			if v.req.SID == "" || v.req.SID == sid {
				list = append(list, snapshot{name, sid})
			}
		}
	}
	if v.req.SID != "" && len(list) == 0 {
		return nil, fmt.Errorf("there is no snapshot %s of workload %s: %w", v.req.SID, v.req.Workload, fs.ErrNotExist)
	}
	return list, nil
}

// look looks at a snapshot without reading its members.
func (v *verification) look(ctx context.Context, s snapshot) error {
	m, err := v.store.Load(s.workload, s.sid)
	if errors.Is(err, fs.ErrNotExist) && v.req.SID == "" {
		return nil // it was never published
	}
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	v.report.Snapshots++
	if err != nil {
		v.problem(s, "%v; so it cannot be restored, and while it is there nothing is pruned", err)
		return nil
	}
	if err := v.readIndex(m); err != nil {
		v.problem(s, "its index is damaged, so the next capture may read everything; the data is not hit: %v", err)
	}
	if err := v.readKept(m); err != nil {
		v.problem(s, "the config that it keeps is damaged; the data is not hit: %v", err)
	}
	if err := v.store.CheckSummary(m); err != nil {
		v.problem(s, "its summary.json cannot be used, which hits no data; remove that file: %v", err)
	}
	for i := range m.Volumes {
		if err := v.members(ctx, m.Volumes[i].Members); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (v *verification) problem(s snapshot, format string, args ...any) {
	v.general = append(v.general, Problem{Workload: s.workload, SID: s.sid, What: fmt.Sprintf(format, args...), Paths: []string{}})
}

// members looks whether members are there, each once, and chooses what is read. One
// with another length is read in any case, since another version of the compressor may
// have stored it, and so is one that was damaged before.
func (v *verification) members(ctx context.Context, list []archive.Member) error {
	var fresh []archive.Member
	for _, m := range list {
		if k := store.KeyOf(m); !v.seen[k] {
			v.seen[k] = true
			fresh = append(fresh, m)
		}
	}
	sizes, err := v.store.Look(ctx, fresh)
	if err != nil {
		return err
	}
	part := store.Scrub{From: v.from, Share: v.req.Data}
	for i, m := range fresh {
		k := store.KeyOf(m)
		v.report.Members++
		v.report.Stored += max(sizes[i], 0)
		switch {
		case sizes[i] == 0:
			v.found(m, missing)
		case sizes[i] == store.Replaced:
			v.found(m, replaced)
		case sizes[i] != m.Stored, v.suspect[k], part.Due(m.ID):
			v.due = append(v.due, m)
			v.dueBytes += sizes[i]
		}
	}
	return nil
}

func (v *verification) found(m archive.Member, why bad) {
	v.bad[store.KeyOf(m)] = why
	v.report.Bad = append(v.report.Bad, m)
}

// read reads the chosen members, several at a time.
func (v *verification) read(ctx context.Context) error {
	var mu sync.Mutex
	var done atomic.Int64
	err := crew.Each(ctx, v.due, func(ctx context.Context, m archive.Member) error {
		err := archive.Check(ctx, v.store, m)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			mu.Lock()
			v.found(m, damaged)
			mu.Unlock()
		}
		if n := done.Add(m.Stored); v.req.Progress != nil {
			v.req.Progress(min(n, v.dueBytes), v.dueBytes)
		}
		return nil
	})
	v.report.Read = done.Load()
	return err
}
