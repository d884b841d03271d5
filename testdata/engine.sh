#!/usr/bin/env bash
# A Docker engine for the tests.
#
# Usage: engine.sh run COMMAND...   run COMMAND with the engine that answers, else
#                                   with a private one, else with none; a private
#                                   engine ends with COMMAND
#        engine.sh start DIR        start a private engine in DIR, print its DOCKER_HOST
#        engine.sh stop DIR         stop it and remove its files
#        engine.sh versions         print the versions of the engine that answers, and
#                                   of Compose
#
# A private engine shares nothing with the machine's own. Its data, state, socket and
# containerd are in DIR: otherwise dockerd would use the running containerd and the
# containers in it. It does not read /etc/docker. It leaves packet filter and
# forwarding alone, because dockerd would clear the rules of the other engine.
# docker-proxy serves published ports.
#
# Two variables ask for a private engine that differs from the machine's own. With
# either, run uses no other engine.
#
#   SNAP_ENGINE_DIR      a directory whose dockerd, containerd, containerd-shim-runc-v2,
#                        runc, docker-init and docker-proxy are used, for example the
#                        one that newengine.sh prints
#   SNAP_ENGINE_CONFIG   more keys for daemon.json, as a JSON object, for example
#                        {"features": {"containerd-snapshotter": true}}
set -euo pipefail

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf 'engine: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# private tells whether the caller asks for an engine of its own.
private() { [[ -n ${SNAP_ENGINE_DIR:-}${SNAP_ENGINE_CONFIG:-} ]]; }

# The programs in SNAP_ENGINE_DIR are for the engine only, not for COMMAND.
engine_path() { printf '%s\n' "${SNAP_ENGINE_DIR:+$SNAP_ENGINE_DIR:}$PATH"; }

