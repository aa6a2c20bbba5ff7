-- dedupe_invariants: the invariants of dedupe keys, of tasks that wait for another's end, and of Idempotency-Keys.
--
-- defines: checks.successor, checks.dedupe, checks.idempotency
-- needs: invariants, dedupe
-- keys: scheduled:<queue>, idempotency:<digest>

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
