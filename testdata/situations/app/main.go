// Command app is what the containers of the situations run. It knows as much of
// being an app as a situation needs, and its data is /data.
//
//	app              run until SIGTERM
//	app fragile      the same, but end with 1 where /data/broken exists
//	app exit CODE    end at once with this code
//	app check        the health check: fails until the app is ready
//
// SCHEMA is the release of the app. Where /data/schema has an older one, the app
// migrates it at its start; where it has a newer one, the app ends with 1. DELAY is
// how long the app takes to become ready, "3s".
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	broken = "/data/broken"
	schema = "/data/schema"
	ready  = "/tmp/ready"
)

func main() {
	log.SetFlags(0)
	code, err := run(os.Args[1:])
	if err != nil {
		log.Fatal("app: ", err)
	}
	os.Exit(code)
}

func run(args []string) (int, error) {
	switch {
	case len(args) == 0:
		return 0, serve()
	case args[0] == "fragile" && len(args) == 1:
		if _, err := os.Stat(broken); !errors.Is(err, fs.ErrNotExist) {
			return 1, fmt.Errorf("%s is there (%v)", broken, err)
		}
		return 0, serve()
	case args[0] == "exit" && len(args) == 2:
		return strconv.Atoi(args[1])
	case args[0] == "check" && len(args) == 1:
		_, err := os.Stat(ready)
		return 0, err
	}
	return 1, errors.New("usage: app [fragile | exit CODE | check]")
}

// serve runs until SIGTERM. It handles the signal because process 1 of a container
// has no default action for it.
func serve() error {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGINT)
	if err := os.RemoveAll(ready); err != nil { // of the container's last run
		return err
	}
	if err := migrate(os.Getenv("SCHEMA")); err != nil {
		return err
	}
	if text := os.Getenv("DELAY"); text != "" {
		delay, err := time.ParseDuration(text)
		if err != nil {
			return err
		}
		select {
		case <-term:
			return nil
		case <-time.After(delay):
		}
	}
	if err := os.WriteFile(ready, nil, 0o644); err != nil {
		return err
	}
	<-term
	return nil
}

func migrate(own string) error {
	text, err := os.ReadFile(schema)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	switch found := strings.TrimSpace(string(text)); {
	case found > own:
		return fmt.Errorf("%s is of release %s, and this is release %s", schema, found, own)
	case found == own: // its time stays too
		return nil
	}
	return os.WriteFile(schema, []byte(own+"\n"), 0o644)
}
