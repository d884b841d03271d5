#!/usr/bin/env bash
# Runs go test and prints of it what a reader needs: the tests that were skipped
# with why, the failures in full, and go test's own line for every package.
#
# Usage: test.sh                        all of them, in three lots side by side
#        test.sh GO-TEST-ARGUMENT...    these
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

# What a test says is kept until its verdict is known; what is left without one
# when the package fails belongs to the test that panicked or ran out of time.
# shellcheck disable=SC2016 # an awk program
report='
function tell(name) { printf "%s", text[name]; delete text[name] }

/^=== (RUN|CONT|NAME|PAUSE) / { test = $3; next }

/^ *--- (PASS|FAIL|SKIP): / {
	if ($2 != "PASS:") { print; tell($3) }
	if ($2 == "SKIP:") skipped++
	delete text[$3]
	if ($0 ~ /^---/) test = ""
	next
}

/^(ok|FAIL|\?)[ \t]+[^ \t]/ {
	if ($1 == "FAIL") for (name in text) tell(name)
	for (name in text) delete text[name]
	test = ""
	print
	fflush()
	next
}

/^(PASS|FAIL|exit status [0-9]+)$/ { next }

test != "" { text[test] = text[test] $0 "\n"; next }

{ print }

END {
	if (!skipped) exit 0
	if (ENVIRON["SNAP_TEST_SKIPS"] == "fail") {
		printf "test: %d skipped, and SNAP_TEST_SKIPS=fail\n", skipped
		exit 3
	}
}'

tests() { go test -count=1 -v -timeout 40m "${race[@]}" "$@" 2>&1 </dev/null | awk "$report"; }

# lot runs tests and prints what they have to say when they are through.
lot() { # NAME GO-TEST-ARGUMENT...
  local name=$1 status=0
  shift
  tests "$@" >"$logs/$name" || status=$?
  flock "$logs" cat -- "$logs/$name"
  return "$status"
}

# The lots. Most of these tests wait: for containers that start and stop, for
# disks, for what has to time out. The parts that share memory between goroutines
# have the race detector; in what runs snap over and over to kill it, and in
# long tests of one goroutine, it only multiplies the time: make race has it in
# all.
all() {
  local status=0 single='^(TestTwoPassesGiveTheFrozenTree|TestAMemberOfAnyCompressorIsInflatedAtOnce|TestADamagedMemberIsInflatedAtOnceOnlyWhereTheLibraryTakesIt)$'
  logs=$(mktemp -d)
  trap 'rm -rf -- "$logs"' EXIT
  set -m # each is a process group, which ends as a whole
  (race=() && lot restore ./pkg/restore) &
  (race=() && lot command -p 1 ./cmd/snap ./testdata/bench) &
  (
    lot parts -p 1 -skip "$single" ./pkg/archive/... ./pkg/crew ./pkg/disk/... ./pkg/docker/... ./pkg/journal ./pkg/store ./pkg/workload || status=$?
    race=()
    lot single -run "$single" ./pkg/archive || status=$?
    lot proof ./testdata/crash || status=$?
    exit "$status"
  ) &
  set +m
  trap 'jobs -p | while read -r group; do kill -- "-$group" || true; done; exit 130' INT TERM
  for _ in 1 2 3; do
    wait -n || status=$?
  done
  exit "$status"
}

if (($#)); then tests "$@"; else all; fi
