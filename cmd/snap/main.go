// Command snap captures the data directories of Docker workloads and puts them
// back.
package main

import (
	"os"

	"github.com/tiny-forge/snap/cmd/snap/process"
)

func main() {
	process.LimitGarbage()
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
