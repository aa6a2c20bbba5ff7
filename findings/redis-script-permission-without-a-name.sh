#!/usr/bin/env bash
# A script that runs a command which its user may not run fails with an error that does not name the command.
#
# Seen with Redis 7.0.15. Outside of a script, the error names it: "this user has no permissions to run the 'hset' command".
# Inside, it has only the line of the script: "The user executing the script can't run this command or subcommand". A line
# with several commands, or one that builds the name, leaves open which of them was meant. A guess would be that the error of
# redis.call is that of the command. redis/redis#11160 gives both one text.
#
# `redis.acl_check_cmd` in the script, or the same command outside of it, tells which permission is missing.
# Output seen: "outside: named; in a script: not named".
set -euo pipefail
dir=$(mktemp -d)
redis-server --port 0 --unixsocket "$dir/s" --save '' --dir "$dir" > "$dir/log" &
server=$!
trap 'kill "$server"; rm -rf "$dir"' EXIT
redis-server --version
redis() { redis-cli -s "$dir/s" "$@" 2>&1; }
until redis ping > /dev/null; do sleep 0.1; done

redis ACL SETUSER probe on nopass '~*' +@all -hset > /dev/null
denied() { redis --user probe --pass any --no-auth-warning "$@"; }
outside=$(denied HSET key field value)
inside=$(denied EVAL "return redis.call('HSET', KEYS[1], 'field', 'value')" 1 key)
printf '%s\n' "$outside" "$inside"

named() { if grep -q -i hset <<< "$1"; then echo named; else echo 'not named'; fi; }
echo "outside: $(named "$outside"); in a script: $(named "$inside")"
[ "$(named "$outside")" = named ] && [ "$(named "$inside")" = 'not named' ] ||
  { echo "Redis behaves differently now" >&2; exit 1; }
