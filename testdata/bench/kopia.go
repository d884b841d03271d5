package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
)

// kopia is kopia with zstd: it compresses nothing unless it is told to.
type kopia struct{ id string }

const whoKopia = "kopia"

func (k *kopia) names() (capture, restore string) { return whoKopia, whoKopia }

func (k *kopia) incremental() bool { return true }

func (k *kopia) command(j job, args ...string) command {
	return cmd(append([]string{"kopia", "--no-progress"}, args...)...).
		with("KOPIA_CONFIG_PATH="+j.repo+".config", "KOPIA_PASSWORD=bench", "KOPIA_CACHE_DIRECTORY="+j.repo+".cache",
			"KOPIA_LOG_DIR="+j.repo+".log", "KOPIA_CHECK_FOR_UPDATES=false")
}

func (k *kopia) prepare(ctx context.Context, j job) error {
	if _, err := run(ctx, k.command(j, "repository", "create", "filesystem", "--path", j.repo)); err != nil {
		return err
	}
	_, err := run(ctx, k.command(j, "policy", "set", "--global", "--compression", "zstd-fastest"))
	return err
}

func (k *kopia) capture(ctx context.Context, j job) (cost, error) {
	var out bytes.Buffer
	c, err := pipe(ctx, &out, k.command(j, "snapshot", "create", "--json", j.live))
	if err != nil {
		return c, err
	}
	var made struct{ ID string }
	if err := json.Unmarshal(out.Bytes(), &made); err != nil || made.ID == "" {
		return c, fmt.Errorf("kopia snapshot create: no id in its output: %w: %s", err, tail(out.String()))
	}
	k.id = made.ID
	return c, nil
}

func (k *kopia) restore(ctx context.Context, j job) (cost, error) {
	return run(ctx, k.command(j, "snapshot", "restore", k.id, j.out))
}
