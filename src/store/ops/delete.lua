--[[ delete: forget tasks: an ended one that a client deletes, those past their retention, those that a purge names.

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
ARGV[5] kept        '1': only tasks whose time of retention has passed
ARGV[6] states      how many, then those from which a task may be removed; never leased
        count       of tasks; then the ids
RETURNS {'removed'} | {'refused', state} | {'unknown'}, each
MOVES   every state but leased -> -
COST    O(n log queue)
]]
if last then return last end

local past_retention, allowed = ARGV[5] == '1', {}
local at = 6 + tonumber(ARGV[6])
for i = 7, at do allowed[ARGV[i]] = true end
allowed.leased = nil

local function forget(task)
  if not task then return { 'unknown' } end
  if not allowed[task.S] then return { 'refused', task.S } end
  local retain = base .. 'retain'
  if past_retention then
    local drop_at = call('ZSCORE', retain, task.id)
    if not drop_at or tonumber(drop_at) > now then return { 'refused', task.S } end
  end
  if leave_waiting(task) then
    if task.D and task.D ~= '' then
      local key = base .. 'dedupe:' .. task.q .. ':' .. task.D
      local holder = call('GET', key)
      touched[key] = true
      if holder and string.sub(holder, 1, 16) == task.id then ending('DEL', key) end
    end
  else
    remove(base .. 'ended:' .. task.q .. ':' .. task.S, task.id)
    remove(retain, task.id)
  end
  ending('DEL', task.key)
  move(task, task.S, 'removed')
  if task.o then hint('ended ' .. task.id) end
  return { 'removed' }
end

local replies = {}
for i = 1, tonumber(ARGV[at + 1]) do replies[i] = forget(load(ARGV[at + 1 + i], WAITING)) end
turn_wheels()
return commit(cmsgpack.pack(replies))
