#!/usr/bin/env bash
# A Slotwheel worker in bash (4.2 or later) and curl.
#
#     SLOTWHEEL_URL=http://127.0.0.1:8080 examples/worker.sh [queue]
#
# It runs one task at a time: claim, work, report. To make it yours, change `work`.
#
# It reads JSON with a regular expression. Inside a JSON string every quote has a backslash before it, so the text
# "lease":" can only be the name of a field, never a part of a string. The expression ignores depth: it takes the first
# field of a name. That is correct if payloads have no fields `id` and `lease`; for other payloads use a parser, such as
# jq.
set -u

url=${SLOTWHEEL_URL:-http://127.0.0.1:8080}
url=${url%/}
queue=${1:-default}
worker=shell-$HOSTNAME-$$
lease_ms=30000
wait_ms=20000

# The work itself. Its input is the claimed task in $answer; its output is the result, as JSON. If it returns non-zero
# the attempt has failed, and its stderr is the message.
work() {
    local path digest lines
    if string path_base64; then
        # Not $(...), which would drop newlines at the end of the name.
        IFS= read -r -d '' path < <(base64 -d <<<"$REPLY")
    elif string path; then
        unescape
        path=$REPLY
    else
        echo "the payload has no path" >&2
        return 1
    fi
    digest=$(sha256sum <"$path") || return
    lines=$(wc -l <"$path") || return
    printf '{"sha256":"%s","lines":%d,"worker":"%s"}' "${digest%% *}" "$lines" "$worker"
}

# string NAME: puts the first field NAME of $answer that is a string into $REPLY, with its escapes.
string() {
    local field="\"$1\":[[:space:]]*\"(([^\"\\\\]|\\\\.)*)\""
    [[ $answer =~ $field ]] && REPLY=${BASH_REMATCH[1]}
}

# Decodes JSON's escapes in $REPLY. Outside ASCII, \u works in a UTF-8 locale, and surrogate pairs are not joined;
# demo.py sends such text unescaped.
unescape() {
    local quote='"' slash=/
    REPLY=${REPLY//\\\\/\\0134} # pairs first, as printf prints one backslash; the others begin an escape
    REPLY=${REPLY//\\$quote/$quote}
    REPLY=${REPLY//\\$slash/$slash}
    printf -v REPLY %b "$REPLY"
}

log() { printf '%s: %s\n' "$worker" "$*" >&2; }

# join PID: waits for a child, even if signals arrive.
join() {
    local code
    wait "$1"
    code=$?
    while ((code > 128)) && kill -0 "$1" 2>/dev/null; do
        wait "$1"
        code=$?
    done
    return "$code"
}

# send PATH BODY: sends a request once. Sets $status, 000 without a response, and the body in $answer.
# curl runs in the background because bash handles a signal only between commands or in `wait`.
send() {
    : >"$tmp/head"
    curl --silent --max-time $((wait_ms / 1000 + 10)) --header 'Content-Type: application/json' --data-binary @- \
        --output "$tmp/body" --dump-header "$tmp/head" --write-out '%{http_code}' "$url$1" <<<"$2" >"$tmp/status" &
    curl=$!
    [[ $polling && $stopping ]] && kill "$curl"
    status=000 answer=
    # curl also fails if the response is incomplete.
    if join "$curl" 2>/dev/null; then
        read -r status <"$tmp/status"
        IFS= read -r -d '' answer <"$tmp/body"
    fi
}

# request PATH BODY: repeats a request until it gets a response. Repeating is safe: the server answers a repeated report
# or claim as it did the first time. Fails if a signal to stop arrives first; a report then has 5 more seconds.
request() {
    local tries=0 pause after
    while :; do
        send "$1" "$2"
        case $status in
            000 | 408 | 429 | 5??) ;;
            *)
                ((tries > 1)) && log "the server is available again"
                return 0
                ;;
        esac
        if [[ $stopping ]] && { [[ $polling ]] || ((SECONDS > stopping + 5)); }; then
            return 1
        fi
        # From half a second to 10 seconds, doubling, half of it random, and at least Retry-After.
        pause=$((500 << (tries < 5 ? tries : 5)))
        ((pause > 10000)) && pause=10000
        [[ $stopping ]] && pause=500
        pause=$((pause / 2 + RANDOM % (pause / 2)))
        after=$(sed -n 's/^[Rr]etry-[Aa]fter: *\([0-9]\{1,4\}\).*/\1/p' "$tmp/head")
        ((${after:-0} * 1000 > pause)) && pause=$((after * 1000 + RANDOM % 500))
        ((tries == 1)) && log "$1 failed (status $status); repeating it"
        tries=$((tries + 1))
        sleep "$(printf '%d.%03d' $((pause / 1000)) $((pause % 1000)))" &
        nap=$!
        wait "$nap"
        kill "$nap" 2>/dev/null
    done
}

# Claims a task. Succeeds if there is one: $id, $lease, and the whole task in $answer.
claim() {
    local ask
    # claim_id makes the claim safe to repeat: if a response is lost, the next one has the same task.
    ask="\"queues\":[\"$queue\"],\"worker\":\"$worker\",\"lease_ms\":$lease_ms,\"claim_id\":\"$worker-$RANDOM$RANDOM\""
    polling=1
    request /claim "{$ask,\"wait_ms\":$wait_ms}"
    polling=
    # Stopped while waiting: the response that did not arrive may have had a task.
    [[ $stopping && $status != 200 ]] && request /claim "{$ask}"
    case $status in
        200) ;;
        4??)
            log "/claim rejected: $status $answer"
            exit 1
            ;;
        *) return 1 ;;
    esac
    string id || return 1
    id=$REPLY
    string lease && lease=$REPLY
}

