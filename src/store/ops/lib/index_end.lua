-- index_end: the indexes of ended tasks.
--
-- defines: index_end
-- needs: clock, transaction
-- keys: ended:<queue>:<state>, retention
local now_digits, last_retain_ms, delete_at

-- Enters a task that ends in `state` at `ended_at`, now if nil, and is kept for `retain_ms`.
local function index_end(id, queue, state, ended_at, retain_ms)
  if retain_ms ~= last_retain_ms then last_retain_ms, delete_at = retain_ms, digits(now + tonumber(retain_ms)) end
  now_digits = now_digits or digits(now)
  zset_add(base .. 'ended:' .. queue .. ':' .. state, ended_at or now_digits, id)
  zset_add(base .. 'retention', delete_at, id)
end
