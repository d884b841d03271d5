#!/usr/bin/env bash
# Prints the path of a docker-compose plugin for SNAP_TEST_COMPOSE. If the machine
# has none, it builds one from source and keeps it in the user's cache: not every
# release of the distribution has a package of it.
set -euo pipefail

version=v2.40.3

own=$(docker info --format '{{range .ClientInfo.Plugins}}{{if eq .Name "compose"}}{{.Path}}{{end}}{{end}}' 2>/dev/null || true)
if [[ -n $own ]]; then
  printf '%s\n' "$own"
  exit 0
fi

plugin=${XDG_CACHE_HOME:-$HOME/.cache}/snap-test/docker-compose-$version
if [[ ! -x $plugin ]]; then
  echo "compose: building $version (a few minutes)" >&2
  work=$(mktemp -d)
  trap 'rm -rf -- "$work"' EXIT
  mkdir -p -- "${plugin%/*}"
  # In a scratch module, because go install refuses modules with exclude directives.
  cd -- "$work"
  go mod init compose.test 2>/dev/null
  go get "github.com/docker/compose/v2@$version" 2>/dev/null
  # -mod=mod: go get has not recorded the dependencies of the command itself.
  CGO_ENABLED=0 go build -mod=mod -trimpath -ldflags="-s -w -X github.com/docker/compose/v2/internal.Version=$version" \
    -o "$plugin.new" github.com/docker/compose/v2/cmd
  mv -- "$plugin.new" "$plugin"
fi
printf '%s\n' "$plugin"