# report VERB [FIELDS]: reports the outcome of the claimed task. Fails if the server rejects the report.
report() {
    request "/$1" "{\"id\":\"$id\",\"lease\":\"$lease\"${2:+,$2}}" || {
        log "no response to /$1 for $id; its lease will expire"
        return 0
    }
    case $status in
        200) [[ $1 != complete ]] || completed=$((completed + 1)) ;;
        404 | 409) log "/$1 is too late for $id: $answer" ;;
        *)
            log "/$1 for $id rejected: $status $answer"
            return 1
            ;;
    esac
}

# fail TYPE MESSAGE [FIELDS]
fail() {
    local message
    # Printable ASCII only, so that no byte can break the JSON.
    message=$(printf %s "$2" | LC_ALL=C tr -cd '[:print:]' | cut -c 1-1000 | sed 's/["\\]/\\&/g')
    report fail "\"error\":{\"type\":\"$1\",\"message\":\"$message\"}${3:+,$3}"
}

# Works on the claimed task, and reports its outcome.
perform() {
    local code
    : >"$tmp/abandon"
    echo "$id $lease" >"$tmp/held"
    work </dev/null >"$tmp/result" 2>"$tmp/error" &
    job=$!
    # A signal that arrived before $job was set has ended no job.
    [[ $stopping || -s $tmp/abandon ]] && abandon
    join "$job" 2>/dev/null
    code=$?
    job=
    : >"$tmp/held"
    if [[ -s $tmp/abandon ]]; then
        log "$id is cancelled or its lease is lost; abandoning it"
        report release
    elif ((code == 0)); then
        report complete "\"result\":$(<"$tmp/result")" ||
            fail ResultRejected "$answer" '"retry":false'
    elif [[ $stopping ]]; then
        report release
    else
        log "$id failed: $(head -n 1 "$tmp/error")"
        fail WorkFailed "$(<"$tmp/error")"
    fi
}

# Extends the lease of the task in work, every third of a lease, so that two heartbeats may be lost. Ends with the
# worker, however that ended, so that the lease of a dead worker expires.
heartbeats() {
    local held=$tmp/held abandon=$tmp/abandon id lease task
    tmp=$tmp/heartbeat
    polling=
    while sleep $((lease_ms / 3000)) && kill -0 $$ 2>/dev/null; do
        read -r id lease <"$held" || continue
        task="{\"id\":\"$id\",\"lease\":\"$lease\",\"lease_ms\":$lease_ms}"
        send /heartbeat "{\"worker\":\"$worker\",\"tasks\":[$task]}"
        if [[ $answer == *'"cancel_requested":true'* || $answer == *'"code":"lease_lost"'* ]]; then
            # The task may have been reported since, and another one claimed.
            [[ "$id $lease" == "$(<"$held")" ]] && echo yes >"$abandon" && kill -USR1 $$
        fi
    done
}

# On a signal: ends the long poll, abandons the task in work and releases it.
stop() {
    stopping=${stopping:-$SECONDS}
    [[ $polling && $curl ]] && kill "$curl" 2>/dev/null
    abandon
}
abandon() { [[ $job ]] && kill -- "-$job" 2>/dev/null; }

stopping='' polling='' curl='' job=''
tmp=$(mktemp -d) || exit 1
mkdir "$tmp/heartbeat"
: >"$tmp/held"
trap stop TERM INT
trap abandon USR1
# Each background job gets its own process group: it can be ended with its children, and Ctrl-C reaches this shell only.
set -m
heartbeats </dev/null &
beats=$!
trap 'kill -- "-$beats"; wait "$beats" 2>/dev/null; rm -rf "$tmp"' EXIT

log "claiming from queue $queue at $url"
completed=0
while [[ ! $stopping ]]; do
    claim || continue
    if [[ $stopping ]]; then
        report release
    else
        perform
    fi
done
log "stopped; $completed tasks completed"
