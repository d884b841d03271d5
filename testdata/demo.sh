#!/usr/bin/env bash
# Shows snap in under a minute on a tiny web app with two volumes: capture, restore,
# a restore that is killed half-way through its swap, and recovery. Every sentence
# that it prints after "ok:" has been checked; a false one ends the demo.
#
# It creates one temporary directory, and a container, a network and an image with
# unique names. All of these are removed at the end. Without a Docker engine the
# demo runs on a data-only workload.
set -euo pipefail

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

name=blog-$(printf '%04x%04x' "$RANDOM" "$RANDOM")
image=snap-demo/$name:latest
tmp=$(mktemp -d "${TMPDIR:-/var/tmp}/snap-demo.XXXXXX")
engine=no
server=''
first=''
second=''

cleanup() {
  [[ -z $server ]] || kill "$server" 2>/dev/null || true
  if [[ $engine == yes ]]; then
    local ids
    mapfile -t ids < <(docker ps --all --quiet --filter "label=snap.workload=$name")
    ((${#ids[@]} == 0)) || docker rm --force "${ids[@]}" >/dev/null 2>&1 || true
    docker network rm "${name}_default" >/dev/null 2>&1 || true
    docker image rm "$image" >/dev/null 2>&1 || true
  fi
  rm -rf -- "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# --- output ---------------------------------------------------------------

# One stream, so that snap's progress appears in the right place.
exec 2>&1

heading() { printf '\n== %s\n' "$*"; }
note() { printf '# %s\n' "$*"; }

# run prints a command as one would type it, and runs it.
run() { # COMMAND...
  shown '' "$@"
  "$@"
}

# keep does the same and puts the output of the command into a variable.
keep() { # VARIABLE COMMAND...
  local -n kept=$1
  shift
  shown "${!kept}=\$(" "$@"
  kept=$("$@")
}

shown() { # BEFORE COMMAND...
  local word line=''
  for word in "${@:2}"; do
    [[ $word =~ ^[A-Za-z0-9_./:=@,+-]+$ ]] || word=${word@Q}
    line+=${line:+ }$word
  done
  [[ -z $1 ]] || line+=')'
  printf '$ %s%s\n' "$1" "$line"
}

# claim runs a check, and prints the sentence if the check holds.
claim() { # SENTENCE COMMAND...
  local sentence=$1
  shift
  "$@" || { printf 'FAILED: %s\n(the check was: %s)\n' "$sentence" "${*@Q}" >&2; exit 1; }
  printf 'ok: %s\n' "$sentence"
}

equal() { [[ $1 == "$2" ]] || { printf 'want: %s\n got: %s\n' "${2@Q}" "${1@Q}" >&2; return 1; }; }
differ() { [[ $1 != "$2" ]]; }
contains() { [[ $1 == *"$2"* ]] || { printf '%s\ndoes not contain %s\n' "$1" "${2@Q}" >&2; return 1; }; }

# field prints one string field of a JSON object from snap.
field() { sed -n 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p' | head -n 1; }

# --- set-up ---------------------------------------------------------------

case $(stat -f -c %T -- "$tmp") in
  tmpfs | ramfs | overlayfs | nfs | fuse*)
    echo "demo: $tmp is on $(stat -f -c %T -- "$tmp"), which snap refuses: set TMPDIR to a directory on ext4, xfs or btrfs" >&2
    exit 1
    ;;
esac
if ((EUID == 0)) && timeout 30 docker version >/dev/null 2>&1; then
  engine=yes
elif [[ ${SNAP_TEST_DOCKER:-} == require ]]; then
  echo 'demo: no Docker engine can be reached as root, but SNAP_TEST_DOCKER=require' >&2
  exit 1
else
  # An engine that answers only to root cannot tell this user which containers use
  # the directories, so snap would refuse to restore. No container can use these
  # new directories, so the demo hides the engine from snap.
  export DOCKER_HOST=unix://$tmp/none
fi

heading "Build snap and a tiny web app"
run env CGO_ENABLED=0 go build -o "$tmp/bin/" ./cmd/snap ./testdata/app
PATH=$tmp/bin:$PATH

free_port() { # below the kernel's range of ephemeral ports
  local port
  while port=$((20000 + RANDOM % 12000)); do
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      printf '%s\n' "$port"
      return
    fi
  done
}
port=$(free_port)
export URL=http://127.0.0.1:$port SNAP_CONFIG=$tmp/snap.yaml
posts=$tmp/apps/$name/default/posts
counts=$tmp/apps/$name/counts
mkdir -p -- "$posts" "$counts"

{
  cat <<END
version: 1
state: $tmp/state
store: $tmp/store
base: $tmp/apps
workloads:
  $name:
END
  [[ $engine == no ]] || cat <<END
    image: $image
    environment: {META: /counts}
    ports: ["127.0.0.1:$port:8080"]
    restart: unless-stopped
    healthcheck: {test: ["CMD", "/app", "healthcheck"], interval: 1s}
END
  cat <<END
    volumes:
      - {scope: stage,   source: posts,  target: /data}     # the posted lines
      - {scope: project, source: counts, target: /counts}   # the number of lines
END
} >"$SNAP_CONFIG"

if [[ $engine == yes ]]; then
  note "The app is the only file of its image; no registry is needed."
  # shellcheck disable=SC2016 # printed literally
  printf '$ tar -C %s -c app | docker import -c '\''ENTRYPOINT ["/app"]'\'' - %s\n' "$tmp/bin" "$image"
  tar -C "$tmp/bin" -c app | docker import -c 'ENTRYPOINT ["/app"]' - "$image"
else
  note "No Docker engine can be reached: this demo uses a data-only workload."
  note "The app runs as a plain process, which snap does not know."
  LISTEN=127.0.0.1:$port DATA=$posts META=$counts app &
  server=$!
  for _ in {1..50}; do
    app healthcheck 2>/dev/null && break
    sleep 0.1
  done
fi
run cat "$SNAP_CONFIG"

# up checks that the app is up, and under Docker that it would start after a reboot.
up() {
  app healthcheck || return 1
  [[ $engine == yes ]] || return 0
  equal "$(docker inspect --format '{{.State.Status}} {{.HostConfig.RestartPolicy.Name}}' "$name")" 'running unless-stopped'
}

# serves checks that the app is up with these lines, and that its count matches.
serves() {
  up && equal "$(app get)" "$(printf '%s\n' "$@")" && equal "$(app get /count)" "$#"
}

# comes_up waits until the app answers. A recovery that rolls back starts the app but,
# unlike a restore, does not wait for its health.
comes_up() {
  for _ in {1..300}; do
    ! app healthcheck 2>/dev/null || break
    sleep 0.1
  done
  up
}

# --- demo -----------------------------------------------------------------

if [[ $engine == yes ]]; then
  heading "Deploy"
  run snap deploy "$name"
else
  heading "Post"
fi
claim "the app is up" up
run app post 'Monday: hello'
run app post 'Tuesday: it works'

heading "Capture"
keep first snap capture "$name" --note 'a good day'
run snap list "$name"
claim "the app is up" up

heading "A mistake, and the way back"
run app post 'Wednesday: all your base are belong to us'
run app get
# Under strace, because the second restore will be killed at one of these calls.
restore=(snap restore "$name" "$first" --confirm "$first")
if command -v strace >/dev/null; then
  run strace -f -y -qq -o "$tmp/trace" -e trace=renameat2 "${restore[@]}"
else
  run "${restore[@]}"
fi
run app get
claim "the app is up and serves the captured lines" serves 'Monday: hello' 'Tuesday: it works'
run snap list "$name"
claim "the data from before the restore is a snapshot too" contains "$(snap list "$name")" pre-restore

if [[ ! -f $tmp/trace ]]; then
  note "The rest, a restore that is killed half-way, needs strace, which is not installed: skipped."
  exit 0
fi

heading "A restore is killed between its two volumes"
run app post 'Thursday: a new start'
keep second snap capture "$name"
run app post 'Friday: one line more'
note "The first restore shows which renameat2 of which thread swaps the second volume:"
grep -E '"(posts|counts)".*RENAME_EXCHANGE' "$tmp/trace"
# Count the calls of each thread, because strace counts by thread too.
when=$(awk '$2 ~ /^renameat2\(/ {
  calls[$1]++
  if (/RENAME_EXCHANGE/ && /"(posts|counts)"/ && ++swaps == 2) { print calls[$1]; exit }
}' "$tmp/trace")
claim "there are two swaps" test -n "$when"
note "So the SIGKILL comes at call number $when. A power cut would kill snap's watchdog too,"
note "so the watchdog is kept from starting: it would bring the app back by itself."
status=0
run strace -f -qq -o /dev/null -e trace=renameat2,setsid -e inject=setsid:error=EPERM \
  -e "inject=renameat2:signal=SIGKILL:when=$when" \
  snap restore "$name" "$second" --confirm "$second" || status=$?
claim "the restore was killed" equal "$status" 137
run wc -l "$posts/posts.txt"
run cat "$counts/count"
claim "the two volumes on disk are of two different moments" \
  differ "$(wc -l <"$posts/posts.txt")" "$(cat -- "$counts/count")"
if [[ $engine == yes ]]; then
  # shellcheck disable=SC2016 # a template for docker
  claim "no container runs on them, and none would after a reboot" \
    equal "$(docker inspect --format '{{.State.Running}} {{.HostConfig.RestartPolicy.Name}}' "$name")" 'false no'
fi
run snap status "$name"
status=0
run snap capture "$name" || status=$?
claim "until the recovery, snap refuses to touch the workload" equal "$status" 6

heading "Recover"
run snap recover
claim "the app comes up" comes_up
run app get
claim "the app is up and serves the lines from before the restore, which had not committed" \
  serves 'Monday: hello' 'Tuesday: it works' 'Thursday: a new start' 'Friday: one line more'
claim "a second recovery has nothing to do" equal "$(snap recover --json | field action)" ''
claim "nothing is left beside the volumes" equal "$(find "$tmp/apps" -name '.snap-*')" ''

if [[ $engine == yes ]]; then
  heading "The same kill, with the watchdog"
  status=0
  run strace -f -b execve -qq -o /dev/null -e trace=renameat2 -e "inject=renameat2:signal=SIGKILL:when=$when" \
    snap restore "$name" "$second" --confirm "$second" || status=$?
  claim "the restore was killed" equal "$status" 137
  ended() { [[ -z $(find "$tmp/state/tx" -mindepth 1) ]]; }
  for _ in {1..300}; do
    ! ended || break
    sleep 0.1
  done
  claim "the watchdog has brought everything back without a recover" ended
  claim "the app comes up" comes_up
  claim "the app is up and serves its old lines" serves 'Monday: hello' 'Tuesday: it works' 'Thursday: a new start' 'Friday: one line more'
fi

heading "The same restore, not killed"
run snap restore "$name" "$second" --confirm "$second"
claim "the app is up and serves the captured lines" serves 'Monday: hello' 'Tuesday: it works' 'Thursday: a new start'
printf '\nThe demo has passed.\n'
