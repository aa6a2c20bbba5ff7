-- lease: who may act on a leased task, and how a task ends.

-- Whether `token` may do `verb` to `task` now: nil if it may, else the answer to give.
-- A lease that has run out is lost, whether or not upkeep has seen it yet.
local function refusal(task, token, verb)
  if not task then return { 'unknown' } end
  if task.S == 'leased' and task.t == token and tonumber(task.u) > now then return nil end
  if verb then
    local ended = call('HMGET', task.key, 'T', 'V')
    if ended[1] == token then
      local of, state, run_at = string.match(ended[2], '^(%a+) (%a+) (%d*)$')
      if of == verb then return { 'repeated', state, run_at } end
    end
  end
  return { 'lost', task.S }
end

-- The task has ended in `state`; `retain_ms` holds where it does not say itself. The caller writes the state.
local drop_at = {}
local function conclude(task, state, retain_ms)
  add(base .. 'ended:' .. task.q .. ':' .. state, now_digits, task.id)
  local retain = task.R and task.R ~= '' and task.R or retain_ms
  drop_at[retain] = drop_at[retain] or digits(now + tonumber(retain))
  add(base .. 'retain', drop_at[retain], task.id)
  if task.D and task.D ~= '' then
    local key = base .. 'dedupe:' .. task.q .. ':' .. task.D
    local holder = call('GET', key)
    touched[key] = true
    if holder and string.sub(holder, 1, 16) == task.id then ending('DEL', key) end
  end
  if task.o then hint('ended ' .. task.id) end
end
