package main

import (
	"context"
	"os"
	"os/exec"
)

// contender is a way to keep the data of a directory, in the commands that an
// operator would type. They are bash scripts in a job, and what they take is
// what is measured. What is stored is the size of job.repo.
type contender struct {
	who, program string
	prepare      string // makes an empty repository, which does not exist; not measured
	capture      string // runs in the data and takes it into the repository
	restore      string // runs in an empty directory and brings back what was captured last; it need not sync
	incremental  bool   // a second capture knows of the first
	last         string // prints the name of what was captured last
	forget       string // deletes what has the names $gone, and frees the room
}

// job is where a contender works.
type job struct {
	live string // the data
	repo string // what it keeps; whatever else it needs lies beside, under names that begin with this one and a dot
	out  string // where it restores to
}

// script is a bash script that works there.
func (j job) script(ctx context.Context, text string) *exec.Cmd {
	c := command(ctx, "bash", "-euo", "pipefail", "-c", text)
	c.Env = append(os.Environ(), "live="+j.live, "repo="+j.repo, "out="+j.out,
		"RESTIC_REPOSITORY="+j.repo, "RESTIC_PASSWORD=bench", "RESTIC_CACHE_DIR="+j.repo+".cache",
		"BORG_BASE_DIR="+j.repo+".home", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes", "BORG_RELOCATED_REPO_ACCESS_IS_OK=yes",
		"KOPIA_CONFIG_PATH="+j.repo+".config", "KOPIA_PASSWORD=bench", "KOPIA_CACHE_DIRECTORY="+j.repo+".cache",
		"KOPIA_LOG_DIR="+j.repo+".log", "KOPIA_CHECK_FOR_UPDATES=false")
	return c
}

// What the contenders are called in the tables.
const (
	whoSnap    = "snap"
	whoZstd    = "snap, zstd"
	whoPigz1   = "tar, pigz -1"
	whoPigz6   = "tar, pigz -6"
	whoTarZstd = "tar, zstd"
	whoRestic  = "restic"
	whoBorg    = "borg"
	whoKopia   = "kopia"
)

// What snap does as a contender, with a workload called data, or by $name. It
// restores in place, for it has no other way: meanwhile an empty directory takes
// the place of the live one.
const (
	snapConfig = `parent=$(dirname "$live")
cat >"$repo.yaml" <<END
version: 1
state: $repo/state
store: $repo/store
base: $parent
absolute_roots: [$parent]
compression: ${compression:-gzip}
workloads:
END
`
	snapPrepare = snapConfig + `echo "  data: {volumes: [{scope: absolute, source: $live}]}" >>"$repo.yaml"`
	snapCapture = `
		"$snap" --config "$repo.yaml" --json capture "${name:-data}" >"$repo.json" || { cat "$repo.json" >&2; exit 1; }
		grep -o '"sid": *"[^"]*"' "$repo.json" | head -n 1 | cut -d '"' -f 4 >"$repo.sid"`
	snapRestore = `
		mv "$live" "$live.kept"; mkdir "$live"
		sid=$(<"$repo.sid"); "$snap" --config "$repo.yaml" restore data "$sid" --confirm "$sid"
		rmdir "$out"; mv "$live" "$out"; mv "$live.kept" "$live"`
	snapForget = `"$snap" -q --config "$repo.yaml" delete data $gone --confirm`
)

// contenders are all of them. restic has its defaults, and always encrypts; borg
// does not encrypt, which is its fastest; kopia compresses only when it is told.
var contenders = []*contender{
	{who: whoSnap, program: "tar", prepare: snapPrepare, capture: snapCapture, restore: snapRestore, incremental: true, last: `cat "$repo.sid"`, forget: snapForget},
	{who: whoZstd, program: "tar", prepare: "compression=zstd\n" + snapPrepare, capture: snapCapture, restore: snapRestore, incremental: true, last: `cat "$repo.sid"`, forget: snapForget},
	{who: whoPigz1, program: "pigz", capture: `tar cf - . | pigz -1 >"$repo"`, restore: `pigz -dc "$repo" | tar xf -`},
	{who: whoPigz6, program: "pigz", capture: `tar cf - . | pigz -6 >"$repo"`, restore: `tar xzf "$repo"`},
	{who: whoTarZstd, program: "zstd", capture: `tar cf - . | zstd -q -T0 -c >"$repo"`, restore: `zstd -q -dc "$repo" | tar xf -`},
	{
		who: whoRestic, program: "restic", incremental: true,
		prepare: `restic -q init`, capture: `restic -q backup .`, restore: `restic -q restore latest --target .`,
		last:   `restic -q snapshots --json | grep -o '"short_id":"[^"]*"' | tail -n 1 | cut -d '"' -f 4`,
		forget: `restic -q forget --prune $gone`,
	}, {
		who: whoBorg, program: "borg", incremental: true,
		prepare: `borg init --encryption=none "$repo"`,
		capture: `archive=$(date +%s%N); borg create "$repo::$archive" .; echo "$archive" >"$repo.name"`,
		restore: `borg extract "$repo::$(<"$repo.name")"`,
		last:    `cat "$repo.name"`,
		forget:  `borg delete "$repo" $gone; ! borg compact --help >"$repo.help" || borg compact "$repo"`,
	}, {
		who: whoKopia, program: "kopia", incremental: true,
		prepare: `kopia repository create filesystem --path "$repo"; kopia policy set --global --compression zstd-fastest`,
		capture: `kopia --no-progress snapshot create --json "$live" | grep -o '"id":"[^"]*"' | head -n 1 | cut -d '"' -f 4 >"$repo.name"`,
		restore: `kopia --no-progress snapshot restore "$(<"$repo.name")" .`,
		last:    `cat "$repo.name"`,
		forget:  `kopia snapshot delete --delete $gone; kopia maintenance run --full --safety=none`,
	},
}
