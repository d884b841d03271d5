#!/usr/bin/env bash
# Runs go test and prints what a reader needs: the skipped tests with the reason,
# the failed tests with all their output, and go test's own line for each
# package. Meanwhile it says every twenty seconds which test runs.
#
# Usage: test.sh                        all tests, in lots side by side
#        test.sh engine                 those that ask the engine, in lots side by side
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
tests() { go test -count=1 -json -timeout 40m "$@" 2>&1 </dev/null | "$scratch/testlog"; }

# The lots. Most of these tests wait: for containers to start and stop, for disks, for
# timeouts. Thus more lots run at once than there are cores. They are not one process,
# whose tests would run side by side: snap looks for whoever holds a volume, and each
# child of such a process has all its open files for a moment.
most=5
begun=0 ended=0 status=0 names=()

# lot runs some tests in the background, as soon as there is room for them. It keeps
# their report for the end and shows their progress now.
lot() { # NAME GO-TEST-ARGUMENT...
  local name=$1
  shift
  ((begun - ended < most)) || one_ends
  names+=("$name")
  set -m # each lot is a process group, which can be ended as a whole
  tests "$@" 2>&1 >"$scratch/$name.log" &
  set +m
  ((++begun))
}

one_ends() {
  wait -n || status=$?
  ((++ended))
}

# parts is a lot for each part of a package's tests. The first part is whatever is not in
# the others, so that no test is left out.
parts() { # NUMBER PACKAGE GO-TEST-ARGUMENT...
  local number=$1 package=$2 skipped='' part own
  shift 2
  if [[ ${1:-} == -skip ]]; then
    skipped=$2
    shift 2
  fi
  for ((part = 0; part < number; part++)); do
    own=$(sed -n 's/^func \(Test[A-Za-z0-9_]*\)(t \*testing\.T).*/\1/p' "$package"/*_test.go |
      awk -v part="$part" -v number="$number" '(NR % number == part) == (part > 0)' | paste -s -d '|')
    if ((part == 0)); then
      lot "${package##*/}-1" "$@" -skip "^($own)\$${skipped:+|$skipped}" "$package"
    else
      lot "${package##*/}-$((part + 1))" "$@" -run "^($own)\$" ${skipped:+-skip "$skipped"} "$package"
    fi
  done
}

# Code whose goroutines share memory is tested with the race detector. Tests that run snap
# over and over to kill it, and long tests of one goroutine, would only take longer with
# it: make race uses it for all. The longest lots come first.
all() {
  local others single='^(TestTwoPassesGiveTheFrozenTree|TestAMemberOfAnyCompressorIsInflated|TestADamagedMemberIsJudgedAsByTheStandardLibrary|TestASubsetIsWhatTarMakesOfTheSameNames|TestAScanSaysWhatTheIndexSays)$'
  mapfile -t others < <(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | grep -vE '/(cmd/snap|pkg/docker|pkg/restore)$')
  parts 3 ./pkg/restore
  lot others "${race[@]}" -p 1 -skip "$single" "${others[@]}" ./testdata/testlog
  parts 2 ./pkg/docker "${race[@]}"
  lot situations ./testdata/situations
  parts 2 ./cmd/snap
  lot crash ./testdata/crash
  lot bench ./testdata/bench
  lot single -run "$single" ./pkg/archive/...
}

# For another engine than that of all. Without the tests that kill snap at every step, and
# those of filesystems and records: the containers of the first do what they do in the
# others, and the second ask no engine.
engine() {
  local databases elsewhere='Killed|Signal|Frozen|Decision|Decides|Upload|Displaced|GuardAfter|Subvolume|NotKept|Special|Excluded|Codec'
  elsewhere+='|FollowsTheTable|TheFilesystemKnows|CannotBeExchanged|TheParentsIsRefused|AreClonedAndVerified|ChangedFilesAreRead|PartialTree|BadDisk|UnreadableRecord'
  parts 3 ./pkg/restore -skip "$elsewhere"
  parts 2 ./pkg/docker -skip "$elsewhere"
  # Their image would have to be built once more.
  databases=$(grep -rl @DATABASES@ testdata/situations/cases | cut -d / -f 4 | sort -u | paste -s -d '|')
  lot situations -skip "^TestSituations\$/^($databases)\$" ./testdata/situations
}

reports() {
  local name
  for name in "${names[@]}"; do
    if [[ -s $scratch/$name.log ]]; then cat -- "$scratch/$name.log"; fi
  done
}

case ${1:-all} in
  all | engine)
    trap 'jobs -p | while read -r group; do kill -- "-$group" || true; done; reports; exit 130' INT TERM
    # Once, and not in each lot.
    go build -buildvcs=false ./pkg/...
    go build -buildvcs=false "${race[@]}" ./pkg/...
    "${1:-all}"
    while ((ended < begun)); do one_ends; done
    reports
    exit "$status"
    ;;
  *) tests "${race[@]}" "$@" ;;
esac
