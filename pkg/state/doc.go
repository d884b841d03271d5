// Package state owns the state directory of a host: the journal, the locks and
// the audit log (pkg/journal), the list of the stores that the host has seen, and
// two hints: how far captures have read them again, and what of them is damaged.
//
// Call [Open], then [State.Store] for the store that the config names. The
// state lies on a filesystem that is mounted at boot, so that a recovery can
// decide while the store is not there. There is one state for a host: two
// processes with different states do not see each other's locks.
package state
