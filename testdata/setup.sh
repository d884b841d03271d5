#!/usr/bin/env bash
# Installs what the tests need beyond Go, through apt-get, when it may.
#
# Usage: setup.sh [TOOL]...        (none: all of them)
#
# Exits 0 when every tool is there, 1 when some are not: it has then said which,
# and the tests say what they skip for want of them.
set -euo pipefail

# Root's tools are not on every root's PATH (su without a dash).
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export DEBIAN_FRONTEND=noninteractive

# What is run → the Debian package that has it.
declare -A package=(
  [strace]=strace           # kills snap at a chosen system call
  [mkfs.ext4]=e2fsprogs     # the filesystems of the loop images
  [mkfs.xfs]=xfsprogs
  [mkfs.btrfs]=btrfs-progs
  [setfacl]=acl             # what a restore has to bring back
  [setfattr]=attr
  [debootstrap]=debootstrap # the PostgreSQL image
  [dockerd]=docker.io       # an engine
  [docker]=docker-cli       # its command, apart from the engine on newer releases
  [ip]=iproute2             # a bridge for a private engine
  [zstd]=zstd               # reads what snap compressed, without snap
  [make]=make
  [tar]=tar                 # what the benchmark measures snap beside
  [gzip]=gzip
  [pigz]=pigz
  [zstd]=zstd
  [restic]=restic
  [borg]=borgbackup
)

absent() { # the tools of the arguments that are not there
  local tool
  for tool; do
    command -v "$tool" >/dev/null || printf '%s\n' "$tool"
  done
}

packages() { # their packages, those alone that apt knows
  local tool name
  for tool; do
    name=${package[$tool]}
    # On older releases docker.io has the command too, and docker-cli is unknown.
    if [[ $tool == docker ]] && ! apt-cache show docker-cli >/dev/null 2>&1; then name=docker.io; fi
    printf '%s\n' "$name"
  done | sort -u
}

main() {
  local tools=("$@") missing names
  if ((${#tools[@]} == 0)); then
    mapfile -t tools < <(printf '%s\n' "${!package[@]}" | sort)
  fi
  local tool
  for tool in "${tools[@]}"; do
    [[ -n ${package[$tool]:-} ]] || { echo "setup: no such tool: $tool" >&2; exit 2; }
  done

  mapfile -t missing < <(absent "${tools[@]}")
  ((${#missing[@]})) || exit 0
  if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
    echo "setup: not there: ${missing[*]}; not installed: that takes root and apt-get" >&2
    exit 1
  fi
  echo "setup: not there: ${missing[*]}; installing with apt-get" >&2
  # Another apt may be at work on a machine that has just booted.
  local apt=(apt-get -q -y -o DPkg::Lock::Timeout=180)
  "${apt[@]}" update >&2 || echo "setup: apt-get update failed; trying with the lists that are there" >&2
  mapfile -t names < <(packages "${missing[@]}")
  # One by one, so that a package that cannot be had costs only its own tests.
  local name
  for name in "${names[@]}"; do
    "${apt[@]}" install --no-install-recommends "$name" </dev/null >&2 || echo "setup: could not install $name" >&2
  done
  mapfile -t missing < <(absent "${tools[@]}")
  ((${#missing[@]})) || exit 0
  echo "setup: still not there: ${missing[*]}" >&2
  exit 1
}

main "$@"
