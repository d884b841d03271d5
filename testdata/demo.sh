#!/usr/bin/env bash
# The story of snap in under a minute, on a tiny web app with two volumes: capture,
# restore, a restore killed half-way through its swap, recovery. Every sentence
# that it prints behind "ok:" has been checked; when one does not hold, it fails.
#
# All that it makes lies in one temporary directory, and in one container, one
# network and one image of its own names; all of it is removed at the end.
# Without a Docker engine the same story runs on a data-only workload.
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

# --- how it is told -------------------------------------------------------

# One stream, so that what snap says of its progress stands where it said it.
exec 2>&1

heading() { printf '\n== %s\n' "$*"; }
note() { printf '# %s\n' "$*"; }

# run shows a command as one would type it, and runs it.
run() { # COMMAND...
  shown '' "$@"
  "$@"
}

# keep does the same with a command whose output is kept in a variable.
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

# claim says what has just been proven.
claim() { # SENTENCE COMMAND...
  local sentence=$1
  shift
  "$@" || { printf 'FAILED: %s\n(the check was: %s)\n' "$sentence" "${*@Q}" >&2; exit 1; }
  printf 'ok: %s\n' "$sentence"
}

equal() { [[ $1 == "$2" ]] || { printf 'want: %s\n got: %s\n' "${2@Q}" "${1@Q}" >&2; return 1; }; }
differ() { [[ $1 != "$2" ]]; }
contains() { [[ $1 == *"$2"* ]] || { printf '%s\ndoes not contain %s\n' "$1" "${2@Q}" >&2; return 1; }; }

