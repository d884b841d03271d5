// Command writer is what the services of a project run, see project_test.go.
//
//	writer NAME DIR...  every 100 ms append a line with NAME and the time to the file
//	                    log of each directory, and print that line once all have it
//	writer check        the health check: fails until a line has been printed
package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"
)

const begun = "/tmp/begun"

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:]); err != nil {
		log.Fatal("writer: ", err)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "check":
		_, err := os.Stat(begun)
		return err
	case len(args) < 2:
		return errors.New("usage: writer NAME DIR... | writer check")
	}
	if err := os.RemoveAll(begun); err != nil { // of the container's last run
		return err
	}
	for ; ; time.Sleep(100 * time.Millisecond) {
		line := fmt.Sprintln(args[0], time.Now().UnixNano())
		if err := appendTo(args[1:], line); err != nil { // the test fills the volume just now
			continue
		}
		fmt.Print(line)
		if err := os.WriteFile(begun, nil, 0o644); err != nil {
			return err
		}
	}
}

// appendTo appends a line to each log, of which it makes none.
func appendTo(dirs []string, line string) error {
	for _, dir := range dirs {
		f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(line)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
