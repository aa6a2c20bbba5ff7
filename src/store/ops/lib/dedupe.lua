-- dedupe: the record of a dedupe key: the id of the task that holds it, then, if its window ends, the end in ms.
--
-- defines: read_dedupe, free_dedupe
-- needs: prelude, transaction
-- keys: dedupe:<queue>:<digest>

-- Returns the key, and from its record the holder's id and the end of the window; nil where there is none.
local function read_dedupe(queue, digest)
  local key = base .. 'dedupe:' .. queue .. ':' .. digest
  local record = call('GET', key)
  touched[key] = true
  if not record then return key, nil, nil end
  return key, string.sub(record, 1, 16), tonumber(string.sub(record, 17))
end

-- Frees the dedupe key of a task that holds one.
local function free_dedupe(task)
  local digest = task[F.dedupe_digest]
  if not digest or digest == '' then return end
  local key, holder = read_dedupe(task[F.queue], digest)
  if holder == task.id then write_last('DEL', key) end
end
