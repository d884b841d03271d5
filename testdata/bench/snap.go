package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// What snap is called in the tables.
const (
	whoSnap = "snap"
	whoZstd = "snap, zstd"
)

// snapper is snap with a workload of data alone.
type snapper struct {
	bench *bench
	zstd  bool
	sid   string // of the last capture
}

func (s *snapper) names() (capture, restore string) {
	if s.zstd {
		return whoZstd, whoZstd
	}
	return whoSnap, whoSnap
}

func (s *snapper) incremental() bool { return true }

func (s *snapper) config(j job) string { return j.repo + ".yaml" }

func (s *snapper) prepare(_ context.Context, j job) error {
	text := snapConfig(j.repo, filepath.Dir(j.live), s.zstd) +
		fmt.Sprintf("  data:\n    volumes: [{scope: absolute, source: %s}]\n", j.live)
	return os.WriteFile(s.config(j), []byte(text), 0o600)
}

// snapConfig is a config as far as its workloads.
func snapConfig(store, root string, zstd bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nstate: %s/state\nstore: %s\nbase: %s\nabsolute_roots: [%s]\n", store, store, root, root)
	if zstd {
		b.WriteString("compression: zstd\n")
	}
	b.WriteString("workloads:\n")
	return b.String()
}

func (s *snapper) capture(ctx context.Context, j job) (cost, error) {
	c, got, err := s.bench.snapRun(ctx, s.config(j), "capture", "data")
	s.sid = got.SID
	return c, err
}

// restore restores in place, for snap has no other way: the live directory is
// an empty one meanwhile.
func (s *snapper) restore(ctx context.Context, j job) (c cost, err error) {
	kept := j.live + ".kept"
	if err := os.Rename(j.live, kept); err != nil {
		return c, err
	}
	defer func() {
		err = errors.Join(err, os.Rename(j.live, j.out), os.Rename(kept, j.live))
	}()
	if err := os.Mkdir(j.live, 0o755); err != nil {
		return c, err
	}
	c, _, err = s.bench.snapRun(ctx, s.config(j), "restore", "data", s.sid, "--confirm", s.sid)
	return c, err
}

// answer is what snap prints with --json, as far as it is used here.
type answer struct {
	SID      string             `json:"sid"`
	Downtime float64            `json:"downtime_seconds"`
	Phases   map[string]float64 `json:"phases"`
	Error    struct {
		Message string `json:"message"`
		Hint    string `json:"hint"`
	} `json:"error"`
}

// snapRun runs snap with --json.
func (b *bench) snapRun(ctx context.Context, config string, args ...string) (cost, answer, error) {
	var out bytes.Buffer
	var t answer
	c, err := pipe(ctx, &out, cmd(append([]string{b.snap, "--config", config, "--json"}, args...)...))
	if jerr := json.Unmarshal(out.Bytes(), &t); jerr != nil {
		return c, t, errors.Join(err, fmt.Errorf("snap %s: its output: %w", args[0], jerr))
	}
	if err != nil {
		return c, t, fmt.Errorf("%w\n%s\n%s", err, t.Error.Message, t.Error.Hint)
	}
	c.phases = t.Phases
	return c, t, nil
}

// knowsZstd says whether this snap takes `compression: zstd` in its config.
func (b *bench) knowsZstd(ctx context.Context) bool {
	j := job{live: b.place.path("probe"), repo: b.place.path("probe.repo")}
	config := (&snapper{}).config(j)
	defer os.Remove(config)
	if err := (&snapper{bench: b, zstd: true}).prepare(ctx, j); err != nil {
		return false
	}
	_, err := run(ctx, cmd(b.snap, "--config", config, "list"))
	return err == nil
}

// knowsGuard says whether this snap has restore --guard.
func (b *bench) knowsGuard(ctx context.Context) bool {
	help, err := output(ctx, cmd(b.snap, "restore", "--help"))
	return err == nil && strings.Contains(help, "--guard")
}
