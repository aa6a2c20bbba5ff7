--[[ claim: leases ready tasks to waiting requests, in the order of the requests.

ARGV[5] max_bytes   of documents handed out; one task is always handed out
ARGV[6] queues      number; then their names
        tokens      number, which is the maximum of tasks; then the tokens
        waiters     the requests, see lease_ready
RETURNS {more, expired, {waiter, token, id, lease_until, queue, placement, document, progress, expires_at} for each task,
        {queue, front} for each queue read, {queue, id} for each task passed over because it is unreadable}
        more: 1 if a limit of the call ended it; expired: 1 if expired tasks were passed over; waiter, token, queue: indexes
        in the call's lists, from 1; front: priority of the next task; -1 if the wheel is empty or the queue is paused, so
        that the next task causes a wake-up; -2 if all tasks were passed over. A repeated call returns the same leases,
        without those that have ended.
MOVES   ready -> leased
COST    O(n log queue), and a page of the wheel for each queue
]]
local queue_names, tokens_at = { unpack(ARGV, 7, 6 + ARGV[6]) }, 7 + ARGV[6]
local answer = open_call(queue_names)
if answer and not last_reply then return answer end

max_tasks, bytes_left = tonumber(ARGV[tokens_at]), tonumber(ARGV[5])
if last_reply then
  local repeat_lease, handouts = define_repetition(), {}
  for from = 1, #last_reply, 22 do
    local waiter, token, queue, id = struct.unpack('>I2I2I2c16', last_reply, from)
    handouts[#handouts + 1] = repeat_lease(waiter, token, ARGV[tokens_at + token], queue, id)
  end
  return cmsgpack.pack({ 1, 0, handouts, {}, {} })
end

local reply, has_changed = lease_ready(queue_names, tokens_at, tokens_at + max_tasks + 1)
-- Without a change not even the record of this call is written.
if not has_changed then return cmsgpack.pack(reply) end
-- For a repetition of this call: waiter, token, queue, id of each task.
local remembered = {}
for i, handout in ipairs(reply[3]) do remembered[i] = struct.pack('>I2I2I2', handout[1], i, handout[5]) .. handout[3] end
return commit(reply, table.concat(remembered))
