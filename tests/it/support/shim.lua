-- Checks a script while it runs. Every key must start with the declared base, must be touched before the first write, and
-- must not be touched after the write that emptied it. Nothing is written after the first published message.
local shimmed_redis, redis_call = redis, redis.call
local state = { touched = {}, emptied = {}, has_written = false, has_published = false }
local WRITES = { HSET = true, HDEL = true, ZADD = true, ZREM = true, SET = true, DEL = true, SADD = true, SREM = true,
  PEXPIRE = true, UNLINK = true, RENAME = true }
local WITHOUT_KEYS = { TIME = true, SPUBLISH = true }
-- Returns `run`, with which a script calls Redis, with the checks. An error of this file is raised in any case.
local function checked(run)
  return function(name, ...)
    name = string.upper(name)
    if name == 'SPUBLISH' then
      state.has_published = true
      return shimmed_redis.pcall(name, ...)
    end
    if WITHOUT_KEYS[name] then return run(name, ...) end
    local keys = redis_call('COMMAND', 'GETKEYS', name, ...)
    if WRITES[name] then
      if state.has_published then error('SHIM ' .. name .. ' writes after a wake-up') end
      state.has_written = true
    end
    for _, key in ipairs(keys) do
      if string.sub(key, 1, #ARGV[1]) ~= ARGV[1] then error('SHIM ' .. name .. ' leaves the base: ' .. key) end
      if state.emptied[key] then error('SHIM ' .. name .. ' touches an emptied key: ' .. key) end
      if state.has_written and not state.touched[key] then error('SHIM ' .. name .. ' on a key first touched after a write: ' .. key) end
      state.touched[key] = true
    end
    local existed = WRITES[name] and redis_call('EXISTS', keys[1])
    local reply = run(name, ...)
    if existed == 1 and redis_call('EXISTS', keys[1]) == 0 then state.emptied[keys[1]] = true end
    return reply
  end
end
local redis = setmetatable({ call = checked(redis.call), pcall = checked(redis.pcall) }, { __index = shimmed_redis })
