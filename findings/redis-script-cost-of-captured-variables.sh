#!/usr/bin/env bash
# In a Redis script, a function costs more to define the more other variables are captured at that moment.
#
# Seen with Redis 7.0.15. A script is a chunk whose functions are defined anew at each call. A guess would be that defining
# `function() return first end` costs the same wherever it stands. But Lua 5.1 keeps all captured variables of a running
# function in one list, newest first, and walks it from the front to see whether `first` is in it. With 150 variables that
# other functions capture, and that are newer than `first`, the definition takes several times as long. So a script with
# 60 helper functions pays for the square of what they share.
#
# The walk ends where the function ends. If the script's helpers stand in one more function, so that `first` is a variable of
# an outer one, each definition copies a pointer: `return (function() … end)()` around all but the first lines of a script.
# The commands and the results of the script are the same.
#
# Output seen (nanoseconds a definition): "alone 55, among 150 others 534, in an outer function 80"; the numbers vary, the
# order does not.
set -euo pipefail
dir=$(mktemp -d)
redis-server --port 0 --unixsocket "$dir/s" --save '' --dir "$dir" > "$dir/log" &
server=$!
trap 'kill "$server"; rm -rf "$dir"' EXIT
redis-server --version
redis() { redis-cli -s "$dir/s" "$@" 2>&1; }
until redis ping > /dev/null; do sleep 0.1; done

# others COUNT: variables, and functions that capture fifty of them each.
others() {
  local i j
  for ((i = 0; i < $1; i++)); do echo "local other$i = 1"; done
  for ((i = 0; i < $1; i += 50)); do
    printf 'local keep%d = function() return other%d' $i $i
    for ((j = i + 1; j < i + 50; j++)); do printf ', other%d' $j; done
    echo ' end'
  done
}
loop='for i = 1, 200000 do local f = function() return first end end'
first='local first = 1 local keep = function() return first end'

# nanoseconds SCRIPT: of one of its 200,000 definitions, by Redis' own microseconds of the call.
nanoseconds() {
  redis CONFIG RESETSTAT > /dev/null
  redis EVAL "$1" 0 > /dev/null
  redis INFO commandstats | sed -n 's/^cmdstat_eval:calls=1,usec=\([0-9]*\),.*/\1/p' | awk '{ print int($1 / 200) }'
}
alone=$(nanoseconds "$first $loop")
among=$(nanoseconds "$first $(others 150) $loop")
outer=$(nanoseconds "$first $(others 150) return (function() $loop end)()")
echo "alone $alone, among 150 others $among, in an outer function $outer"
[ "$among" -gt $((2 * alone)) ] && [ "$among" -gt $((2 * outer)) ] ||
  { echo "Redis behaves differently now" >&2; exit 1; }
