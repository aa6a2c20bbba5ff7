-- truth: what indexes, counters and keys must hold, as the tasks themselves say. A check tells `found` what is wrong and
-- what mends it, and stages the writes that do. A task that cannot be read is left alone, and so is what names it.
local ENDED = { completed = true, dead = true, cancelled = true, expired = true }
local TIMES = { scheduled = 'w', leased = 'u', completed = 'f', dead = 'f', cancelled = 'f', expired = 'f' }
local TRUTHS = { 'S', 'q', 's', 'p', 'n', 'x', 'w', 'u', 'f', 'C', 'D', 'Y', 'R', 'k' }
-- So many slots, and so many queues, are summed up in one script.
local MOST_SLOTS, MOST_QUEUES = 16384, 4096
-- How long an ended task is kept that does not say, by state; set by the scripts that write.
local retain_of = {}
local BROKEN, known, checks = {}, {}, {}

local function is_whole(task)
  local time = TIMES[task.S]
  return (time or task.S == 'ready') and task.q and tonumber(task.s) and tonumber(task.p) and tonumber(task.n)
    and (not time or tonumber(task[time]))
end

-- The task, its empty fields left out; false where there is none, BROKEN where there is one that cannot be read.
local function task_of(id)
  if known[id] ~= nil then return known[id] end
  local task = { id = id, key = base .. 'task:' .. id }
  local values = call('HMGET', task.key, unpack(TRUTHS))
  for place, name in ipairs(TRUTHS) do
    if values[place] and values[place] ~= '' then task[name] = values[place] end
  end
  if not is_whole(task) then task = call('EXISTS', task.key) == 1 and BROKEN end
  known[id] = task
  return task
end

local function waits(task)
  return task.S == 'ready' or task.S == 'scheduled'
end

-- Where the task stands in an index: nil if nowhere, else its score; `any`: and any other score is as good.
local function place_in(task, kind, rest)
  if kind == 'slot' then
    local own = task.q .. ':' .. task.p .. ':' .. task.s
    return task.S == 'ready' and rest == own and tonumber(task.n) or nil
  elseif kind == 'scheduled' or kind == 'leased' then
    return task.S == kind and rest == task.q and tonumber(task[TIMES[kind]]) or nil
  elseif kind == 'ended' then
    return ENDED[task.S] and rest == task.q .. ':' .. task.S and tonumber(task.f) or nil
  elseif kind == 'deadline' then
    return waits(task) and tonumber(task.x) or nil
  elseif kind == 'retain' then
    return ENDED[task.S] and task.f + (tonumber(task.R) or retain_of[task.S] or 0) or nil, true
  elseif kind == 'claim' then
    return task.S == 'leased' and task.C == rest and 0 or nil, true
  end
end

-- `id` in the index base .. `index`.
function checks.entry(found, id, index)
  local task = task_of(id)
  if task == BROKEN then return end
  local kind, rest = string.match(index, '^(%a+):?(.*)$')
  local key, wanted, any = base .. index, nil, false
  if task then wanted, any = place_in(task, kind, rest) end
  local it = task and 'it is ' .. task.S .. ' in queue ' .. task.q or 'there is no such task'
  local stands
  touched[key] = true
  if kind == 'claim' then
    stands = call('SISMEMBER', key, id) == 1 and 0
  else
    stands = tonumber(call('ZSCORE', key, id))
  end
  if wanted and not stands then
    found(it .. ', and not there', 'put in')
    if kind == 'claim' then
      write('SADD', key, id)
    elseif kind == 'slot' then
      enter(task.q, task.p, task.s, wanted, id)
    else
      add(key, wanted, id)
    end
  elseif stands and not wanted then
    found(it .. ', and stands there', 'taken out')
    if kind == 'claim' then
      ending('SREM', key, id)
    elseif kind == 'slot' then
      local queue, priority, slot = string.match(rest, '^(.*):(.*):(.*)$')
      leave(queue, priority, slot, id)
    else
      remove(key, id)
    end
  elseif wanted and not any and stands ~= wanted then
    found('it stands at ' .. digits(stands) .. ', and not at its own ' .. digits(wanted), 'moved')
    add(key, wanted, id)
  end
  if wanted and (kind == 'scheduled' or kind == 'leased') and stands ~= wanted then due(task.q, wanted) end
end

