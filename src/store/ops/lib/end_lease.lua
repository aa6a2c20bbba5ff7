-- end_lease: what is common to all ends of a lease. `all_ended` is called before `commit`.
local WAYS = { complete = 1, fail = 2, release = 3, reap = 4 }
local ends = {}

-- The lease ends. What is staged here is common to all its ends; the caller writes the state. One that ran out has
-- ended when it did, and not when that was seen.
-- Returns the fields that remember it: a repetition of `verb` with its token gets the same answer.
local function end_lease(task, verb, state, run_at)
  local of, took = ends[task.q], (verb == 'reap' and task.u or now) - (task.h or now)
  if not of then
    of = { 0, 0, 0, 0, 0 }
    ends[task.q] = of
  end
  of[WAYS[verb]] = of[WAYS[verb]] + 1
  if took > 0 then of[5] = of[5] + took end
  remove(base .. 'leased:' .. task.q, task.id)
  if task.C and task.C ~= '' then ending('SREM', base .. 'claim:' .. task.C, task.id) end
  return 'T', task.t, 'V', verb .. ' ' .. state .. ' ' .. (run_at and digits(run_at) or '')
end

local function add_ends(sum, more)
  for i, n in ipairs(more) do sum[i] = sum[i] + n end
  return sum
end

local function all_ended()
  add_up('ends', ends, { 0, 0, 0, 0, 0 }, add_ends)
end
