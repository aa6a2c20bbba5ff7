--[[ heartbeat: prolong leases whose tokens hold, and take note of progress.

KEYS[1] calls       hash   last call of each pump; the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'task:' .. id (hash), base .. 'leased:' .. queue (zset), base .. 'due' (zset)
                                                                    same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] count       of tasks; then for each: id, token, lease_ms or '' for what the claim asked for, progress or ''
RETURNS {'held', until, 0 | 1 if a client wants it called off} | {'lost', state} | {'unknown'}, each
MOVES   -
COST    O(n log leased)
]]
if last then return last end

local replies = {}
for i = 1, tonumber(ARGV[5]) do
  local at = 2 + 4 * i
  local task = load(ARGV[at], { 'S', 'q', 't', 'u', 'k', 'h', 'L', 'M' })
  local answer = refusal(task, ARGV[at + 1])
  if not answer then
    local lease_until = now + (tonumber(ARGV[at + 2]) or tonumber(task.L))
    local max_run = tonumber(task.M) or 0
    if max_run > 0 then lease_until = math.min(lease_until, tonumber(task.h) + max_run) end
    local fields = { 'HSET', task.key, 'u', lease_until }
    if ARGV[at + 3] ~= '' then
      fields[#fields + 1] = 'g'
      fields[#fields + 1] = ARGV[at + 3]
    end
    writes[#writes + 1] = fields
    add(base .. 'leased:' .. task.q, lease_until, task.id)
    due(task.q, lease_until)
    answer = { 'held', lease_until, task.k and 1 or 0 }
  end
  replies[i] = answer
end
return commit(cmsgpack.pack(replies))
