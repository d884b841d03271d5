#!/usr/bin/env bash
# Installs with apt-get, when run as root, what the tests need besides Go.
#
# Usage: setup.sh [TOOL]...        (none: all of them)
#
# Exits 0 when every tool is there. Otherwise it names the missing ones and exits
# 1; the tests that need them are then skipped and say so.
set -euo pipefail

# su without a dash leaves root without these.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export DEBIAN_FRONTEND=noninteractive

# The program, and the Debian package that contains it.
declare -A package=(
  [strace]=strace           # kills snap at a chosen system call
  [mkfs.ext4]=e2fsprogs     # the filesystems of the loop images
  [mkfs.xfs]=xfsprogs
  [mkfs.btrfs]=btrfs-progs
  [setfacl]=acl             # attributes that a restore has to bring back
  [setfattr]=attr
  [debootstrap]=debootstrap # the image of the databases
  [dockerd]=docker.io       # an engine
  [docker]=docker-cli       # its command, apart from the engine on newer releases
  [ip]=iproute2             # a bridge for a private engine
  [bsdtar]=libarchive-tools # archives that are imported
  [python3]=python3
  [zstd]=zstd               # reads what snap compressed, without snap
  [make]=make
  [tar]=tar                 # the benchmark compares snap with these
  [gzip]=gzip
  [pigz]=pigz
  [restic]=restic
  [borg]=borgbackup
)

absent() { # prints those of its arguments that are not installed
  local tool
  for tool; do
    command -v "$tool" >/dev/null || printf '%s\n' "$tool"
  done
}

packages() { # prints the packages of the tools in its arguments
  local tool name
  for tool; do
    name=${package[$tool]}
    # On older releases docker.io contains the command, and there is no docker-cli.
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
    echo "setup: missing: ${missing[*]}; installing them takes root and apt-get" >&2
    exit 1
  fi
  echo "setup: missing: ${missing[*]}; installing with apt-get" >&2
  # On a machine that has just booted, another apt may hold the lock.
  local apt=(apt-get -q -y -o DPkg::Lock::Timeout=180)
  "${apt[@]}" update >&2 || echo "setup: apt-get update failed; trying with the old lists" >&2
  mapfile -t names < <(packages "${missing[@]}")
  # One by one, so that a package that is not available costs only its own tests.
  local name
  for name in "${names[@]}"; do
    "${apt[@]}" install --no-install-recommends "$name" </dev/null >&2 || echo "setup: could not install $name" >&2
  done
  mapfile -t missing < <(absent "${tools[@]}")
  ((${#missing[@]})) || exit 0
  echo "setup: still missing: ${missing[*]}" >&2
  exit 1
}

main "$@"
