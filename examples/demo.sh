#!/usr/bin/env bash
# The demo: one task per file of a directory, three workers in three languages, every result checked.
#
#     examples/demo.sh [DIRECTORY]        or DEMO_DIR; by default /usr/share/doc
#
# SLOTWHEEL_BIN is the server to run, by default target/release/slotwheel. It gets a free port and a temporary
# directory. The exit code is 0 if every digest and line count is present and correct.
set -u

examples=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=${SLOTWHEEL_BIN:-$examples/../target/release/slotwheel}
directory=${1:-${DEMO_DIR:-/usr/share/doc}}

die() {
    echo "demo: $*" >&2
    exit 1
}

for tool in curl python3 node sha256sum redis-server; do
    command -v "$tool" >/dev/null || die "$tool is needed"
done
[[ -x $bin ]] || die "there is no server at $bin; build it, or name another one with SLOTWHEEL_BIN"
[[ -d $directory ]] || die "$directory is not a directory"

# start LOG COMMAND...: runs the command in its own process group, so that Ctrl-C reaches only this script, which then
# stops everything in order. The process id is $started.
start() {
    local log=$1
    shift
    set -m
    "$@" >>"$tmp/$log" 2>&1 </dev/null &
    started=$!
    set +m
}

alive() { kill -0 "$1" 2>/dev/null; }

start_server() {
    start server.log "$bin" --listen "127.0.0.1:$port" --data-dir "$tmp/data"
    server=$started
    until curl --silent --fail --output "$tmp/ready" "$SLOTWHEEL_URL/readyz"; do
        alive "$server" || {
            server=
            die "the server did not start: $(tail -n 5 "$tmp/server.log")"
        }
        sleep 0.1
    done
    echo "server on $SLOTWHEEL_URL, process $server"
}

start_worker() {
    start "$1.log" "$examples/$1" demo
    workers+=("$started")
    echo "$1, process $started"
}

stop() {
    kill "$1" 2>/dev/null
    wait "$1" 2>/dev/null
}

cleanup() {
    local code=$? worker
    trap - EXIT
    trap '' INT TERM HUP
    ((code == 0 || code > 128)) || tail -n 5 "$tmp"/*.log
    [[ $submit ]] && stop "$submit"
    ((${#workers[@]})) && kill "${workers[@]}" 2>/dev/null
    for worker in "${workers[@]}"; do
        stop "$worker"
    done
    if [[ $server ]]; then
        # A killed server leaves its Redis running: the next server adopts it, and stops it.
        alive "$server" || start_server >/dev/null
        stop "$server"
    fi
    rm -rf "$tmp"
    exit "$code"
}

# count STATE: prints the number of tasks of $queue in that state.
count() {
    local field="\"$1\":([0-9]+)"
    [[ $queue =~ $field ]] && echo "${BASH_REMATCH[1]}"
}

tmp=$(mktemp -d "${TMPDIR:-/tmp}/slotwheel-demo.XXXXXX") || exit 1
server='' workers=() submit=''
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The demo ignores settings from the environment, such as a Redis.
unset "${!SLOTWHEEL_@}"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export SLOTWHEEL_URL=http://127.0.0.1:$port

start_server
start_worker worker.sh
start_worker worker.py
start_worker worker.mjs
mkdir "$tmp/links"
start submit.log python3 "$examples/demo.py" submit "$SLOTWHEEL_URL" "$directory" "$tmp/links"
submit=$started

SECONDS=0
total=
while :; do
    sleep 1
    alive "$server" || {
        echo "the server has exited; restarting it"
        start_server
    }
    if [[ $submit ]] && ! alive "$submit"; then
        wait "$submit" || die "the submit failed"
        submit=
        cat "$tmp/submit.log"
    fi
    if queue=$(curl --silent --fail --max-time 5 "$SLOTWHEEL_URL/queues/demo"); then
        total=$(count submitted)
        ended=$(($(count completed) + $(count dead) + $(count cancelled) + $(count expired)))
        echo "$SECONDS s: $total submitted, $(count ready) ready, $(count leased) leased, $(count completed) completed"
        [[ ! $submit ]] && ((ended == total)) && break
    fi
    alive "${workers[0]}" || alive "${workers[1]}" || alive "${workers[2]}" || die "no worker is left"
done

echo "now sha256sum and wc -l over the same files"
cd "$tmp/links" || exit 1
printf '%s\0' * | xargs -0 sha256sum >"$tmp/digests"
printf '%s\0' * | xargs -0 wc -l >"$tmp/counts"
python3 "$examples/demo.py" check "$SLOTWHEEL_URL" "$tmp/links" "$tmp/digests" "$tmp/counts"
