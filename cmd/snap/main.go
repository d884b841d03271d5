// Command snap captures the data directories of Docker workloads and puts them
// back.
package main

import "os"

func main() {
	limitGarbage()
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
