--[[ next_due: returns Redis' time, the next times at which upkeep has work, and a page of the queues that are due.

KEYS    due, expirations, retention, ended_due
ARGV[3] skip        number of due queues to pass over, so that pages take turns
ARGV[4] limit       maximum of queues
RETURNS {now, first time in due | '', first time of expiry | '', first end of a retention | '', the first of these times
        that is later than now | '', number of due queues, {unreadable key, …}, queue that is due, its time, …}
MOVES   -
COST    O(skip + limit)
]]
local unreadable, future = {}, nil

-- Returns the first members of an index from a score on, with their scores. An index that cannot be read costs its own
-- jobs alone.
local function range(key, from, to, skip, limit)
  local page = redis.pcall('ZRANGEBYSCORE', key, from, to, 'WITHSCORES', 'LIMIT', skip, limit)
  if not page.err then return page end
  unreadable[#unreadable + 1] = string.sub(key, #base + 1)
  return {}
end

local function see(time)
  if time and tonumber(time) > now and (not future or tonumber(time) < future) then future = tonumber(time) end
end

local first_due = range(base .. 'due', '-inf', '+inf', 0, 1)[2]
local first_expiry = range(base .. 'expirations', '-inf', '+inf', 0, 1)[2]
local first_retention = range(base .. 'retention', '-inf', '+inf', 0, 1)[2]
local first_ended = range(base .. 'ended_due', '-inf', '+inf', 0, 1)[2]
local page, due_count = {}, 0
if first_due and tonumber(first_due) <= now then
  page, due_count = range(base .. 'due', '-inf', digits(now), ARGV[3], ARGV[4]), call('ZCOUNT', base .. 'due', '-inf', digits(now))
  see(range(base .. 'due', '(' .. digits(now), '+inf', 0, 1)[2])
end
see(first_due)
see(first_expiry)
see(first_retention)
see(first_ended)
if first_ended and (not first_retention or tonumber(first_ended) < tonumber(first_retention)) then first_retention = first_ended end
return cmsgpack.pack({ now, first_due or '', first_expiry or '', first_retention or '', future or '', due_count, unreadable, unpack(page) })
