-- dedupe: the record of a dedupe key: the id of the task that holds it, then, if its window ends, the end in ms. It has
-- no TTL, which a step of Redis' clock would shorten: it goes with its task.
--
-- defines: read_dedupe
-- needs: prelude, transaction
-- keys: dedupe:<queue>:<digest>

-- Returns the key, and from its record the holder's id and the end of the window; nil where there is none.
local function read_dedupe(queue, digest)
  local key = base .. 'dedupe:' .. queue .. ':' .. digest
  local record = call('GET', key)
  if not record then return key, nil, nil end
  return key, string.sub(record, 1, 16), tonumber(string.sub(record, 17))
end
