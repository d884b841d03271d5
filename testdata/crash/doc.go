// Package crash proves that nothing is lost and nothing ever mixed: it runs the
// real command on real filesystems, stops it before every system call that it
// makes on them, lets calls fail, cuts the power, and compares what recovery
// leaves with what had been acknowledged.
//
// `make crash` runs all of it and prints a table; `make test` runs a sample.
// docs/reliability.md has the figures, and says what is not covered.
//
// The world of a test is four filesystems (world_test.go): three volumes on
// ext4, xfs and btrfs, and the store. trace_test.go is the tracer: it sees the
// system calls of all threads in one order, which strace, counting for each
// thread on its own, does not. judge_test.go says what a run may leave behind.
package crash
