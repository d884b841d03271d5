// Package process is what snap changes of its own process, and how it reads its input: the
// priority, the garbage collector's limits, the environment. The engine changes none of it.
package process

import (
	"os"
	"runtime/debug"

	"github.com/tiny-forge/snap/pkg/runtime"
)

const (
	// gcPercent keeps snap small beside the app that it serves: at 100 a restore
	// takes 12 MiB more, and 1 % less time.
	gcPercent = 75
	// importMemory is the heap size from which on the collector does not wait for
	// gcPercent while snap reads a foreign archive: the windows of its frames may
	// take 100 MiB each, and are garbage soon. In other commands much memory is in
	// use, for a snapshot of terabytes, and the collector would only be kept busy.
	importMemory = 256 << 20
)

// LimitGarbage sets how much garbage may gather, unless GOGC says it.
func LimitGarbage() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// LimitImportMemory sets how much memory an import may take, unless GOMEMLIMIT says it.
func LimitImportMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(importMemory)
	}
}

// MarkCommands marks the commands that snap runs from now on with the transaction. By this
// mark the watchdog finds those that a dead snap left running.
func MarkCommands(tx string) error { return os.Setenv(runtime.Mark, tx) }

// UnmarkCommands ends that.
func UnmarkCommands() { _ = os.Unsetenv(runtime.Mark) } // fails for no valid name
