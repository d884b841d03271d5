package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
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
}

// The two ways in which a member can be bad.
const (
	missing = "are missing"
	damaged = "are damaged"
)

type verification struct {
	store    *store.Store
	req      Request
	from     store.Turn // of what is read, where that is a part
	seen     map[store.MemberKey]bool
	bad      map[store.MemberKey]string
	due      []archive.Member // to be read
	dueBytes int64
	report   Report
	problems []Problem
}

// Run verifies. What is damaged is in the report; an error says that not everything
// could be looked at. The error wraps fs.ErrNotExist for a snapshot that is not there.
func Run(ctx context.Context, st *store.Store, req Request) (*Report, error) {
	v := &verification{store: st, req: req, from: store.Turn(rand.Uint64()), seen: map[store.MemberKey]bool{}, bad: map[store.MemberKey]string{}}
	list, err := v.snapshots()
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		if err := v.look(ctx, s); err != nil {
			return nil, err
		}
	}
	if err := v.read(ctx); err != nil {
		return nil, err
	}
	if len(v.bad) > 0 {
		for _, s := range list {
			if m, err := st.Load(s.workload, s.sid); err == nil {
				v.tell(m)
			}
		}
	}
	v.report.Problems = v.problems
	return &v.report, nil
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
		v.problem(s, "%v", err)
		return nil
	}
	if err := v.readIndex(m); err != nil {
		v.problem(s, "its index is damaged, so the next capture may read everything; the data is not hit: %v", err)
	}
	if err := v.readKept(m); err != nil {
		v.problem(s, "the config that it keeps is damaged; the data is not hit: %v", err)
	}
	for i := range m.Volumes {
		if err := v.members(ctx, m.Volumes[i].Members); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (v *verification) problem(s snapshot, format string, args ...any) {
	v.problems = append(v.problems, Problem{Workload: s.workload, SID: s.sid, What: fmt.Sprintf(format, args...), Paths: []string{}})
}

// members looks whether members are there, each once, and chooses what is read. One
// with another length is read in any case: another version of the compressor may
// have stored it.
func (v *verification) members(ctx context.Context, list []archive.Member) error {
	var fresh []archive.Member
	for _, m := range list {
		if k := store.KeyOf(m); !v.seen[k] {
			v.seen[k] = true
			fresh = append(fresh, m)
		}
	}
	sizes, err := v.store.Sizes(ctx, fresh)
	if err != nil {
		return err
	}
	part := store.Scrub{From: v.from, Share: v.req.Data}
	for i, m := range fresh {
		v.report.Members++
		v.report.Stored += sizes[i]
		switch {
		case sizes[i] == 0:
			v.bad[store.KeyOf(m)] = missing
		case sizes[i] != m.Stored, part.Due(m.ID):
			v.due = append(v.due, m)
			v.dueBytes += sizes[i]
		}
	}
	return nil
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
			v.bad[store.KeyOf(m)] = damaged
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
