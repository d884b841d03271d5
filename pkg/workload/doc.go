// Package workload is the config: which workloads there are, what containers
// they want, and which host directory each of their volumes is.
//
// [Load] reads and checks the file. A [Config] does not change after that; volumes
// that are found later go into a copy of a workload ([Workload.WithVolumes]).
//
// A [Volume] is resolved from the config alone: its root is a directory that the
// operator named (base, or one of absolute_roots), and whoever opens its path
// below that root follows no symbolic link. Nothing in an archive or a manifest
// decides where data goes.
package workload
