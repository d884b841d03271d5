#!/usr/bin/env bash
# Runs go test and prints of it what a reader needs: the tests that were skipped
# with why, the failures in full, and go test's own line for every package.
#
# Usage: test.sh GO-TEST-ARGUMENT...
#
# With SNAP_TEST_SKIPS=fail a skipped test is a failure.
set -euo pipefail

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

go test -count=1 -v -timeout 20m "${race[@]}" "$@" 2>&1 </dev/null | awk "$report"
