-- end_lease: what is common to all ends of a lease. `ends` are to be `measured` before `commit`.
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
