-- free_dedupe: frees the dedupe keys of tasks that no longer hold them. A task that waits for their end gets the key, and
-- waits for its own time only.
--
-- defines: free_dedupe, start_successor
-- needs: clock, transaction, dedupe
-- sets: stage_freed_keys, once a key is freed: a later item of the call may end the successor too
-- keys: task:<id>, scheduled:<queue>
local freed_tasks, freed

-- Schedules `successor`, which has waited for the end of another task. `key`, if it is given, is its dedupe key from now on.
local function start_successor(successor, key)
  local run_at = math.max(now, tonumber(successor[F.start_at]) or 0)
  local until_ms = tonumber(successor[F.dedupe_until])
  local command = { 'HSET', successor.key, F.run_at, digits(run_at), F.predecessor, '', F.start_at, '', F.replaces, '' }
  zset_add(base .. 'scheduled:' .. successor[F.queue], digits(run_at), successor.id)
  due_no_later(successor[F.queue], run_at)
  if not key then
    set_field(command, F.dedupe_until, digits(now))
  elseif not until_ms or until_ms > now then
    write('SET', key, successor.id .. (until_ms and digits(until_ms) or ''))
  end
  writes[#writes + 1] = command
  successor[F.run_at], successor[F.predecessor] = run_at, ''
  return not until_ms or until_ms > now
end

-- Frees the dedupe key of a task that has one.
local function free_dedupe(task)
  local digest = task[F.dedupe_digest]
  if not digest or digest == '' then return end
  if not freed then
    freed_tasks, freed = {}, {}
    -- At the end: a later item of the call may end the successor too.
    stage_freed_keys = function()
      for _, task in ipairs(freed_tasks) do
        local key, holder, until_ms = read_dedupe(task[F.queue], task[F.dedupe_digest])
        local id, has_key = call('HGET', task.key, F.successor), false
        if id and id ~= '' and not freed[id] then
          local successor = { id = id, key = base .. 'task:' .. id, [F.queue] = task[F.queue] }
          -- A successor of another type is unreadable, and none.
          local state, predecessor
          state, predecessor, successor[F.start_at], successor[F.dedupe_until] =
            unpack(redis.pcall('HMGET', successor.key, F.state, F.predecessor, F.start_at, F.dedupe_until))
          if state == 'scheduled' and predecessor == task.id then
            local is_free = not holder or holder == task.id or (until_ms and until_ms <= now)
            has_key = start_successor(successor, is_free and key) and is_free
          end
        end
        if holder == task.id and not has_key then write_last('DEL', key) end
      end
    end
  end
  freed_tasks[#freed_tasks + 1], freed[task.id] = task, true
end
