-- Watches a script at its work. Every key must begin with the declared base, must have been touched before the first
-- write, and must not be touched again after the write that emptied it. Nothing is written after the first hint.
local redis_call = redis.call
local watched = { seen = {}, gone = {}, writing = false }
local WRITES = { HSET = true, HDEL = true, ZADD = true, ZREM = true, SET = true, DEL = true, SADD = true, SREM = true,
  PEXPIRE = true, UNLINK = true }
local NO_KEYS = { TIME = true, SPUBLISH = true }
local redis = setmetatable({
  call = function(name, ...)
    name = string.upper(name)
    if name == 'SPUBLISH' then watched.hinted = true end
    if NO_KEYS[name] then return redis_call(name, ...) end
    local keys = redis_call('COMMAND', 'GETKEYS', name, ...)
    if WRITES[name] then
      if watched.hinted then error('SHIM ' .. name .. ' writes after a hint') end
      watched.writing = true
    end
    for _, key in ipairs(keys) do
      if string.sub(key, 1, #ARGV[1]) ~= ARGV[1] then error('SHIM ' .. name .. ' leaves the base: ' .. key) end
      if watched.gone[key] then error('SHIM ' .. name .. ' touches what was emptied: ' .. key) end
      if watched.writing and not watched.seen[key] then error('SHIM ' .. name .. ' had not read: ' .. key) end
      watched.seen[key] = true
    end
    local before = WRITES[name] and redis_call('EXISTS', keys[1])
    local answer = redis_call(name, ...)
    if before == 1 and redis_call('EXISTS', keys[1]) == 0 then watched.gone[keys[1]] = true end
    return answer
  end,
}, { __index = redis })
