--[[ complete: end leased tasks whose tokens hold.

KEYS[1] calls       hash   last call of each pump; the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'task:' .. id (hash), base .. 'leased:' .. queue (zset), base .. 'claim:' .. digest (set),
                    base .. 'ended:' .. queue .. ':' .. state (zset), base .. 'retain' (zset), base .. 'count:' .. queue (hash),
                    base .. 'count' (hash), base .. 'stats:' .. bucket (hash), base .. 'dedupe:' .. queue .. ':' .. digest (string),
                    base .. 'listen' (string)                       same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] retain_ms   how long a completed task is kept that does not say
ARGV[6] count       of tasks; then for each: id, token, result
RETURNS {'completed'} | {'repeated', state, run_at | ''} | {'lost', state} | {'unknown'}, each
MOVES   leased -> completed
COST    O(n log leased)
]]
if last then return last end

local NAMES = { 'S', 'q', 't', 'u', 'h', 'C', 'D', 'o', 'R' }
local replies, completed = {}, { 'completed' }
for i = 1, tonumber(ARGV[6]) do
  local at = 4 + 3 * i
  local id, token, result = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local task = load(id, NAMES)
  local answer = refusal(task, token, 'complete')
  if not answer then
    answer = completed
    local fields = { 'HSET', task.key, 'S', 'completed', 'f', now_digits, end_lease(task, 'complete', 'completed') }
    if result ~= '' then
      fields[#fields + 1] = 'y'
      fields[#fields + 1] = result
    end
    writes[#writes + 1] = fields
    conclude(task, 'completed', ARGV[5])
    move(task, 'leased', 'completed')
  end
  replies[i] = answer
end
measured('ends', ends)
return commit(cmsgpack.pack(replies))
