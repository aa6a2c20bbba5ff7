-- Counts what a script asks of Redis, and stops it at the call whose number the test has written. Time stands still, so
-- that two runs of a script on one state leave one state.
local asked, stop_at, asking = redis, tonumber(redis.call('HGET', KEYS[1], '~abort') or 0), 0
local function watched(name, ...)
  asking = asking + 1
  if asking == stop_at then error('ABORTED ' .. name .. ' ') end
  if name == 'TIME' then return { '2000000000', '0' } end
  return asked.call(name, ...)
end
local redis = setmetatable({ call = watched, pcall = watched }, { __index = asked })