# more prints the members of the object in SNAP_ENGINE_CONFIG, and a comma after them.
more() {
  local config=${SNAP_ENGINE_CONFIG:-} members
  [[ -n $config ]] || return 0
  [[ $config =~ ^[[:space:]]*\{(.*)\}[[:space:]]*$ ]] || die "SNAP_ENGINE_CONFIG is not a JSON object: $config"
  members=${BASH_REMATCH[1]}
  [[ -z ${members//[[:space:]]/} ]] || printf '  %s,\n' "$members"
}

answers() { timeout 30 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# possible checks whether a private engine can be started, and says why if not.
possible() {
  local tool
  ((EUID == 0)) || { say "no private engine: that needs root"; return 1; }
  for tool in dockerd containerd docker; do
    PATH=$(engine_path) command -v "$tool" >/dev/null || { say "no private engine: no $tool"; return 1; }
  done
  if [[ -n ${SNAP_ENGINE_DIR:-} && ! -x $SNAP_ENGINE_DIR/dockerd ]]; then
    say "no private engine: no dockerd in SNAP_ENGINE_DIR, $SNAP_ENGINE_DIR"
    return 1
  fi
}

directory() { # DIR: print its absolute path, which must be short enough for socket names
  [[ -n ${1:-} ]] || die "usage: engine.sh run COMMAND... | start DIR | stop DIR | versions"
  local dir
  dir=$(realpath -m -- "$1")
  [[ $dir =~ ^/[A-Za-z0-9/._-]{1,60}$ ]] || die "$dir: too long, or not a plain name"
  printf '%s\n' "$dir"
}

cmdline() { { tr '\0' ' ' <"/proc/$1/cmdline"; } 2>/dev/null || true; } # PID

# running prints the process of a pid file if that still is the one that was started
# for DIR. The command line is compared because the number may have been reused.
running() { # DIR FILE
  local pid
  pid=$(cat -- "$1/$2" 2>/dev/null) && [[ $pid =~ ^[0-9]+$ ]] || return 1
  cmdline "$pid" | grep -qF -- "$1/" || return 1
  printf '%s\n' "$pid"
}

# bridge creates the engine's default bridge and prints its name, or "none" if it
# cannot: networks that are requested by name work without it. The addresses are
# reserved for tests and not routed (RFC 2544).
bridge() { # DIR
  local sum name
  sum=$(printf '%s' "$1" | cksum | cut -d ' ' -f 1)
  name=snapbr$((sum % 1000000))
  if ip link add "$name" type bridge 2>/dev/null; then
    printf '%s\n' "$name" >"$1/bridge"
    if ip addr add "198.18.$((sum % 254)).1/24" dev "$name" && ip link set "$name" up; then
      printf '%s\n' "$name"
      return
    fi
  fi
  printf 'none\n'
}

start() {
  local dir=$1 name path config
  possible || exit 1
  path=$(engine_path)
  config=$(more) || exit 1
  if running "$dir" dockerd.pid >/dev/null; then die "$dir: an engine is already running there"; fi
  mkdir -p -- "$dir"
  chmod 0700 -- "$dir"
  name=$(bridge "$dir" 2>>"$dir/log")
  cat >"$dir/containerd.toml" <<END
version = 2
root = "$dir/containerd"
state = "$dir/containerd-run"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.nri.v1.nri"]
[grpc]
  address = "$dir/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$dir/opt"
END
  # Of two members with the same name the last one counts. Those that keep the engine
  # apart come last.
  cat >"$dir/daemon.json" <<END
{
$config
  "data-root": "$dir/data",
  "exec-root": "$dir/exec",
  "pidfile": "$dir/dockerd-own.pid",
  "hosts": ["unix://$dir/docker.sock"],
  "group": "root",
  "containerd": "$dir/containerd.sock",
  "bridge": "$name",
  "default-address-pools": [{"base": "198.19.0.0/16", "size": 24}],
  "iptables": false,
  "ip6tables": false,
  "ip-forward": false,
  "ip-masq": false
}
END
  # Both get their own session: an interrupt from the terminal is meant for the
  # command that uses the engine, which must end first. DOCKER_HOST is empty, because
  # dockerd would listen there too.
  PATH=$path setsid containerd --config "$dir/containerd.toml" </dev/null >>"$dir/log" 2>&1 &
  printf '%s\n' "$!" >"$dir/containerd.pid"
  wait_for "$dir" containerd.pid test -S "$dir/containerd.sock"
  DOCKER_HOST='' PATH=$path setsid dockerd --config-file "$dir/daemon.json" </dev/null >>"$dir/log" 2>&1 &
  printf '%s\n' "$!" >"$dir/dockerd.pid"
  wait_for "$dir" dockerd.pid env "DOCKER_HOST=unix://$dir/docker.sock" docker version
  printf 'unix://%s\n' "$dir/docker.sock"
}

# wait_for waits until COMMAND succeeds. If the process ends before that, or after a
# minute, it stops everything.
wait_for() { # DIR FILE COMMAND...
  local dir=$1 file=$2 i
  shift 2
  for ((i = 0; i < 300; i++)); do
    if timeout 10 "$@" >/dev/null 2>&1; then return; fi
    # In the first moments setsid has not yet become the daemon.
    ((i < 10)) || running "$dir" "$file" >/dev/null || break
    sleep 0.2
  done
  tail -n 20 -- "$dir/log" >&2
  stop "$dir"
  die "${file%.pid} did not start: the end of its log is above"
}

stop() {
  local dir=$1 ids
  local -x DOCKER_HOST="unix://$dir/docker.sock"
  if running "$dir" dockerd.pid >/dev/null && answers; then
    # Everything in the engine belongs to the tests. Networks can be removed only after
    # their containers, and their bridges would outlive the engine.
    mapfile -t ids < <(docker ps --all --quiet)
    ((${#ids[@]} == 0)) || docker rm --force "${ids[@]}" >/dev/null 2>&1 || true
    mapfile -t ids < <(docker network ls --quiet --filter type=custom)
    ((${#ids[@]} == 0)) || docker network rm "${ids[@]}" >/dev/null 2>&1 || true
  fi
  finish "$dir" dockerd.pid
  finish "$dir" containerd.pid
  shims "$dir"
  # Containers leave mounts on this machine: root, shm and network namespace.
  awk -v dir="$dir/" 'index($5, dir) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r mount; do
    umount -- "$mount" || say "still mounted: $mount"
  done
  if [[ -f $dir/bridge ]]; then ip link del "$(cat -- "$dir/bridge")" 2>/dev/null || true; fi
  # --one-file-system: never delete what is still mounted in there.
  rm -rf --one-file-system -- "$dir"/{data,exec,containerd,containerd-run,opt} \
    "$dir"/{docker.sock,containerd.sock,containerd.sock.ttrpc} \
    "$dir"/{daemon.json,containerd.toml,bridge,log,dockerd-own.pid,dockerd.pid,containerd.pid}
  rmdir -- "$dir" 2>/dev/null || true
}

finish() { # DIR FILE: end the process in the pid file
  local pid i
  pid=$(running "$1" "$2") || return 0
  kill -TERM "$pid" 2>/dev/null || true
  for ((i = 0; i < 150; i++)); do
    running "$1" "$2" >/dev/null || return 0
    sleep 0.2
  done
  say "process $pid (${2%.pid}) does not end: killing it"
  kill -KILL "$pid" 2>/dev/null || true
}

# shims kills the leftovers of an engine that died: the shims that use the address of
# this containerd, and their containers.
shims() { # DIR
  local file pid children
  for file in /proc/[0-9]*/cmdline; do
    pid=${file//[^0-9]/}
    if cmdline "$pid" | grep -qF -- " -address $1/containerd.sock "; then
      children=$(cat "/proc/$pid"/task/*/children 2>/dev/null || true)
      # shellcheck disable=SC2086 # a list of numbers
      kill -KILL $children "$pid" 2>/dev/null || true
    fi
  done
}

run() {
  (($#)) || die "usage: engine.sh run COMMAND..."
  if ! private && answers; then exec "$@"; fi
  local status=0
  dir=$(mktemp -d "${TMPDIR:-/var/tmp}/snap-engine.XXXXXX")
  if ! DOCKER_HOST=$(start "$dir"); then
    rmdir -- "$dir" 2>/dev/null || true
    ! private || die "the engine that SNAP_ENGINE_DIR and SNAP_ENGINE_CONFIG ask for does not start"
    [[ ${SNAP_TEST_DOCKER:-} != require ]] || die "no engine answers and none can be started, but SNAP_TEST_DOCKER=require"
    say "no engine answers and none can be started: going on without"
    unset DOCKER_HOST
    exec "$@"
  fi
  export DOCKER_HOST
  # shellcheck disable=SC2154 # dir is set above; it is not local, because the trap needs it
  trap 'stop "$dir"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  if private; then say "using a private engine in $dir"; else say "no engine answers: using a private one in $dir"; fi
  "$@" || status=$?
  exit "$status"
}

versions() {
  local compose=(docker compose)
  [[ -z ${SNAP_TEST_COMPOSE:-} ]] || compose=("$SNAP_TEST_COMPOSE")
  printf 'engine: %sstorage driver %s, Compose %s\n' \
    "$(docker version --format '{{range .Server.Components}}{{.Name}} {{.Version}}, {{end}}')" \
    "$(docker info --format '{{.Driver}}')" \
    "$("${compose[@]}" version --short 2>/dev/null || echo none)"
}

case ${1:-} in
  run) shift; run "$@" ;;
  start) dir=$(directory "${2:-}"); start "$dir" ;;
  stop) dir=$(directory "${2:-}"); stop "$dir" ;;
  versions) versions ;;
  *) die "usage: engine.sh run COMMAND... | start DIR | stop DIR | versions" ;;
esac
