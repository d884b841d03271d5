// Package workload is the config: which workloads there are, what containers
// they want, and which host directory each of their volumes is.
//
// [Load] reads and checks the file. A [Volume] is then resolved from the config
// alone: its root is a directory that the operator named (base, or one of
// absolute_roots) and its path below that root is followed without symbolic
// links by whoever opens it. The roots themselves are the operator's, and may be
// symbolic links. Nothing of an archive or a manifest has a say in where data
// goes.
package workload
