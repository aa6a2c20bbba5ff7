--[[ expire_leases: end leases that ran out. It counts as a failed attempt: a task that kills its workers ends dead.

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
ARGV[9] count       of leases; then for each: id, token, error, wait_ms
RETURNS {tasks that are dead by it, cancelled by it, place of a lease that was ended, from 1, …}
MOVES   leased -> scheduled | ready | dead | cancelled
COST    O(n log queue)
]]
if last then return last end

local answer, led_to = { 0, 0 }, { dead = 0, cancelled = 0 }
for i = 1, tonumber(ARGV[9]) do
  local at = 6 + 4 * i
  local task = load(ARGV[at], FAILING)
  if task and task.S == 'leased' and task.t == ARGV[at + 1] and tonumber(task.u) <= now then
    local state = end_attempt(task, 'reap', ARGV[at + 2], tonumber(ARGV[at + 3]))
    answer[#answer + 1] = i
    if led_to[state] then led_to[state] = led_to[state] + 1 end
  end
end
measured('ends', ends)
turn_wheels()
answer[1], answer[2] = led_to.dead, led_to.cancelled
return commit(cmsgpack.pack(answer))
