#!/usr/bin/env bash
# The crash proof, all of it: what `make test` samples. It prints a table, and
# what the tests of other packages have to say that are part of it: an engine
# that ends or loses its answers, a container that swaps what snap reads, and
# 10,000 schedules of a writer between two passes.
#
# The two run side by side, for the second mostly waits for containers.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
export SNAP_CRASH=all
export CGO_ENABLED=0 # without -race, which make test has
# How many schedules TestTwoPassesGiveTheFrozenTree runs.
export SNAP_TEST_SCHEDULES=10000

others='TheEngineEnds|AnAnswerIsLost|GoesBackWithoutTheEngine|StartedDuringTheSwap|RemovedByHand|NoContainerMakesSnap|WhateverIsSwapped|TwoPassesGiveTheFrozenTree'
log=$(mktemp)
trap 'rm -f -- "$log"' EXIT

testdata/test.sh -timeout 180m -run "$others" ./pkg/archive ./pkg/restore ./cmd/snap >"$log" 2>&1 &
side=$!
status=0
testdata/test.sh -timeout 180m ./testdata/crash || status=$?
wait "$side" || status=$?
cat -- "$log"
exit "$status"
