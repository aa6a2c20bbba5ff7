--[[ retry: put tasks that ended without success back to ready, with fresh attempts and a fresh deadline.

KEYS[1] calls       hash   last call of each pump; the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'task:' .. id (hash), base .. 'slot:' .. queue .. ':' .. priority .. ':' .. slot (zset),
                    base .. 'wheel:' .. queue (zset), base .. 'ready' (zset), base .. 'deadline' (zset),
                    base .. 'ended:' .. queue .. ':' .. state (zset), base .. 'retain' (zset), base .. 'count:' .. queue (hash),
                    base .. 'count' (hash), base .. 'queue:' .. queue (hash),
                    base .. 'dedupe:' .. queue .. ':' .. digest (string), base .. 'seq' (hash), base .. 'listen' (string)
                                                                    same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] count       of tasks; then the ids
RETURNS {'revived'} | {'unretryable', state} | {'key_held', state} | {'unknown'}, each
MOVES   dead -> ready, cancelled -> ready, expired -> ready
COST    O(n log queue)
]]
if last then return last end

local RETRYABLE = { dead = true, cancelled = true, expired = true }

local function revive(task)
  if not task then return { 'unknown' } end
  if not RETRYABLE[task.S] then return { 'unretryable', task.S } end
  if task.D and task.D ~= '' then
    local key = base .. 'dedupe:' .. task.q .. ':' .. task.D
    local holder = call('GET', key)
    touched[key] = true
    local until_ms = holder and tonumber(string.sub(holder, 17))
    if holder and (not until_ms or until_ms > now) then return { 'key_held', task.S } end
    write('SET', key, task.id)
  end
  local seq = next_of('seq')
  local fields = { 'HSET', task.key, 'S', 'ready', 'n', seq, 'r', now, 'a', 0, 'w', '', 'Y', '' }
  if task.X and task.X ~= '' then
    task.x = now + tonumber(task.X)
    fields[#fields + 1] = 'x'
    fields[#fields + 1] = task.x
    under_deadline(task)
  end
  writes[#writes + 1] = fields
  ending('HDEL', task.key, 'k', 'f', 'o')
  remove(base .. 'ended:' .. task.q .. ':' .. task.S, task.id)
  remove(base .. 'retain', task.id)
  enter(task.q, task.p, task.s, seq, task.id)
  move(task, task.S, 'ready')
  return { 'revived' }
end

local replies = {}
for i = 1, tonumber(ARGV[5]) do replies[i] = revive(load(ARGV[5 + i], { 'S', 'q', 's', 'p', 'X', 'D' })) end
turn_wheels()
return commit(cmsgpack.pack(replies))
