#!/usr/bin/env bash
# The whole crash proof, of which `make test` runs a sample. It prints a table, and
# then the report of those tests of other packages that belong to the proof: an
# engine that ends or loses its answers, a container that swaps what snap reads,
# 10,000 schedules of a writer between two passes, and apps that take longer to come up
# than their health check allows, one of them for half a minute.
#
# Both run side by side, because the second part mostly waits for containers.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
export SNAP_CRASH=all
export CGO_ENABLED=0 # no race detector: make test has it
# The number of schedules in TestTwoPassesGiveTheFrozenTree.
export SNAP_TEST_SCHEDULES=10000

others='KilledAnywhereBringsTheProjectBack|NamedVolumesOnEachFilesystem|TheEngineEnds|AnAnswerIsLost|RollBackWithoutTheEngine|StartedDuringTheSwap|RemovedByHand|NoContainerMakesSnap|WhateverIsSwapped|TwoPassesGiveTheFrozenTree|TestSituations/health-'
log=$(mktemp)
trap 'rm -f -- "$log"' EXIT

testdata/test.sh -timeout 180m -run "$others" ./pkg/archive ./pkg/restore ./cmd/snap ./testdata/situations >"$log" &
side=$!
status=0
testdata/test.sh -timeout 180m ./testdata/crash || status=$?
wait "$side" || status=$?
cat -- "$log"
exit "$status"
