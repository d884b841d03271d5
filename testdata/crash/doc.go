// Package crash proves that data is never lost and never mixed. It runs the real
// command on real filesystems, kills it before each of its system calls there,
// makes calls fail, and cuts the power. Then it recovers, and compares the result
// with what snap had acknowledged.
//
// `make crash` runs all of it and prints a table; `make test` runs a sample.
// docs/reliability.md has the figures and says what is not covered.
//
// The world of a test is four filesystems (world_test.go): three volumes on
// ext4, xfs and btrfs, and the store. That of project_test.go is a Compose project,
// which is up and writes. trace_test.go has the tracer, which sees the system calls of
// all threads in one order; strace counts them for each thread separately.
// judge_test.go decides what a run may leave.
package crash
