#!/usr/bin/env bash
# Runs go test and prints what a reader needs: the skipped tests with the reason,
# the failed tests with all their output, and go test's own line for each
# package. Meanwhile it says every twenty seconds which test runs.
#
# Usage: test.sh                        all tests, in four lots side by side
#        test.sh GO-TEST-ARGUMENT...    these tests; progress goes to stderr
#
# With SNAP_TEST_SKIPS=fail a skipped test is a failure.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

race=()
if [[ $(go env CGO_ENABLED) == 1 ]] && command -v "$(go env CC)" >/dev/null; then
  race=(-race)
else
  echo 'test: without -race: that takes cgo and a C compiler' >&2
fi

scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
go build -buildvcs=false -o "$scratch/testlog" ./testdata/testlog

# What go itself says is part of the report, thus 2>&1 before the pipe.
tests() { go test -count=1 -json -timeout 40m "${race[@]}" "$@" 2>&1 </dev/null | "$scratch/testlog"; }

# lot keeps the report of some tests for the end and shows their progress now.
lot() { # NAME GO-TEST-ARGUMENT...
  local name=$1
  shift
  tests "$@" 2>&1 >"$scratch/$name.log"
}

# The lots. Most of these tests wait: for containers to start and stop, for
# disks, for timeouts. Code whose goroutines share memory is tested with the race
# detector. Tests that run snap over and over to kill it, and long tests of one
# goroutine, would only take longer with it: make race uses it for all.
all() {
  local status=0 single='^(TestTwoPassesGiveTheFrozenTree|TestAMemberOfAnyCompressorIsInflated|TestADamagedMemberIsJudgedAsByTheStandardLibrary)$'
  set -m # each lot is a process group, which can be ended as a whole
  (race=() && lot restore ./pkg/restore) &
  (race=() && lot command -p 1 ./cmd/snap ./testdata/bench) &
  (race=() && lot situations ./testdata/situations) &
  (
    lot parts -p 1 -skip "$single" ./pkg/archive/... ./pkg/compose ./pkg/crew ./pkg/disk/... ./pkg/docker/... ./pkg/journal ./pkg/retain ./pkg/runtime ./pkg/snapshot ./pkg/state ./pkg/store ./pkg/swap ./pkg/verify ./pkg/workload ./testdata/testlog || status=$?
    race=()
    lot single -run "$single" ./pkg/archive/... || status=$?
    lot proof ./testdata/crash || status=$?
    exit "$status"
  ) &
  set +m
  trap 'jobs -p | while read -r group; do kill -- "-$group" || true; done; reports; exit 130' INT TERM
  for _ in 1 2 3 4; do
    wait -n || status=$?
  done
  reports
  exit "$status"
}

reports() {
  local name
  for name in parts single proof situations command restore; do
    if [[ -s $scratch/$name.log ]]; then cat -- "$scratch/$name.log"; fi
  done
}

if (($#)); then tests "$@"; else all; fi
