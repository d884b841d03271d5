package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// restic is restic with its defaults on a repository of this host: it encrypts,
// which cannot be turned off, and its cache lies on the same filesystem.
type restic struct {
	empty string // a new repository; making one takes seconds, copying it none
}

const whoRestic = "restic"

func (r *restic) names() (capture, restore string) { return whoRestic, whoRestic }

func (r *restic) incremental() bool { return true }

func (r *restic) command(repo string, args ...string) command {
	return cmd(append([]string{"restic", "--quiet"}, args...)...).
		with("RESTIC_REPOSITORY="+repo, "RESTIC_PASSWORD=bench", "RESTIC_CACHE_DIR="+repo+".cache")
}

func (r *restic) prepare(ctx context.Context, j job) error {
	if r.empty == "" {
		empty := filepath.Join(filepath.Dir(j.repo), "restic-empty")
		if _, err := run(ctx, r.command(empty, "init")); err != nil {
			return err
		}
		r.empty = empty
	}
	_, err := run(ctx, cmd("cp", "--archive", r.empty, j.repo))
	return err
}

// capture names the data ".", so that it comes back without the path above it.
func (r *restic) capture(ctx context.Context, j job) (cost, error) {
	return run(ctx, r.command(j.repo, "backup", ".").in(j.live))
}

func (r *restic) restore(ctx context.Context, j job) (cost, error) {
	if err := os.Mkdir(j.out, 0o755); err != nil {
		return cost{}, err
	}
	return run(ctx, r.command(j.repo, "restore", "latest", "--target", j.out))
}

// inPlace restores over what is there. Newer versions rewrite only what differs
// and delete what the snapshot lacks; the older write everything again.
func (r *restic) inPlace(ctx context.Context, repo, live string) (cost, error) {
	args := []string{"restore", "latest", "--target", live}
	if help, _ := output(ctx, cmd("restic", "restore", "--help")); strings.Contains(help, "--overwrite") {
		args = append(args, "--overwrite", "if-changed", "--delete")
	}
	return run(ctx, r.command(repo, args...))
}
