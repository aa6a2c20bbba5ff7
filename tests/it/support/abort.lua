-- Counts a script's calls of Redis and stops it at the call whose number the test has written. The clock is fixed, so
-- that two runs of a script on one state leave the same state.
local real_redis, stop_at, calls = redis, tonumber(redis.call('HGET', KEYS[1], '~abort') or 0), 0
local function counted(run)
  return function(name, ...)
    calls = calls + 1
    if calls == stop_at then error('ABORTED ' .. name .. ' ') end
    if name == 'TIME' then return { '2000000000', '0' } end
    return run(name, ...)
  end
end
local redis = setmetatable({ call = counted(redis.call), pcall = counted(redis.pcall) }, { __index = real_redis })
