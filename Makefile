# What is run by hand and by .ci/run; "make help" lists it.

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# Go passes by directories named testdata unless they are named.
PACKAGES := ./... ./testdata/app ./testdata/bench ./testdata/e2e ./testdata/crash ./testdata/crash/sieve ./testdata/crash/writer ./testdata/situations ./testdata/situations/app ./testdata/testlog

# What is thrown away needs no version stamp, for which git would have to trust
# whoever owns the clone.
test race crash e2e demo bench year lint: export GOFLAGS += -buildvcs=false

.PHONY: help build test race crash e2e demo bench year lint clean

help: ## this list
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' Makefile

build: ## ./snap, a static binary
	CGO_ENABLED=0 go build -trimpath -o snap ./cmd/snap

test: ## the tests; says what it skips, and installs what they need when it may
	testdata/setup.sh || true
	testdata/engine.sh run testdata/test.sh

race: ## all tests with the race detector, which make test has where goroutines share memory; an hour
	testdata/setup.sh || true
	testdata/engine.sh run testdata/test.sh -timeout 60m ./... ./testdata/crash ./testdata/bench ./testdata/situations

crash: ## the proof: kills, errors, power cuts and full disks at every system call; up to an hour
	testdata/setup.sh || true
	testdata/engine.sh run testdata/crash.sh

e2e: ## the proof on a real PostgreSQL: capture, restore, kill, recover
	testdata/setup.sh strace debootstrap dockerd docker || true
	testdata/engine.sh run go test -tags e2e -count=1 -timeout 20m -v ./testdata/e2e/

demo: ## the story on a tiny web app, in under a minute
	testdata/setup.sh strace || true
	testdata/engine.sh run testdata/demo.sh

bench: ## snap beside tar, restic, borg …, into docs/performance.md; 15 minutes. BENCH=small,restore: a part, printed
	testdata/setup.sh mkfs.ext4 tar gzip pigz zstd restic borg debootstrap dockerd docker || true
	testdata/engine.sh run go run ./testdata/bench -only '$(BENCH)' $(BENCHFLAGS)

year: ## a year of nights beside restic, borg and kopia, into docs/performance.md; an hour. BENCH=small,scattered: a part, printed
	testdata/setup.sh mkfs.ext4 tar gzip pigz zstd restic borg || true
	testdata/engine.sh run go run ./testdata/bench -year -only '$(BENCH)' $(BENCHFLAGS)

lint: ## gofmt, vet, staticcheck
	@files=$$(gofmt -l cmd pkg testdata) && test -z "$$files" || { echo "gofmt -w $$files"; exit 1; }
	go vet -tags e2e $(PACKAGES)
	go run $(STATICCHECK) -tags e2e $(PACKAGES)

clean: ## remove what build made
	rm -f snap
