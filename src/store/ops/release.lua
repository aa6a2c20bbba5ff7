--[[ release: take leased tasks back, uncounted. A task returns to its own place, or waits for its delay.

KEYS[1] calls       hash   last call of each pump; the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'task:' .. id (hash), base .. 'leased:' .. queue (zset), base .. 'claim:' .. digest (set),
                    base .. 'slot:' .. queue .. ':' .. priority .. ':' .. slot (zset), base .. 'wheel:' .. queue (zset),
                    base .. 'ready' (zset), base .. 'scheduled:' .. queue (zset), base .. 'due' (zset), base .. 'deadline' (zset),
                    base .. 'ended:' .. queue .. ':' .. state (zset), base .. 'retain' (zset), base .. 'count:' .. queue (hash),
                    base .. 'count' (hash), base .. 'stats:' .. bucket (hash), base .. 'queue:' .. queue (hash),
                    base .. 'dedupe:' .. queue .. ':' .. digest (string), base .. 'seq' (hash), base .. 'listen' (string)
                                                                    same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] retain_ms   how long a cancelled task is kept that does not say
ARGV[6] count       of tasks; then for each: id, token, delay_ms
RETURNS {'released', state, run_at | ''} | {'repeated', state, run_at | ''} | {'lost', state} | {'unknown'}, each
MOVES   leased -> ready | scheduled | cancelled
COST    O(n log queue)
]]
if last then return last end

local NAMES = { 'S', 'q', 's', 'p', 'n', 'x', 't', 'u', 'h', 'c', 'r', 'i', 'C', 'D', 'k', 'o', 'R' }

local function release(task, delay_ms)
  local state, run_at = 'ready', nil
  if task.k then
    state = 'cancelled'
  elseif delay_ms > 0 then
    state, run_at = 'scheduled', now + delay_ms
  end
  local fields = { 'HSET', task.key, 'S', state, end_lease(task, 'release', state, run_at) }
  if state == 'ready' then
    -- It waits anew: what a worker had it for was no waiting. But it stands in its place since it first came there, also
    -- if it is given back again: that is said together with the time for which it holds.
    local before, of, since = task.r or task.c, string.match(task.i or '', '^(%d+) (%d+)$')
    local n = #fields
    fields[n + 1], fields[n + 2], fields[n + 3] = 'r', now_digits, 'i'
    fields[n + 4] = now_digits .. ' ' .. (of == before and since or before)
    enter(task.q, task.p, task.s, task.n, task.id, true)
    under_deadline(task)
  elseif state == 'scheduled' then
    fields[#fields + 1] = 'w'
    fields[#fields + 1] = run_at
    postpone(task, run_at)
    under_deadline(task)
  else
    fields[#fields + 1] = 'f'
    fields[#fields + 1] = now
    conclude(task, state, ARGV[5])
  end
  writes[#writes + 1] = fields
  move(task, 'leased', state)
  return { 'released', state, run_at or '' }
end

local replies = {}
for i = 1, tonumber(ARGV[6]) do
  local at = 4 + 3 * i
  local task = load(ARGV[at], NAMES)
  replies[i] = refusal(task, ARGV[at + 1], 'release') or release(task, tonumber(ARGV[at + 2]))
end
measured('ends', ends)
turn_wheels()
return commit(cmsgpack.pack(replies))
