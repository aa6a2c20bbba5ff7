--[[ idempotency: opens the record of an Idempotency-Key, or completes it with the outcome. If the submit was refused, marks the
open record, so that another body may use the key.

KEYS    idempotency:<digest>
ARGV[5] retain_ms   how long a record is kept
ARGV[6] count       of records; then for each: digest of the key, digest of the body, id for the task, and '' to open it,
                    'refused' to mark it, or the status to complete it
RETURNS {'open', id} | {'completed', id, status} | {'mismatch'} | {'refused'}, for each record
MOVES   -
COST    O(n)
]]
local answer = open_call()
if answer then return answer end

local replies = {}
for i = 1, tonumber(ARGV[6]) do
  local at = 3 + 4 * i
  local key, body, id, status = base .. 'idempotency:' .. ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local record = call('HMGET', key, 'body', 'id', 'status', 'until')
  local is_live = record[1] and tonumber(record[4]) > now
  local is_refused = is_live and record[3] == 'refused'
  local outcome = is_live and not is_refused and record[3] and record[3] ~= '' and record[3]
  if status == 'refused' then
    if record[1] == body and record[2] == id and record[3] == '' then write('HSET', key, 'status', status) end
    replies[i] = { 'refused' }
  elseif is_live and not is_refused and record[1] ~= body then
    replies[i] = { 'mismatch' }
  elseif outcome then
    replies[i] = { 'completed', record[2], outcome }
  elseif is_live and not is_refused and status == '' then
    replies[i] = { 'open', record[2] }
  else
    -- The same body keeps its id: the refusal may have followed a call whose reply was lost.
    if is_refused and record[1] == body and status == '' then id = record[2] end
    write('HSET', key, 'body', body, 'id', id, 'status', status, 'until', is_live and record[4] or digits(now + ARGV[5]))
    -- Twice the time, because a step of Redis' clock shortens a TTL.
    if not is_live then write('PEXPIRE', key, digits(2 * ARGV[5])) end
    replies[i] = status == '' and { 'open', id } or { 'completed', id, status }
  end
end
return commit(replies)
