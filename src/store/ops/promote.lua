--[[ promote: scheduled tasks of one queue whose time has come become ready, behind those that are.

KEYS[1] calls       hash   last call of each pump; the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'task:' .. id (hash), base .. 'slot:' .. queue .. ':' .. priority .. ':' .. slot (zset),
                    base .. 'wheel:' .. queue (zset), base .. 'ready' (zset), base .. 'scheduled:' .. queue (zset),
                    base .. 'leased:' .. queue (zset), base .. 'due' (zset), base .. 'count:' .. queue (hash),
                    base .. 'count' (hash), base .. 'queue:' .. queue (hash), base .. 'seq' (hash),
                    base .. 'listen' (string)                       same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] queue       whose
ARGV[6] limit       so many tasks at most
RETURNS how many became ready; `limit`: there may be more
MOVES   scheduled -> ready
COST    O(n log queue)
]]
if last then return last end

local queue, limit = ARGV[5], tonumber(ARGV[6])
local scheduled, leased, dues_key = base .. 'scheduled:' .. queue, base .. 'leased:' .. queue, base .. 'due'
-- One more than may move: its time is the queue's next.
local page = call('ZRANGE', scheduled, 0, limit, 'WITHSCORES')
touched[scheduled], touched[dues_key] = true, true
local moved, next_at = 0, nil
for i = 1, #page, 2 do
  local at = tonumber(page[i + 1])
  if at > now or moved == limit then
    next_at = at
    break
  end
  moved = moved + 1
  local task = load(page[i], { 'S', 's', 'p' })
  remove(scheduled, page[i])
  -- An entry that is left of a task which has gone on must not take it back.
  if task and task.S == 'scheduled' then
    task.q = queue
    local seq = next_of('seq')
    write('HSET', task.key, 'S', 'ready', 'n', seq, 'r', now)
    enter(queue, task.p, task.s, seq, task.id)
    move(task, 'scheduled', 'ready')
  end
end
-- The queue's time in `due` is set anew from what is left.
local first = call('ZRANGE', leased, 0, 0, 'WITHSCORES')
if first[2] and (not next_at or tonumber(first[2]) < next_at) then next_at = tonumber(first[2]) end
local stands = call('ZSCORE', dues_key, queue)
if next_at then
  if not stands or tonumber(stands) ~= next_at then add(dues_key, next_at, queue) end
elseif stands then
  remove(dues_key, queue)
end
turn_wheels()
return commit(cmsgpack.pack(moved))
