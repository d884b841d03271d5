#!/usr/bin/env bash
# Downloads a newer Docker engine than the machine's own from Debian's archive and
# prints its directory, which SNAP_ENGINE_DIR of engine.sh may name.
#
# Usage: newengine.sh [SUITE]      (none: trixie, which is Debian 13)
#
# It installs nothing, changes nothing of the machine's apt, and needs no root. It asks
# the mirror that apt has for this release, with a configuration and lists of its own,
# and keeps the engine in the user's cache. An engine that is there is not downloaded
# again: to get the newest one, remove its directory first.
#
# Programs that need newer libraries than the machine has get those of their release:
# their loader and their library path are changed to those of the directory. An
# environment variable would not do, because whatever the engine starts would inherit
# it, such as mount and iptables.
set -euo pipefail

say() { printf 'newengine: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

suite=${1:-trixie}
[[ $suite =~ ^[a-z][a-z-]*$ ]] || die "usage: newengine.sh [SUITE]"
programs=(dockerd docker-init docker-proxy containerd containerd-shim-runc-v2 runc)
# All that the programs, patchelf and these libraries themselves are linked with.
libraries=(libc6 libcap2 libgcc-s1 libseccomp2 libstdc++6 libsystemd0)

dir=${XDG_CACHE_HOME:-$HOME/.cache}/snap-test/engine-$suite

main() {
  local tool
  if [[ ! -e $dir ]]; then
    for tool in apt-get apt-cache apt-config dpkg-deb; do
      command -v "$tool" >/dev/null || die "no $tool: a newer engine comes from Debian's archive, with apt"
    done
    mkdir -p -- "${dir%/*}"
    work=$(mktemp -d "$dir.XXXXXX")
    trap 'rm -rf -- "$work"' EXIT
    lists
    download
    unpack
    mv -T -- "$work/engine" "$dir"
    try
  fi
  printf '%s\n' "$dir"
}

# lists fetches the list of packages of the suite from the mirror that the machine has
# for its own release. Archives of others may have the same release; they do not have
# the suite under Debian's signature.
lists() {
  local ID='' VERSION_CODENAME='' key=/usr/share/keyrings/debian-archive-keyring.gpg mirror mirrors
  # shellcheck source=/dev/null
  . /etc/os-release
  [[ $ID == debian && -n $VERSION_CODENAME ]] || die "this is not a release of Debian: apt has no mirror with $suite"
  [[ -e $key ]] || die "no $key: that is the package debian-archive-keyring"
  mapfile -t mirrors < <(apt-get update --print-uris | sed -n "s|^'\(.*\)/dists/$VERSION_CODENAME/InRelease'.*|\1|p")
  ((${#mirrors[@]})) || die "apt has no mirror of $VERSION_CODENAME"
  own_apt
  for mirror in "${mirrors[@]}"; do
    printf 'deb [signed-by=%s] %s %s main\n' "$key" "$mirror" "$suite" >"$work/sources.list"
    say "getting the list of packages of $suite"
    if apt-get -q -q update >&2 && [[ -n $(apt-cache --names-only search '^docker\.io$') ]]; then return; fi
  done
  die "the mirror of $VERSION_CODENAME has no $suite"
}

# own_apt lets apt work in $work. How to reach a mirror, for example through a proxy, is
# the machine's own setting. None of its other settings is read: they could run programs
# after an update.
own_apt() {
  mkdir -p -- "$work"/{lists,archives}/partial
  : >"$work/status" # as if nothing were installed
  {
    apt-config dump | grep '^Acquire::' | grep -v '^Acquire::IndexTargets' || true
    cat <<END
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "$work";
Dir::State::lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work";
Dir::Cache::archives "$work/archives";
APT::Sandbox::User "root"; // the user _apt may not write here
END
  } >"$work/apt.conf"
  export APT_CONFIG=$work/apt.conf
}

download() {
  local init
  # docker-init is in another package in each release.
  init=$(apt-cache depends docker.io | sed -n 's/^ *Depends: \(tini.*\)/\1/p')
  [[ -n $init ]] || die "docker.io of $suite does not say where its docker-init comes from"
  say "downloading docker.io, containerd and runc of $suite"
  cd -- "$work/archives"
  apt-get -q -q download docker.io containerd runc "$init" patchelf "${libraries[@]}" >&2 || die "the download failed"
}

# unpack makes the directory in $work. The paths in the programs are those after the
# move.
unpack() {
  local package name file engine=$work/engine
  for package in ./*.deb; do dpkg-deb -x "$package" "$work/root"; done
  mkdir -p -- "$engine/lib"
  find "$work/root" -path '*/lib/*-linux-gnu*/*' -name '*.so*' -exec cp -P -t "$engine/lib" -- {} +
  loader=$(cd -- "$engine/lib" && echo ld-linux*.so.*)
  for name in "${programs[@]}"; do
    file=$(find "$work/root" -path "*bin/$name" | head -n 1)
    [[ -n $file ]] || die "no $name in the packages of $suite"
    cp -L -- "$file" "$engine/$name"
    if lacking "$engine/$name"; then
      say "$name gets the libraries of $suite"
      "$engine/lib/$loader" --library-path "$engine/lib" "$work/root/usr/bin/patchelf" \
        --set-interpreter "$dir/lib/$loader" --force-rpath --set-rpath "$dir/lib" "$engine/$name"
    fi
  done
}

# lacking tells whether this machine lacks a library of the program, or has it too old.
lacking() { LC_ALL=C ldd "$1" 2>&1 | grep -q 'not found'; } # PROGRAM

# try removes the directory if its programs do not run.
try() {
  local name
  for name in dockerd containerd runc; do
    if ! "$dir/$name" --version >&2; then
      rm -rf -- "$dir"
      die "$name of $suite does not run here"
    fi
  done
}

main
