--[[ purge_ended: deletes ended tasks whose default retention has elapsed, of the queue and state that
are due first.

KEYS    ended_due, ended:<queue>:<state>, ended:<queue>:<state>:<piece>, task:<id>
ARGV[5] retain_ms   how long a completed task without its own retention is kept
ARGV[6] retain_ms   how long a dead one is
ARGV[7] retain_ms   how long a cancelled or expired one is
ARGV[8] limit       maximum of tasks looked at
RETURNS {number of tasks deleted, 1 if a queue was due and readable, else 0}
MOVES   completed, dead, cancelled, expired -> -
COST    O(limit log queue)
]]
local key, deleted, is_done = base .. 'ended_due', 0, false
-- A queue whose record or index cannot be read is passed over, so that it keeps no task of others.
local page, queues, limit = call('ZRANGE', key, 0, 19, 'WITHSCORES'), {}, tonumber(ARGV[8])
for i = 1, #page, 2 do
  local queue = string.match(page[i], '^(.+):')
  if queue and raw_records[queue] == nil then raw_records[queue], queues[#queues + 1] = false, queue end
end
local answer = open_call(queues)
if answer then return answer end

local RETAIN_MS = { completed = tonumber(ARGV[5]), dead = tonumber(ARGV[6]), cancelled = tonumber(ARGV[7]), expired = tonumber(ARGV[7]) }

-- Deletes a task by its entry in a list, unless it has its own retention or cannot be read. An entry of a task in another
-- state goes.
local function purge(key, id, queue, state)
  -- A stopped call may have left it in two keys.
  if loaded_keys[base .. 'task:' .. id] then
    zset_remove(key, id)
    return
  end
  local task, reason = try_task(id, WAITING_FIELDS)
  if reason then return end
  if not task or task[F.state] ~= state then
    local list = ended_list(queue, state)
    if key == list.key then remove_from_head(list) end
    zset_remove(key, id)
  elseif (task[F.retain_ms] or '') == '' then
    task[F.queue] = queue
    delete_task(task, key)
    deleted = deleted + 1
  end
end

-- Returns the time of the first end that was not looked at, nil if there is none, false if the list cannot be read. Many tasks
-- with an own retention may have ended at once: then it looks at more than the limit, so that it moves on.
local function purge_from(queue, state, from)
  local head, retain_ms, record = base .. 'ended:' .. queue .. ':' .. state, RETAIN_MS[state], record_of(queue)
  local looked_at, key, number, pieces = 0, head, nil, nil
  if record.tail ~= '' then
    use_pieces()
    pieces = pieces_of(record)[state]
  end
  if pieces then
    number = first_piece_from(head, pieces, from)
    if not number then return false end
  end
  while true do
    local skip, page = 0, nil
    repeat
      page = redis.pcall('ZRANGEBYSCORE', key, digits(from), '+inf', 'WITHSCORES', 'LIMIT', skip, limit)
      if page.err then return false end
      for i = 1, #page, 2 do
        local ended_at = tonumber(page[i + 1])
        if ended_at + retain_ms > now then return ended_at end
        if looked_at >= limit and (ended_at > from or deleted > 0) then return ended_at end
        if looked_at >= 20 * limit then return from + 1 end
        purge(key, page[i], queue, state)
        looked_at = looked_at + 1
      end
      skip = skip + limit
    until #page < 2 * limit
    if not pieces or number > pieces.last then return nil end
    key, number = head .. ':' .. digits(number), number + 1
  end
end

-- Purges the tasks of a member of `ended_due`. Returns whether it could.
local function purge_list(member, due_at)
  local queue, state = string.match(member, '^(.+):(%a+)$')
  if not RETAIN_MS[state] then
    zset_remove(key, member)
    return true
  end
  if not pcall(record_of, queue) then return false end
  local next_at = purge_from(queue, state, due_at - RETAIN_MS[state])
  if next_at == false then return false end
  local record = record_of(queue)
  local flag, is_listed = ended_flag(record, queue, state)
  if next_at then write_last('ZADD', key, digits(next_at + RETAIN_MS[state]), member) else zset_remove(key, member) end
  if is_listed ~= (next_at ~= nil) then
    record[L.queue.flags], record[L.queue.behind] = record[L.queue.flags] + (next_at and flag or -flag), true
  end
  return true
end

for i = 1, #page, 2 do
  local due_at = tonumber(page[i + 1])
  is_done = not is_done and due_at <= now and purge_list(page[i], due_at) or is_done
end
return commit({ deleted, is_done and 1 or 0 })
