package main

import (
	"context"
	"fmt"
	"os"
)

// borg is borg with its defaults on a repository without encryption, which is
// its fastest.
type borg struct{ archives int }

func (o *borg) names() (capture, restore string) { return "borg", "borg" }

func (o *borg) incremental() bool { return true }

func (o *borg) command(j job, args ...string) command {
	return cmd(append([]string{"borg"}, args...)...).
		with("BORG_BASE_DIR="+j.repo+".home", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes", "BORG_RELOCATED_REPO_ACCESS_IS_OK=yes")
}

func (o *borg) prepare(ctx context.Context, j job) error {
	_, err := run(ctx, o.command(j, "init", "--encryption=none", j.repo))
	return err
}

func (o *borg) capture(ctx context.Context, j job) (cost, error) {
	o.archives++
	return run(ctx, o.command(j, "create", o.last(j), ".").in(j.live))
}

func (o *borg) last(j job) string { return fmt.Sprintf("%s::%d", j.repo, o.archives) }

func (o *borg) restore(ctx context.Context, j job) (cost, error) {
	if err := os.Mkdir(j.out, 0o755); err != nil {
		return cost{}, err
	}
	return run(ctx, o.command(j, "extract", o.last(j)).in(j.out))
}
