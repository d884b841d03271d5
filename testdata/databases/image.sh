#!/usr/bin/env bash
# Builds an image with PostgreSQL, MariaDB and Redis out of the distribution's own
# packages, for no registry need be in reach, and prints its tag. An image that is
# there already is taken as it is: the tag names what it was made from.
#
# Its entrypoint is PostgreSQL's; the others' are /mariadb and redis-server.
#
# Usage: image.sh [--force]
set -euo pipefail

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

say() { printf 'image: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

force=no
case ${1:-} in
  --force) force=yes ;;
  '') ;;
  *) die "usage: image.sh [--force]" ;;
esac

# shellcheck source=/dev/null
. /etc/os-release
suite=${VERSION_CODENAME:-}
[[ -n $suite ]] || die "this is no release of Debian or one of its children"
arch=$(dpkg --print-architecture) || die "this is no Debian: no dpkg"

inputs=$(cat -- "$here"/*.sh; printf '%s %s' "$suite" "$arch")
tag=snap-test/databases:$(printf '%s' "$inputs" | sha256sum | cut -c 1-12)
if [[ $force == no ]] && docker image inspect "$tag" >/dev/null 2>&1; then
  printf '%s\n' "$tag"
  exit 0
fi

((EUID == 0)) || die "debootstrap takes root"
command -v debootstrap >/dev/null || die "no debootstrap: testdata/setup.sh installs it"

# mirror prints where the machine gets its own release from. apt itself reads
# its sources, of either format; the origin keeps repositories out that others
# offer for the same suite.
mirror() {
  local uri
  # shellcheck disable=SC2016 # the fields are apt's to fill in
  uri=$(apt-get indextargets --format '$(ORIGIN) $(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
    awk -v id="$ID" -v suite="$suite" 'tolower($1) == id && $2 == suite && $3 == "main" {print $4; exit}')
  uri=${uri%/}
  if [[ $uri == mirror+file:* ]]; then # a list of mirrors, as cloud images have it
    uri=$(awk '/^[a-z]+:/ {print $1; exit}' "${uri#mirror+file:}")
  fi
  printf '%s\n' "${uri%/}"
}

from=$(mirror)
if [[ -z $from ]]; then # apt's lists are empty
  apt-get -q -o DPkg::Lock::Timeout=180 update >&2
  from=$(mirror)
fi
[[ -n $from ]] || die "apt has no source for $suite main"
# debootstrap fetches with wget, which knows nothing of apt's proxy.
eval "$(apt-config shell proxy Acquire::http::Proxy)"
[[ -z ${proxy:-} ]] || export http_proxy=$proxy

work=$(mktemp -d "${TMPDIR:-/var/tmp}/snap-databases.XXXXXX")
cleanup() {
  # debootstrap may have left /proc mounted in there when it failed.
  awk -v dir="$work/" 'index($5, dir) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r mount; do
    umount -- "$mount" || true
  done
  rm -rf --one-file-system -- "$work"
}
trap cleanup EXIT
root=$work/root

say "building $tag from $suite (a minute or two)"
quietly() { # run a command, show what it said only if it fails
  "$@" >"$work/log" 2>&1 </dev/null || { tail -n 40 -- "$work/log" >&2; die "$1 failed"; }
}
# The contributed modules (pgbench, pg_amcheck) are in the server's package.
quietly debootstrap --foreign --variant=minbase --include=postgresql,mariadb-server-core,mariadb-client-core,redis-server "$suite" "$root" "$from"
# Between the stages, before a package is configured: no service starts in
# there (pg_ctlcluster would, past debootstrap's own dummies), no cluster is made.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 0755 "$root/usr/sbin/policy-rc.d"
mkdir -p "$root/etc/postgresql-common"
echo 'create_main_cluster = false' >"$root/etc/postgresql-common/createcluster.conf"
DEBIAN_FRONTEND=noninteractive quietly chroot "$root" /debootstrap/debootstrap --second-stage
# The package that makes this user is the one with MariaDB's service.
quietly chroot "$root" useradd --system --no-create-home --home-dir /var/lib/mysql mysql

# What a server of tests has no use for; without the compiler that is LLVM,
# PostgreSQL interprets.
rm -rf -- "$root"/debootstrap "$root"/var/cache/apt "$root"/var/lib/apt/lists "$root"/var/log \
  "$root"/usr/share/{doc,man,info,locale,i18n,postgresql/*/man} "$root"/var/lib/postgresql/* "$root"/etc/postgresql/* \
  "$root"/usr/lib/postgresql/*/lib/{bitcode,llvmjit*} "$root"/usr/lib/*/libLLVM* "$root"/usr/lib/llvm* \
  "$root"/usr/lib/*/libz3* "$root"/usr/lib/*/perl "$root"/usr/share/perl
mkdir -p "$root/var/log"
install -m 0755 -- "$here/postgres.sh" "$root/entrypoint"
install -m 0755 -- "$here/mariadb.sh" "$root/mariadb"
mkdir -p "$root/var/lib/mysql"

pgbin=$(cd -- "$root" && echo /usr/lib/postgresql/*/bin)
tar -C "$root" --numeric-owner -c . | docker import \
  --change 'ENTRYPOINT ["/entrypoint"]' \
  --change "ENV PATH=$pgbin:/usr/sbin:/usr/bin:/sbin:/bin" \
  --change 'ENV PGDATA=/var/lib/postgresql/data' \
  --change 'ENV TABLESPACE=/var/lib/postgresql/side' \
  --change 'ENV PGHOST=/tmp' \
  --change 'ENV PGUSER=postgres' \
  - "$tag" >/dev/null
printf '%s\n' "$tag"
