-- index_end: the indexes of ended tasks.
--
-- defines: index_end
-- needs: clock, transaction
-- keys: ended:<queue>:<state>, retention
local last_retain_ms, delete_at

-- Enters a task that ends in `state` at `ended_at`, and is kept for `retain_ms`.
local function index_end(id, queue, state, ended_at, retain_ms)
  if retain_ms ~= last_retain_ms then last_retain_ms, delete_at = retain_ms, digits(now + tonumber(retain_ms)) end
  zset_add(base .. 'ended:' .. queue .. ':' .. state, ended_at, id)
  zset_add(base .. 'retention', delete_at, id)
end
