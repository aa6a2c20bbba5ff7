--[[ fail: end the lease of tasks that went wrong; each is tried again, or is dead.

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
ARGV[5] retain_ms   how long a dead task is kept that does not say
ARGV[6] retain_ms   how long a cancelled one is
ARGV[7] errors      how many errors a task remembers
ARGV[8] bytes       how large they may be together; the last one is kept whatever its size
ARGV[9] count       of tasks; then for each: id, token, error, wait_ms, or '' if it shall not be tried again
RETURNS {'failed', state, run_at | ''} | {'repeated', state, run_at | ''} | {'lost', state} | {'unknown'}, each
MOVES   leased -> scheduled | ready | dead | cancelled
COST    O(n log queue)
]]
if last then return last end

local replies = {}
for i = 1, tonumber(ARGV[9]) do
  local at = 6 + 4 * i
  local task = load(ARGV[at], FAILING)
  local answer = refusal(task, ARGV[at + 1], 'fail')
  if not answer then
    local state, run_at = end_attempt(task, 'fail', ARGV[at + 2], tonumber(ARGV[at + 3]))
    answer = { 'failed', state, run_at or '' }
  end
  replies[i] = answer
end
measured('ends', ends)
turn_wheels()
return commit(cmsgpack.pack(replies))
