package main

import (
	"context"
	_ "embed"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

//go:embed fill.sh
var fillScript []byte

// postgres makes a data directory with the machine's own PostgreSQL, else with
// that of the image of testdata/postgres. The rows are the same each time; what
// the server notes of the time and of itself is not.
func (b *bench) postgres(ctx context.Context, dir string) error {
	script := b.place.path("fill.sh")
	if err := os.WriteFile(script, fillScript, 0o755); err != nil {
		return err
	}
	defer os.Remove(script)
	fill := cmd("sh", script, dir, strconv.Itoa(b.plan.Scale))
	if !postgresHere() {
		if b.plan.Tiny {
			return errors.New("no PostgreSQL on this machine, and making an image of it takes minutes")
		}
		if !b.engine {
			return errors.New("no PostgreSQL on this machine, and no Docker engine for its image")
		}
		b.say("no PostgreSQL on this machine: making an image of it")
		tag, err := output(ctx, cmd(filepath.Join(b.source, "testdata/postgres/image.sh")))
		if err != nil {
			return err
		}
		mount := b.place.dir + ":" + b.place.dir
		fill.argv = append([]string{"docker", "run", "--rm", "--network", "none", "--volume", mount, "--entrypoint", "/bin/sh", tag}, fill.argv[1:]...)
	}
	_, err := run(ctx, fill)
	return err
}

func postgresHere() bool {
	programs, err := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench")
	users, uerr := os.ReadFile("/etc/passwd")
	return err == nil && uerr == nil && len(programs) > 0 && strings.Contains(string(users), "\npostgres:")
}
