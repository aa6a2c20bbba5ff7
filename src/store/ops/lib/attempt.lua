-- attempt: an execution ended badly. Reads ARGV[5..8]: retain_ms of dead, of cancelled, how many errors, their bytes.
local FAILING = { 'S', 'q', 's', 'p', 'n', 'a', 'm', 'x', 't', 'u', 'h', 'C', 'D', 'k', 'o', 'R' }

-- The fields of the errors that are too much once one of `size` bytes is added as number `attempt`.
local function forget(task, attempt, size)
  local keep, names = tonumber(ARGV[7]), {}
  local room = tonumber(ARGV[8]) - size
  for back = 1, keep - 1 do names[back] = 'e' .. (attempt - back) % keep end
  local gone = {}
  for back, error in ipairs(call('HMGET', task.key, unpack(names))) do
    room = room - (error and #error or 0)
    if room < 0 and error and error ~= '' then gone[#gone + 1] = names[back] end
  end
  return gone
end

-- Returns the state in which the task goes on, and when it will run, if later. `wait_ms` nil: no further attempt.
local function end_attempt(task, verb, report, wait_ms)
  local attempt = (tonumber(task.a) or 0) + 1
  local error = digits(now) .. ' ' .. attempt .. ' ' .. report
  local gone = forget(task, attempt, #error)
  local state, run_at = 'ready', nil
  if task.k then
    state = 'cancelled'
  elseif not wait_ms or attempt >= tonumber(task.m) then
    state = 'dead'
  elseif wait_ms > 0 then
    state, run_at = 'scheduled', now + wait_ms
  end
  local fields = { 'HSET', task.key, 'S', state, 'a', attempt, 'e' .. attempt % ARGV[7], error, end_lease(task, verb, state, run_at) }
  local function field(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  -- Emptied by the write that adds the new one: a script that is stopped forgets nothing for nothing.
  for _, name in ipairs(gone) do field(name, '') end
  if state == 'ready' then
    local seq = next_of('seq')
    field('n', seq)
    field('r', now)
    enter(task.q, task.p, task.s, seq, task.id)
    under_deadline(task)
  elseif state == 'scheduled' then
    field('w', run_at)
    postpone(task, run_at)
    under_deadline(task)
  else
    field('f', now)
    conclude(task, state, state == 'dead' and ARGV[5] or ARGV[6])
  end
  writes[#writes + 1] = fields
  move(task, 'leased', state)
  return state, run_at
end