-- What only an ended task bears: the time of its end, and, unless it is leased, a client's wish to end it.
function checks.marks(found, id)
  local task = task_of(id)
  if not task or task == BROKEN or ENDED[task.S] then return end
  local marks = {}
  if task.f then marks[1] = 'f' end
  if task.k and waits(task) then marks[#marks + 1] = 'k' end
  if #marks == 0 then return end
  found('it is ' .. task.S .. ', and bears the marks of an end', 'taken off')
  ending('HDEL', task.key, unpack(marks))
end

-- The dedupe key of this digest; those of `ids` that live and have not let go of it must hold it.
function checks.dedupe(found, queue, digest, ...)
  local key = base .. 'dedupe:' .. queue .. ':' .. digest
  local record = call('GET', key)
  touched[key] = true
  local function holds(task)
    return task and task ~= BROKEN and not ENDED[task.S] and task.q == queue and task.D == digest and (tonumber(task.Y) or now + 1) > now
  end
  local until_ms = record and tonumber(string.sub(record, 17))
  local over = until_ms and until_ms <= now
  local holder = record and task_of(string.sub(record, 1, 16))
  if holder == BROKEN then return end
  local heir
  for _, id in ipairs({ ... }) do
    local task = task_of(id)
    if holds(task) and task ~= holder and (not heir or tonumber(task.n) > tonumber(heir.n)) then heir = task end
  end
  if record and not over and holds(holder) then
    if heir then
      found('another living task lets no go of it', 'the other has let go')
      write('HSET', heir.key, 'Y', digits(now))
    end
  elseif heir then
    found('a living task does not hold it and should', 'given to it')
    if heir.Y then
      write('SET', key, heir.id .. heir.Y, 'PX', digits(heir.Y - now))
    else
      write('SET', key, heir.id)
    end
  elseif record and not over then
    found('it is held by ' .. (holder and 'a task that is ' .. holder.S or 'no task'), 'freed')
    ending('DEL', key)
  end
end

-- The record of an Idempotency-Key goes by itself, and not before its time.
function checks.idem(found, digest)
  local key = base .. 'idem:' .. digest
  local until_ms, left = tonumber(call('HGET', key, 'until')), call('PTTL', key)
  touched[key] = true
  if left == -2 then return end
  local wanted = until_ms and until_ms - now or 1
  if left == -1 or left + 1000 < wanted then
    found('it goes after ' .. left .. ' ms, and holds for ' .. digits(wanted), 'set right')
    write('PEXPIRE', key, digits(math.max(1, wanted)))
  end
end

-- The shard's counters are not behind what was given out.
function checks.counters(found, seq, turn)
  local values = call('HMGET', base .. 'seq', 'seq', 'turn')
  local at, turned = tonumber(values[1] or 0), tonumber(values[2] or 2 ^ 48)
  if at >= tonumber(seq) and turned >= tonumber(turn) then return end
  found('seq and turn stand at ' .. digits(at) .. ' and ' .. digits(turned) .. ', and ' .. seq .. ' and ' .. turn .. ' were given', 'set right')
  next_of('turn')
  counters.seq = math.max(counters.seq, tonumber(seq))
  counters.turn = math.max(counters.turn, tonumber(turn))
end

-- A queue has a master copy of settings if and only if it is listed for upkeep.
function checks.settings(found, queue)
  local is_there = call('EXISTS', base .. 'settings:' .. queue) == 1
  local listed = call('ZSCORE', base .. 'configured', queue)
  touched[base .. 'configured'] = true
  if is_there and not listed then
    found('they are not in the list of those that upkeep spreads', 'put in')
    add(base .. 'configured', 0, queue)
  elseif listed and not is_there then
    found('they are in the list of those that upkeep spreads, and not there', 'taken out')
    remove(base .. 'configured', queue)
  end
end

-- A slot queue is on the wheel, in the range of its priority, if it holds anything.
function checks.place(found, queue, member)
  local wheel, slot = base .. 'wheel:' .. queue, base .. 'slot:' .. queue .. ':' .. member
  local has, at = call('ZCARD', slot), tonumber(call('ZSCORE', wheel, member))
  touched[wheel] = true
  if has == 0 then
    if not at then return end
    found('it is on the wheel, and has no ready task', 'taken off')
    remove(wheel, member)
    return
  end
  local from = (9 - tonumber(string.match(member, '^%d+'))) * SPAN
  if at and at >= from and at < from + SPAN then return end
  found('it has ' .. has .. ' ready, and is ' .. (at and 'on the wheel outside its priority' or 'not on the wheel'), 'put on')
  add(wheel, from + next_of('turn'), member)
end

-- The queue stands in `ready`, `due` and `queues` as what it has says.
function checks.queue(found, queue)
  local front = call('ZRANGE', base .. 'wheel:' .. queue, 0, 0)[1]
  local paused = call('HGET', base .. 'queue:' .. queue, 'paused') == '1'
  local wanted = front and not paused and tonumber(string.match(front, '^%d+')) or nil
  local stands = tonumber(call('ZSCORE', base .. 'ready', queue))
  touched[base .. 'ready'], touched[base .. 'queues'] = true, true
  if wanted ~= stands then
    found('it stands in ready with ' .. (stands or 'nothing') .. ', and the front of its wheel says ' .. (wanted or 'nothing'), 'set right')
    if wanted then
      add(base .. 'ready', wanted, queue)
      hint('ready ' .. wanted .. ' ' .. queue)
    else
      remove(base .. 'ready', queue)
    end
  end
  local first
  for _, index in ipairs({ 'scheduled:', 'leased:' }) do
    local at = tonumber(call('ZRANGE', base .. index .. queue, 0, 0, 'WITHSCORES')[2])
    if at and (not first or at < first) then first = at end
  end
  local when = tonumber(call('ZSCORE', base .. 'due', queue))
  if first and (not when or when > first) then
    found('it is due at ' .. (when and digits(when) or 'no time') .. ', and has a task at ' .. digits(first), 'set right')
    due(queue, first)
  end
  local listed = call('ZSCORE', base .. 'queues', queue)
  local is_there = front or first or call('EXISTS', base .. 'count:' .. queue, base .. 'queue:' .. queue) > 0
  if is_there and not listed then
    found('it is not in the list of queues', 'put in')
    add(base .. 'queues', 0, queue)
  elseif listed and not is_there then
    found('it is in the list of queues, and there is nothing of it', 'taken out')
    remove(base .. 'queues', queue)
  end
end

local FIELDS = { 'submitted', 'scheduled', 'ready', 'leased', 'completed', 'dead', 'cancelled', 'expired', 'removed' }

-- All counts of a hash, by field.
local function counts_in(key)
  local counts = {}
  for place, value in ipairs(call('HMGET', key, unpack(FIELDS))) do counts[FIELDS[place]] = tonumber(value or 0) end
  return counts
end

-- Brings a hash of counts to `wanted`. What has been submitted never goes back: where the sum is less, tasks were removed.
local function set_counts(found, key, had, wanted, whose)
  local by, all = changes_of(key), wanted.removed
  for _, field in ipairs(FIELDS) do
    if field ~= 'submitted' and field ~= 'removed' then
      all = all + wanted[field]
      if had[field] ~= wanted[field] then
        found('counts ' .. digits(had[field]) .. ' ' .. field .. ' and ' .. whose .. digits(wanted[field]), 'set right')
      end
    end
  end
  if wanted.submitted > all then
    wanted.removed = wanted.removed + wanted.submitted - all
  else
    wanted.submitted = all
  end
  for _, field in ipairs({ 'submitted', 'removed' }) do
    if had[field] ~= wanted[field] then
      found('counts ' .. digits(had[field]) .. ' ' .. field .. ', and all its counts say ' .. digits(wanted[field]), 'set right')
    end
  end
  for _, field in ipairs(FIELDS) do by[field] = wanted[field] - had[field] end
end

-- The counts of a queue are what its indexes hold; `places` are slot queues that the wheel does not name.
function checks.counts(found, queue, ...)
  local wheel = base .. 'wheel:' .. queue
  if call('ZCARD', wheel) > MOST_SLOTS then
    return found('', 'it has ready tasks in more slots than can be counted while others write')
  end
  local summed, ready = {}, 0
  local function sum(members)
    for _, member in ipairs(members) do
      if not summed[member] then ready = ready + call('ZCARD', base .. 'slot:' .. queue .. ':' .. member) end
      summed[member] = true
    end
  end
  sum(call('ZRANGE', wheel, 0, -1))
  sum({ ... })
  local key = base .. 'count:' .. queue
  local had = counts_in(key)
  local wanted = { ready = ready, submitted = had.submitted, removed = had.removed }
  for state in pairs(TIMES) do
    wanted[state] = call('ZCARD', base .. (ENDED[state] and 'ended:' .. queue .. ':' .. state or state .. ':' .. queue))
  end
  set_counts(found, key, had, wanted, 'has ')
end

-- The counts of the shard are those of its queues, and of queues that are gone: nothing but submitted and removed.
function checks.total(found, ...)
  local queues = call('ZRANGE', base .. 'queues', 0, MOST_QUEUES)
  if #queues > MOST_QUEUES then return found('', 'it has more queues than can be summed up while others write') end
  for _, queue in ipairs({ ... }) do
    if not call('ZSCORE', base .. 'queues', queue) then queues[#queues + 1] = queue end
  end
  local wanted = {}
  for _, field in ipairs(FIELDS) do wanted[field] = 0 end
  for _, queue in ipairs(queues) do
    for field, n in pairs(counts_in(base .. 'count:' .. queue)) do wanted[field] = wanted[field] + n end
  end
  local key = base .. 'count'
  local had = counts_in(key)
  wanted.submitted = math.max(wanted.submitted, had.submitted)
  set_counts(found, key, had, wanted, 'its queues count ')
end

-- ARGV[from] items: for each its kind, the number of its arguments, the arguments. What is wrong with each: a list of
-- {what, what mends it}; nothing wrong but only a remark where `what` is empty.
local function examine(from)
  local replies, at = {}, from + 1
  for item = 1, tonumber(ARGV[from]) do
    local list = {}
    local function found(what, remedy)
      list[#list + 1] = { what, remedy }
    end
    local last_one = at + 1 + ARGV[at + 1]
    checks[ARGV[at]](found, unpack(ARGV, at + 2, last_one))
    at = last_one + 1
    replies[item] = list
  end
  return replies
end
