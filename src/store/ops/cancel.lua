--[[ cancel: call tasks off. Waiting ones end now; leased ones are flagged, and their worker learns it.

KEYS[1] calls       hash   last call of each pump; the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'task:' .. id (hash), base .. 'slot:' .. queue .. ':' .. priority .. ':' .. slot (zset),
                    base .. 'wheel:' .. queue (zset), base .. 'ready' (zset), base .. 'scheduled:' .. queue (zset),
                    base .. 'deadline' (zset), base .. 'ended:' .. queue .. ':' .. state (zset), base .. 'retain' (zset),
                    base .. 'count:' .. queue (hash), base .. 'count' (hash), base .. 'queue:' .. queue (hash),
                    base .. 'dedupe:' .. queue .. ':' .. digest (string), base .. 'seq' (hash), base .. 'listen' (string)
                                                                    same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] retain_ms   how long a cancelled task is kept that does not say
ARGV[6] count       of tasks; then the ids
RETURNS {'cancelled'} | {'before'} (it was cancelled) | {'flagged'} | {'ended', state} | {'unknown'}, each
MOVES   ready -> cancelled, scheduled -> cancelled
COST    O(n log queue)
]]
if last then return last end

local function cancel(task)
  if not task then return { 'unknown' } end
  if task.S == 'cancelled' then return { 'before' } end
  if task.S == 'leased' then
    write('HSET', task.key, 'k', '1')
    return { 'flagged' }
  end
  if not leave_waiting(task) then return { 'ended', task.S } end
  write('HSET', task.key, 'S', 'cancelled', 'f', now)
  conclude(task, 'cancelled', ARGV[5])
  move(task, task.S, 'cancelled')
  return { 'cancelled' }
end

local replies = {}
for i = 1, tonumber(ARGV[6]) do replies[i] = cancel(load(ARGV[6 + i], WAITING)) end
turn_wheels()
return commit(cmsgpack.pack(replies))
