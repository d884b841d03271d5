// Package retain decides which snapshots of a workload stay. It only decides: whoever
// asks deletes the others.
//
// Words and meanings are restic's, since operators know them. A rule for hours, days,
// weeks, months or years keeps the newest snapshot of each of the last n of those in
// which there is one, by the local calendar. A snapshot stays if any rule keeps it.
//
// Snapshots that restores made do not count among the others, so that a restore does not
// push a nightly out. They stay for a time of their own.
package retain
