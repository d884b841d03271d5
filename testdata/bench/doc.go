// Command bench measures snap beside what operators use today, from outside:
// the built program with a config file and --json, each peer by its own command
// line. "make bench" runs it; docs/performance.md shows what it found.
//
// One run makes its data sets from fixed seeds on a journaled ext4 of its own,
// and lets the contenders take turns: before each run the data is read again
// and everything is synced. What it measures is a list of numbers (report.go);
// the tables, the verdicts on the targets (targets.go) and the picture are made
// from that list alone, so that -from can make them again.
//
//	main.go       flags, and the order of things
//	plan.go       how big, how often, which parts
//	place.go      the filesystem that is measured on
//	run.go        a command and what it cost
//	dataset.go    the data sets; postgres.go, text.go, change.go
//	contender.go  what a way to keep data has to do; snap.go, tar.go, restic.go, borg.go, kopia.go
//	rounds.go     taking turns
//	throughput.go capture, capture again, restore
//	app.go        the container, and who watches whether it answers
//	downtime.go   how long that is down; methods.go: the ways to bring data back
//	report.go     the numbers; targets.go, peers.go, table.go, picture.go, page.go
package main
