-- invariants: checks that indexes, counts and keys agree with the hashes of the tasks, and repairs them by those.
--
-- Each check calls `flag(violation, repair)` for each violation, and stages the writes of the repair. The entries of a task
-- that cannot be read are left alone until it is set aside.
--
-- defines: ENDED, UNREADABLE, MAX_SLOTS, MAX_QUEUES, default_retain_ms, checks, find_task; checks.index_entry,
--   checks.stale_end_fields
-- needs: prelude (scripts that repair) or read_prelude (scripts that check), clock, transaction, records, task, wheel,
--   unindex_end, list_keys
-- keys: task:<id>, slot:<queue>:<priority>:<slot>, slot:<queue>:<priority>:<slot>:<piece>, scheduled:<queue>,
--   leased:<queue>, expirations, ended:<queue>:<state>, ended:<queue>:<state>:<piece>, retention, claim:<digest>
local ENDED = { completed = true, dead = true, cancelled = true, expired = true }
-- The field that is a task's score in the index of its state.
local SCORE_FIELD = { ready = F.seq, scheduled = F.run_at, leased = F.lease_until, completed = F.finished_at,
  dead = F.finished_at, cancelled = F.finished_at, expired = F.finished_at }
local CHECKED_FIELDS = { F.expires_at, F.run_at, F.claim_digest, F.dedupe_digest, F.dedupe_until, F.retain_ms, F.cancel_requested,
  F.successor, F.predecessor, F.start_at }
-- Numbers that may be missing, but not anything else.
local OPTIONAL_NUMBERS = { F.expires_at, F.retain_ms }
-- Limits of the sums of one script.
local MAX_SLOTS, MAX_QUEUES = 32768, 4096
-- State -> how long an ended task without its own retention is kept; set by the script.
local default_retain_ms = {}
local UNREADABLE, known_tasks, checks = {}, {}, {}
-- A record that cannot be read is replaced: all but the numbers of deleted tasks and of turns follows from the tasks.
accepts_unreadable = true

local function is_readable(task)
  if task[F.slot] >= 16384 or task[F.priority] > 9 or task[F.queue] == '' then return false end
  for _, name in ipairs(OPTIONAL_NUMBERS) do
    if task[name] and not tonumber(task[name]) then return false end
  end
  return SCORE_FIELD[task[F.state]] and tonumber(task[SCORE_FIELD[task[F.state]]])
end

-- Returns the task without its empty fields; false if there is none, UNREADABLE if it cannot be read.
local function find_task(id)
  if known_tasks[id] ~= nil then return known_tasks[id] end
  local task = try_task(id, CHECKED_FIELDS)
  if task then
    for _, name in ipairs(CHECKED_FIELDS) do task[name] = task[name] ~= '' and task[name] or nil end
    if task[F.finished_at] == 0 then task[F.finished_at] = nil end
  end
  if not task or not is_readable(task) then task = call('EXISTS', base .. 'task:' .. id) == 1 and UNREADABLE end
  known_tasks[id] = task
  return task
end

local function is_waiting(task)
  return task[F.state] == 'ready' or task[F.state] == 'scheduled'
end

-- Returns the task's score in an index, nil if it must not be there; and whether any score will do.
local function expected_score(task, member, kind, rest)
  local state, queue = task[F.state], task[F.queue]
  if kind == 'slot' then
    local is_right = state == 'ready' and base .. 'slot:' .. rest == key_of(task)
    if task[F.key_digest] == '' then return is_right and tonumber(task[F.seq]) or nil end
    return is_right and member == keyed_member(task[F.key_digest], task[F.seq], task.id) and 0 or nil
  elseif kind == 'scheduled' or kind == 'leased' then
    return state == kind and rest == queue and tonumber(task[SCORE_FIELD[kind]]) or nil
  elseif kind == 'ended' then
    -- An expired task is found to have ended after the time of its end.
    return ENDED[state] and base .. 'ended:' .. rest == key_of(task) and tonumber(task[F.finished_at]) or nil, state == 'expired'
  elseif kind == 'expirations' then
    return is_waiting(task) and tonumber(task[F.expires_at]) or nil
  elseif kind == 'retention' then
    local retain_ms = tonumber(task[F.retain_ms])
    return ENDED[state] and retain_ms and task[F.finished_at] + retain_ms or nil, true
  elseif kind == 'claim' then
    return state == 'leased' and task[F.has_claim] == 1 and string.sub(task[F.claim_digest] or '', 1, 16) == rest and 0 or nil, true
  end
end

-- A task is in the index base .. `index` if its state says so, at the score of its fields. A member is its id, except in a
-- keyed slot queue.
function checks.index_entry(flag, member, index)
  local kind, rest = string.match(index, '^(%a+):?(.*)$')
  local id = kind == 'slot' and string.sub(rest, -2) == ':k' and string.sub(member, 15) or member
  local task = find_task(id)
  if task == UNREADABLE then return end
  local key, expected, any_score, score = base .. index, nil, false, nil
  if task then expected, any_score = expected_score(task, member, kind, rest) end
  if kind == 'claim' then
    score = call('SISMEMBER', key, id) == 1 and 0
  else
    score = tonumber(call('ZSCORE', key, member))
  end
  if expected and not score then
    flag('missing, but state is ' .. task[F.state] .. ' in queue ' .. task[F.queue], 'added')
    if kind == 'claim' then
      write('SADD', key, id)
    elseif kind == 'slot' then
      enqueue(task, task[F.seq])
    else
      zset_add(key, expected, id)
      if kind == 'ended' then know_piece(nil, task) end
    end
  elseif score and not expected then
    local reason = task and 'state is ' .. task[F.state] .. ' in queue ' .. task[F.queue] or 'the task does not exist'
    flag('present, but ' .. reason, 'removed')
    if kind == 'claim' then
      write_last('SREM', key, id)
    elseif kind == 'slot' then
      local queue, priority, slot, suffix = string.match(rest, '^([^:]*):(%d+):(%d+)(.*)$')
      if suffix == '' or suffix == ':k' then
        local entry = slot_of(queue, priority, slot, suffix)
        entry.added, entry.has_removals = entry.added - 1, true
      end
      zset_remove(key, member)
    elseif kind == 'ended' then
      local queue, state, piece = string.match(rest, '^([^:]*):(%a+):?(%d*)$')
      if piece == '' then remove_from_head(ended_list(queue, state)) end
      zset_remove(key, id)
    else
      zset_remove(key, id)
    end
  elseif expected and not any_score and score ~= expected then
    flag('score is ' .. digits(score) .. ', expected ' .. digits(expected), 'corrected')
    zset_add(key, expected, member)
  end
  if (kind == 'slot' or kind == 'ended') and expected and score then know_piece(flag, task) end
  if expected and (kind == 'scheduled' or kind == 'leased') and score ~= expected then due_no_later(task[F.queue], expected) end
end

-- Only an ended task has a time of its end. A waiting task has no request to cancel it.
function checks.stale_end_fields(flag, id)
  local task = find_task(id)
  if not task or task == UNREADABLE or ENDED[task[F.state]] then return end
  local has_stale_request = task[F.cancel_requested] and is_waiting(task)
  if not task[F.finished_at] and not has_stale_request then return end
  flag('state is ' .. task[F.state] .. ', but fields of an ended task are set', 'removed')
  if task[F.finished_at] then write_task(task, { 'HSET', task.key, F.finished_at, 0 }) end
  if has_stale_request then write_last('HDEL', task.key, F.cancel_requested) end
end
