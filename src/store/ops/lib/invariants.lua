-- invariants: checks that indexes, counts and keys agree with the hashes of the tasks, and repairs them by those.
--
-- Each check calls `flag(violation, repair)` for each violation, and stages the writes of the repair. The entries of a task
-- that cannot be read are left alone until it is set aside.
--
-- defines: check_invariants, default_retain_ms
-- needs: prelude (scripts that repair) or read_prelude (scripts that check), clock, transaction, records, task, wheel,
--   dedupe
-- keys: task:<id>, slot:<queue>:<priority>:<slot>, slot:<queue>:<priority>:<slot>:<piece>, wheel:<queue>, scheduled:<queue>, leased:<queue>, expirations,
--   ended:<queue>:<state>, retention, idempotency:<digest>, claim:<digest>, settings:<queue>, settings_index
local ENDED = { completed = true, dead = true, cancelled = true, expired = true }
-- The field that is a task's score in the index of its state.
local SCORE_FIELD = { ready = F.seq, scheduled = F.run_at, leased = F.lease_until, completed = F.finished_at,
  dead = F.finished_at, cancelled = F.finished_at, expired = F.finished_at }
local CHECKED_FIELDS = { F.expires_at, F.run_at, F.claim_digest, F.dedupe_digest, F.dedupe_until, F.retain_ms, F.cancel_requested,
  F.successor, F.predecessor, F.start_at }
-- Numbers that may be missing, but not anything else.
local OPTIONAL_NUMBERS = { F.expires_at, F.retain_ms }
-- Limits of the sums of one script.
local MAX_SLOTS, MAX_QUEUES = 16384, 4096
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

-- Returns the key of the slot queue or of the piece in which a ready task must be.
local function slot_key_of(task)
  local record, entry = record_of(task[F.queue]), slot_of(task[F.queue], task[F.priority], task[F.slot])
  if record.tail == '' then return entry.key end
  use_pieces()
  return piece_of(record, entry, task[F.seq]) or entry.key
end

-- Checks that the record of the queue knows the piece in which a ready task is.
local function check_last_piece(flag, task)
  local record = record_of(task[F.queue])
  local tail = record.tail
  if tail == '' then return end
  piece_of(record, slot_of(task[F.queue], task[F.priority], task[F.slot]), task[F.seq], true)
  if record.tail ~= tail then flag('its piece is behind the last one in the record of the queue', 'corrected') end
end

-- Returns the task's score in an index, nil if it must not be there; and whether any score will do.
local function expected_score(task, kind, rest)
  local state, queue = task[F.state], task[F.queue]
  if kind == 'slot' then
    return state == 'ready' and base .. 'slot:' .. rest == slot_key_of(task) and tonumber(task[F.seq]) or nil
  elseif kind == 'scheduled' or kind == 'leased' then
    return state == kind and rest == queue and tonumber(task[SCORE_FIELD[kind]]) or nil
  elseif kind == 'ended' then
    return ENDED[state] and rest == queue .. ':' .. state and tonumber(task[F.finished_at]) or nil
  elseif kind == 'expirations' then
    return is_waiting(task) and tonumber(task[F.expires_at]) or nil
  elseif kind == 'retention' then
    local retain_ms = tonumber(task[F.retain_ms])
    return ENDED[state] and retain_ms and task[F.finished_at] + retain_ms or nil, true
  elseif kind == 'claim' then
    return state == 'leased' and task[F.has_claim] == 1 and string.sub(task[F.claim_digest] or '', 1, 16) == rest and 0 or nil, true
  end
end

-- A task is in the index base .. `index` if its state says so, at the score of its fields.
function checks.index_entry(flag, id, index)
  local task = find_task(id)
  if task == UNREADABLE then return end
  local kind, rest = string.match(index, '^(%a+):?(.*)$')
  local key, expected, any_score, score = base .. index, nil, false, nil
  if task then expected, any_score = expected_score(task, kind, rest) end
  if kind == 'claim' then
    score = call('SISMEMBER', key, id) == 1 and 0
  else
    score = tonumber(call('ZSCORE', key, id))
  end
  if expected and not score then
    flag('missing, but state is ' .. task[F.state] .. ' in queue ' .. task[F.queue], 'added')
    if kind == 'claim' then
      write('SADD', key, id)
    elseif kind == 'slot' then
      enqueue(task[F.queue], task[F.priority], task[F.slot], expected, id)
    else
      zset_add(key, expected, id)
    end
  elseif score and not expected then
    local reason = task and 'state is ' .. task[F.state] .. ' in queue ' .. task[F.queue] or 'the task does not exist'
    flag('present, but ' .. reason, 'removed')
    if kind == 'claim' then
      write_last('SREM', key, id)
    elseif kind == 'slot' then
      local queue, priority, slot, piece = string.match(rest, '^([^:]*):(%d+):(%d+):?(%d*)$')
      -- No piece has a negative seq.
      if piece == '' then dequeue(queue, priority, slot, -1, id) else zset_remove(key, id) end
    else
      zset_remove(key, id)
    end
  elseif expected and not any_score and score ~= expected then
    flag('score is ' .. digits(score) .. ', expected ' .. digits(expected), 'corrected')
    zset_add(key, expected, id)
  end
  if kind == 'slot' and expected and score then check_last_piece(flag, task) end
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

