--[[ refuse_idempotency: marks the open records of refused submits, so that another body may use their Idempotency-Key.

KEYS    idempotency:<digest>
ARGV[5] count       of records; then for each: digest of the key, digest of the body, id of the task
RETURNS {'refused'} | {'kept'}, for each record
MOVES   -
COST    O(n)
]]
if last_reply then return last_reply end

local replies = {}
for i = 1, tonumber(ARGV[5]) do
  local at = 3 + 3 * i
  local key = base .. 'idempotency:' .. ARGV[at]
  local record = call('HMGET', key, 'body', 'id', 'status')
  touched[key] = true
  replies[i] = { 'kept' }
  if record[1] == ARGV[at + 1] and record[2] == ARGV[at + 2] and record[3] == '' then
    write('HSET', key, 'status', 'refused')
    replies[i] = { 'refused' }
  end
end
return commit(replies)
