package main

import (
	"os"
	"runtime/debug"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// What belongs to the whole process is set here: the garbage collector's limits
// and the environment. The packages below change neither.

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

func limitGarbage() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

func limitImportMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(importMemory)
	}
}

// The commands that snap runs while a watchdog stands by are marked with the transaction.
// By this mark the watchdog finds those that a dead snap left running.

func markCommands(tx string) error { return os.Setenv(runtime.Mark, tx) }
func unmarkCommands()              { _ = os.Unsetenv(runtime.Mark) } // fails for no valid name
