--[[ idempotency: open the record of an Idempotency-Key, or close it with the outcome.

KEYS[1] calls       hash   the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'idem:' .. digest (hash)        same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] keep_ms     how long a record holds
ARGV[6] count       of records; then for each: digest of the key, digest of the body, id for the task, and '' to open it or
                    the status to close it
RETURNS {'open', id} | {'closed', id, status} | {'mismatch'}, each
MOVES   -
COST    O(n)
]]
if last then return last end

local keep_ms = tonumber(ARGV[5])
local replies = {}
for i = 1, tonumber(ARGV[6]) do
  local at = 3 + 4 * i
  local key, body, id, status = base .. 'idem:' .. ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local record = call('HMGET', key, 'body', 'id', 'status', 'until')
  touched[key] = true
  local holds = record[1] and tonumber(record[4]) > now
  local outcome = holds and record[3] and record[3] ~= '' and record[3]
  if holds and record[1] ~= body then
    replies[i] = { 'mismatch' }
  elseif outcome then
    replies[i] = { 'closed', record[2], outcome }
  elseif holds and status == '' then
    replies[i] = { 'open', record[2] }
  else
    write('HSET', key, 'body', body, 'id', id, 'status', status, 'until', holds and record[4] or digits(now + keep_ms))
    if not holds then write('PEXPIRE', key, ARGV[5]) end
    replies[i] = status == '' and { 'open', id } or { 'closed', id, status }
  end
end
return commit(cmsgpack.pack(replies))
