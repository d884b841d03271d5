package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// cost is what a run took.
type cost struct {
	seconds float64
	// peak is the largest resident size of a process, in MiB. The kernel carries
	// the number over an exec, so a program that needs less than this one does is
	// charged with as much.
	peak float64
}

// command is a program with what it starts, all of which ends with ctx.
func command(ctx context.Context, argv ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	return c
}

func have(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// run runs a command. An error has what the command printed to stderr.
func run(c *exec.Cmd) (cost, error) {
	var said bytes.Buffer
	c.Stderr = &said
	begin := time.Now()
	err := c.Run()
	used := cost{seconds: time.Since(begin).Seconds()}
	if c.ProcessState != nil {
		used.peak = float64(c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) / 1024 // KiB, by getrusage(2)
	}
	if err != nil {
		text := strings.TrimSpace(said.String())
		err = fmt.Errorf("%s: %w: %s", strings.Join(c.Args, " "), err, text[max(0, len(text)-2000):])
	}
	return used, err
}

// output runs a command and returns what it printed, without the last newline.
func output(c *exec.Cmd) (string, error) {
	var out bytes.Buffer
	c.Stdout = &out
	_, err := run(c)
	return strings.TrimRight(out.String(), "\n"), err
}

// turn is one contender's part of a round.
type turn struct {
	who   string
	every bool // it takes part in every round, because a target is about it
	run   func(round int) error
}

func (b *bench) inRounds(ctx context.Context, what string, rounds int, turns []turn) error {
	for round := range rounds {
		if err := b.round(ctx, what, round, turns); err != nil {
			return err
		}
	}
	return nil
}

// round lets the contenders take turns. Each round begins with another, so that
// what the machine does meanwhile falls on all of them. A peer that fails is
// noted and takes no further part; a failure of snap is an error.
func (b *bench) round(ctx context.Context, what string, round int, turns []turn) error {
	first := round % len(turns)
	for _, t := range slices.Concat(turns[first:], turns[:first]) {
		if b.leftOut[t.who] || round > 0 && !t.every {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := t.run(round); err != nil {
			err = fmt.Errorf("%s: %s: %w", what, t.who, err)
			if strings.HasPrefix(t.who, whoSnap) || ctx.Err() != nil {
				return err
			}
			b.note("%s was left out, because it failed: %v", t.who, err)
			b.leftOut[t.who] = true
		}
	}
	return nil
}

// mount makes the filesystem that is measured on: an ext4 with a journal in an
// image file below parent. The machine's own root filesystem may lack the
// journal, and others write to it. Each block of the image is written first,
// because a sparse file grows while it is written.
func (b *bench) mount(ctx context.Context, parent string) (err error) {
	if b.work, err = os.MkdirTemp(parent, "snap-bench-"); err != nil {
		return err
	}
	b.dir = filepath.Join(b.work, "mnt")
	// Containers and PostgreSQL go through the directory. Nothing is left for the
	// kernel to do in the background; many small files take more inodes than the
	// default.
	_, err = run(job{live: b.work}.script(ctx, fmt.Sprintf(`
		chmod 0755 "$live"; mkdir "$live/mnt"; dd if=/dev/zero of="$live/image" bs=1M count=%d conv=fsync
		mkfs.ext4 -q -F -m 0 -i 6144 -O has_journal -E lazy_itable_init=0,lazy_journal_init=0,nodiscard "$live/image"
		mount -o loop "$live/image" "$live/mnt"`, b.imageMiB)))
	if err != nil {
		err = errors.Join(err, os.RemoveAll(b.work))
	}
	return err
}

func (b *bench) unmount() error {
	// A process that is just ending may still be in it.
	if _, err := run(job{live: b.dir}.script(context.Background(), `for i in {1..50}; do ! umount "$live" || exit 0; sleep 0.1; done; exit 1`)); err != nil {
		return fmt.Errorf("%w: umount it, then remove %s", err, b.work)
	}
	return os.RemoveAll(b.work)
}

// settle makes the runs of a round alike. It reads the trees, so that they are
// in memory; it waits until nothing is left to be written, for which a sync in
// the next run would wait; and it touches memory for what that run will write.
func (b *bench) settle(ctx context.Context, write int64, trees ...string) error {
	for _, tree := range trees { // one may not exist: a contender without a cache
		if _, err := run(job{live: tree}.script(ctx, `! test -e "$live" || find "$live" -type f -print0 | xargs -0 -r -P 2 -n 500 cat`)); err != nil {
			return err
		}
	}
	// A virtual machine gives free memory back to its host, and getting it again is
	// slow. A kernel gives back huge pages (Linux, mm/page_reporting.c), so dd's
	// buffer must be made of those.
	_, err := run(job{}.script(ctx, fmt.Sprintf("sync; GLIBC_TUNABLES=glibc.malloc.hugetlb=1 dd if=/dev/zero of=/dev/null bs=%dM count=1", 1+write/mib*5/4)))
	return err
}

const mib = 1 << 20

// extent is what a tree amounts to.
type extent struct{ files, bytes int64 }

func measureTree(tree string) (e extent, err error) {
	err = filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			e.files++
			e.bytes += info.Size()
		}
		return err
	})
	return e, err
}
