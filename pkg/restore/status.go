package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/workload"
)

// WorkloadStatus is what can be seen of one workload.
type WorkloadStatus struct {
	Workload   string
	State      string // running, partly running, paused, stopped, absent, data, unknown; or pending, frozen
	LastSID    string
	Containers []Container
	Pending    *PendingTx
	Problems   []string
}

// PendingTx is a transaction that has not ended.
type PendingTx struct {
	Tx      string
	Kind    string
	Found   string   // its last record
	Active  bool     // its process lives
	Frozen  bool     // recovery would not touch it
	Message string   // in plain words
	Volumes []string // what was seen of each volume
}

// Status tells how a workload is; of all when name is empty. It changes nothing.
func (e *Engine) Status(ctx context.Context, name string) ([]WorkloadStatus, error) {
	names := []string{name}
	if name == "" {
		names = e.Config.Names()
	} else if _, err := e.Config.Workload(name); err != nil {
		return nil, err
	}
	txs, problems, err := e.pending()
	if err != nil {
		return nil, classify(err)
	}
	list := []WorkloadStatus{}
	for _, name := range names {
		st := e.status(ctx, name)
		st.Problems = append(st.Problems, problems...)
		if p := txs[name]; p != nil {
			st.Pending, st.State = p, "pending"
			if p.Frozen {
				st.State = "frozen"
			}
		}
		list = append(list, st)
	}
	return list, nil
}

func (e *Engine) status(ctx context.Context, name string) WorkloadStatus {
	st := WorkloadStatus{Workload: name, State: "unknown", Containers: []Container{}}
	snapshots, bad, err := e.Store.List(name)
	for _, err := range append(bad, err) {
		if err != nil {
			st.Problems = append(st.Problems, err.Error())
		}
	}
	if len(snapshots) > 0 {
		st.LastSID = snapshots[0].SID
	}
	s, err := e.lookup(ctx, "status", name)
	if err != nil {
		st.Problems = append(st.Problems, err.Error())
		return st
	}
	defer s.close()
	if s.w.Kind() == workload.Data {
		st.State = "data"
		return st
	}
	list, err := s.rt.Containers(ctx)
	if err != nil {
		st.Problems = append(st.Problems, err.Error())
		return st
	}
	st.Containers = append(st.Containers, list...)
	st.State = appState(list)
	return st
}

func appState(list []Container) string {
	running, paused, all := 0, 0, 0
	for _, c := range list {
		if c.Also {
			continue
		}
		all++
		switch {
		case c.Paused:
			paused++
		case c.Running:
			running++
		}
	}
	switch {
	case all == 0:
		return "absent"
	case running == all:
		return "running"
	case paused > 0:
		return "paused"
	case running > 0:
		return "partly running"
	}
	return "stopped"
}

// pending returns the transactions that have not ended, by workload, and what
// cannot be attributed to one.
func (e *Engine) pending() (map[string]*PendingTx, []string, error) {
	ids, err := e.Journal.List()
	if err != nil {
		return nil, nil, err
	}
	strangers, err := e.Journal.Strangers()
	if err != nil {
		return nil, nil, err
	}
	var problems []string
	for _, name := range strangers {
		problems = append(problems, fmt.Sprintf("%q in the store's tx folder is not snap's", name))
	}
	out := map[string]*PendingTx{}
	for _, id := range ids {
		tx, err := e.Journal.Load(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("transaction %s cannot be read and is left alone: %v", id, err))
			continue
		}
		if out[tx.Begin.Workload] == nil {
			out[tx.Begin.Workload] = e.describe(tx)
		}
		tx.Close()
	}
	return out, problems, nil
}

func (e *Engine) describe(tx *journal.Tx) *PendingTx {
	p := &PendingTx{Tx: tx.ID, Kind: string(tx.Begin.Kind), Found: tx.Found()}
	held, err := e.Journal.Lock(tx.Begin.Workload, "status")
	if errors.Is(err, journal.ErrBusy) {
		p.Active = true
		p.Message = fmt.Sprintf("a %s is under way (%v)", p.Kind, err)
		return p
	}
	if err == nil {
		held.Release()
	}
	p.Message = fmt.Sprintf("a %s of %s was interrupted; `snap recover %s` finishes or undoes it",
		p.Kind, tx.Begin.Created.Format("2006-01-02 15:04:05 MST"), tx.Begin.Workload)
	if tx.Begin.Kind != journal.Restore || tx.ReadyRecord == nil {
		return p
	}
	x, err := e.openTxn(tx)
	if err != nil {
		p.Frozen, p.Message = true, fmt.Sprintf("its directories cannot be opened: %v", err)
		return p
	}
	defer x.close()
	_, seen, err := x.decide()
	for i, sight := range seen {
		p.Volumes = append(p.Volumes, fmt.Sprintf("%s (%s): %s", x.sites[i].Name, x.sites[i].path(), sight))
	}
	if err != nil {
		p.Frozen, p.Message = true, err.Error()
	}
	return p
}
