// Command snap captures the data directories of Docker workloads and puts them
// back.
package main

import (
	"os"
	"runtime/debug"
)

// gcPercent keeps snap small beside the app it serves. What it has in memory is
// mostly buffers, which cost the collector nothing: at 100 a restore takes 12 MiB
// more, and a hundredth of its time less.
const gcPercent = 75

// memoryLimit is where the collector no longer waits for the heap to have grown
// by gcPercent: garbage may come in pieces of 100 MiB, as the windows of the
// frames of a foreign archive do. It is no bound of what snap may have: what is
// in use stays.
const memoryLimit = 256 << 20

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