-- A task that waits for another's end waits for one that has not ended, and that names it.
function checks.successor(flag, id)
  local task = find_task(id)
  if not task or task == UNREADABLE or task[F.state] ~= 'scheduled' or not task[F.predecessor] then return end
  local predecessor = find_task(task[F.predecessor])
  if predecessor == UNREADABLE then return end
  if predecessor and not ENDED[predecessor[F.state]] then
    if predecessor[F.successor] == id then return end
    local named = predecessor[F.successor] and find_task(predecessor[F.successor])
    if not named or named == UNREADABLE or named[F.predecessor] ~= predecessor.id then
      flag('waits for the end of a task that does not name it', 'named')
      write('HSET', predecessor.key, F.successor, id)
      return
    end
  end
  flag('waits for the end of a task that has ended', 'started')
  local run_at = math.max(now, tonumber(task[F.start_at]) or 0)
  write('HSET', task.key, F.run_at, digits(run_at), F.predecessor, '', F.start_at, '', F.replaces, '')
  zset_add(base .. 'scheduled:' .. task[F.queue], digits(run_at), id)
  due_no_later(task[F.queue], run_at)
end

-- A dedupe key is held by a live task. `ids` name the live tasks with this key; one that has not given it up must hold it.
function checks.dedupe(flag, queue, digest, ...)
  local key, holder_id, until_ms = read_dedupe(queue, digest)
  local function may_hold(task)
    return task and task ~= UNREADABLE and not ENDED[task[F.state]] and task[F.queue] == queue
      and not (task[F.state] == 'scheduled' and task[F.predecessor])
      and task[F.dedupe_digest] == digest and (tonumber(task[F.dedupe_until]) or now + 1) > now
  end
  local has_lapsed = until_ms and until_ms <= now
  local holder = holder_id and find_task(holder_id)
  if holder == UNREADABLE then return end
  local function give_to(task)
    write('SET', key, task.id .. (task[F.dedupe_until] or ''))
  end
  local next_holder
  for _, id in ipairs({ ... }) do
    local task = find_task(id)
    if may_hold(task) and task ~= holder and (not next_holder or tonumber(task[F.seq]) > tonumber(next_holder[F.seq])) then
      next_holder = task
    end
  end
  if holder_id and may_hold(holder) then
    if tonumber(holder[F.dedupe_until]) ~= until_ms then
      flag('its window is not that of the task that holds it', 'corrected')
      give_to(holder)
    end
    if next_holder then
      flag('held by one task and claimed by another', 'the second claim ended')
      write('HSET', next_holder.key, F.dedupe_until, digits(now))
    end
  elseif next_holder then
    flag('not held by the live task that has this key', 'given to that task')
    give_to(next_holder)
  elseif holder_id and not has_lapsed then
    flag('held by ' .. (holder and 'a task in state ' .. holder[F.state] or 'a task that does not exist'), 'freed')
    write_last('DEL', key)
  end
end

-- The record of an Idempotency-Key has a TTL, which is not shorter than the time it must be kept.
function checks.idempotency(flag, digest)
  local key = base .. 'idempotency:' .. digest
  local until_ms, ttl = tonumber(call('HGET', key, 'until')), call('PTTL', key)
  if ttl == -2 then return end
  local expected = until_ms and until_ms - now or 1
  if ttl == -1 or ttl + 1000 < expected then
    flag('TTL is ' .. (ttl == -1 and 'missing' or ttl .. ' ms') .. ', expected ' .. digits(expected) .. ' ms', 'corrected')
    write('PEXPIRE', key, digits(math.max(1, expected)))
  end
end

-- The record of the shard is readable, and its last turn is not before one in use.
function checks.last_turn(flag, used_turn)
  local record = shard_record()
  local turn, used = record[L.shard.turn], tonumber(used_turn)
  if unreadable_records['the shard'] then
    flag('the record of the shard cannot be read', 'replaced')
  elseif turn < used then
    flag('last turn is ' .. digits(turn) .. ', but ' .. used_turn .. ' is in use', 'corrected')
  else
    return
  end
  record[L.shard.turn], is_shard_changed = math.max(turn, used), true
end

-- The last position of a queue is not before one in use.
function checks.last_seq(flag, queue, used_seq)
  local record, used = record_of(queue), tonumber(used_seq)
  if record[L.queue.seq] >= used then return end
  flag('last seq is ' .. digits(record[L.queue.seq]) .. ', but ' .. used_seq .. ' is in use', 'corrected')
  record[L.queue.seq], record[L.queue.behind] = used, true
end

-- A queue's settings are in the settings index if and only if they exist.
function checks.settings(flag, queue)
  local key = base .. 'settings_index'
  local exist, is_indexed = call('EXISTS', base .. 'settings:' .. queue) == 1, call('ZSCORE', key, queue)
  if exist and not is_indexed then
    flag('missing from settings_index', 'added')
    zset_add(key, 0, queue)
  elseif is_indexed and not exist then
    flag('in settings_index, but they do not exist', 'removed')
    zset_remove(key, queue)
  end
end

-- A slot queue is on the wheel, in the range of its priority, if and only if it has tasks. If only its pieces have some, the
-- first one becomes its head.
function checks.wheel_entry(flag, queue, member)
  local wheel, slot, record = base .. 'wheel:' .. queue, base .. 'slot:' .. queue .. ':' .. member, record_of(queue)
  local size, score = call('ZCARD', slot), tonumber(call('ZSCORE', wheel, member))
  if size == 0 and record.tail ~= '' then
    use_pieces()
    local ids = move_first_piece(record, member, slot)
    if ids then
      flag('its head is empty, but pieces are left', 'moved')
      size = #ids
    end
  end
  if size == 0 then
    if not score then return end
    flag('on the wheel without a ready task', 'removed')
    zset_remove(wheel, member)
    return
  end
  local from = (9 - tonumber(string.match(member, '^%d+'))) * TURNS
  if score and score >= from and score < from + TURNS then return end
  flag((score and 'outside its priority on the wheel' or 'missing from the wheel') .. ', with ' .. size .. ' ready tasks', 'added')
  zset_add(wheel, from + next_turn(), member)
end