# field takes one string of a JSON object of snap's.
field() { sed -n 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p' | head -n 1; }

# --- the stage ------------------------------------------------------------

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
  # An engine that is there but answers only to root cannot tell who uses the
  # directories, and snap would refuse to restore; these here are new.
  export DOCKER_HOST=unix://$tmp/none
fi

heading "Build snap and a tiny web app"
run env CGO_ENABLED=0 go build -o "$tmp/bin/" ./cmd/snap ./testdata/app
PATH=$tmp/bin:$PATH

free_port() { # below the ports that the kernel hands out by itself
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
      - {scope: stage,   source: posts,  target: /data}     # what was posted, line by line
      - {scope: project, source: counts, target: /counts}   # how many lines that is
END
} >"$SNAP_CONFIG"

if [[ $engine == yes ]]; then
  note "The app is the only file of its image; no registry is needed."
  # shellcheck disable=SC2016 # shown as it is run
  printf '$ tar -C %s -c app | docker import -c '\''ENTRYPOINT ["/app"]'\'' - %s\n' "$tmp/bin" "$image"
  tar -C "$tmp/bin" -c app | docker import -c 'ENTRYPOINT ["/app"]' - "$image"
else
  note "No Docker engine can be reached: the same story on a data-only workload."
  note "The app runs as a plain process that snap knows nothing of."
  LISTEN=127.0.0.1:$port DATA=$posts META=$counts app &
  server=$!
  for _ in {1..50}; do
    app healthcheck 2>/dev/null && break
    sleep 0.1
  done
fi
run cat "$SNAP_CONFIG"

# up checks that the app is up, and under Docker that it would be after a reboot.
up() {
  app healthcheck || return 1
  [[ $engine == yes ]] || return 0
  equal "$(docker inspect --format '{{.State.Status}} {{.HostConfig.RestartPolicy.Name}}' "$name")" 'running unless-stopped'
}

# serves checks that the app is up with these lines, and that the other volume agrees.
serves() {
  up && equal "$(app get)" "$(printf '%s\n' "$@")" && equal "$(app get /count)" "$#"
}

# comes_up waits until the app answers: a recovery that goes back starts it, but
# does not wait for its health, as a restore does.
comes_up() {
  for _ in {1..300}; do
    ! app healthcheck 2>/dev/null || break
    sleep 0.1
  done
  up
}

# --- the story ------------------------------------------------------------

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
# Under strace, for the second restore is to be killed at one of these calls.
restore=(snap restore "$name" "$first" --confirm "$first")
if command -v strace >/dev/null; then
  run strace -f -y -qq -o "$tmp/trace" -e trace=renameat2 "${restore[@]}"
else
  run "${restore[@]}"
fi
run app get
claim "the app is up, and serves what was captured" serves 'Monday: hello' 'Tuesday: it works'
run snap list "$name"
claim "what was there before the restore is a snapshot too" contains "$(snap list "$name")" pre-restore

if [[ ! -f $tmp/trace ]]; then
  note "The rest, a restore that is killed half-way, takes strace, which is not there: skipped."
  exit 0
fi

heading "A restore is killed between its two volumes"
run app post 'Thursday: a new start'
keep second snap capture "$name"
run app post 'Friday: one line more'
note "The first restore shows which renameat2 of which thread swaps the second volume:"
grep -E '"(posts|counts)".*RENAME_EXCHANGE' "$tmp/trace"
# The thread's own number of calls, for strace counts by thread too.
when=$(awk '$2 ~ /^renameat2\(/ {
  calls[$1]++
  if (/RENAME_EXCHANGE/ && /"(posts|counts)"/ && ++swaps == 2) { print calls[$1]; exit }
}' "$tmp/trace")
claim "there are two swaps" test -n "$when"
note "So at call number $when comes the SIGKILL. It is to be a power cut, so snap's watchdog"
note "is kept from starting: it would bring the app back by itself."
status=0
run strace -f -qq -o /dev/null -e trace=renameat2,setsid -e inject=setsid:error=EPERM \
  -e "inject=renameat2:signal=SIGKILL:when=$when" \
  snap restore "$name" "$second" --confirm "$second" || status=$?
claim "it was killed" equal "$status" 137
run wc -l "$posts/posts.txt"
run cat "$counts/count"
claim "on disk the two volumes are of two different moments" \
  differ "$(wc -l <"$posts/posts.txt")" "$(cat -- "$counts/count")"
if [[ $engine == yes ]]; then
  # shellcheck disable=SC2016 # a template of docker's
  claim "nothing runs on them, and nothing would after a reboot" \
    equal "$(docker inspect --format '{{.State.Running}} {{.HostConfig.RestartPolicy.Name}}' "$name")" 'false no'
fi
run snap status "$name"
status=0
run snap capture "$name" || status=$?
claim "until it is recovered, snap refuses to touch the workload" equal "$status" 6

heading "Recover"
run snap recover
claim "the app comes up" comes_up
run app get
claim "the app is up, and serves one whole state: that before the restore, which had not committed" \
  serves 'Monday: hello' 'Tuesday: it works' 'Thursday: a new start' 'Friday: one line more'
claim "a second recovery has nothing to do" equal "$(snap recover --json | field action)" ''
claim "nothing was left beside the volumes" equal "$(find "$tmp/apps" -name '.snap-*')" ''

if [[ $engine == yes ]]; then
  heading "The same kill, with the watchdog"
  status=0
  run strace -f -b execve -qq -o /dev/null -e trace=renameat2 -e "inject=renameat2:signal=SIGKILL:when=$when" \
    snap restore "$name" "$second" --confirm "$second" || status=$?
  claim "it was killed" equal "$status" 137
  ended() { [[ -z $(find "$tmp/state/tx" -mindepth 1) ]]; }
  for _ in {1..300}; do
    ! ended || break
    sleep 0.1
  done
  claim "its watchdog has brought everything back; nobody ran recover" ended
  claim "the app comes up" comes_up
  claim "the app is up, and serves what it had" serves 'Monday: hello' 'Tuesday: it works' 'Thursday: a new start' 'Friday: one line more'
fi

heading "And the restore itself, now that nobody kills it"
run snap restore "$name" "$second" --confirm "$second"
claim "the app is up, and serves what was captured" serves 'Monday: hello' 'Tuesday: it works' 'Thursday: a new start'
printf '\nThe demo has passed.\n'
