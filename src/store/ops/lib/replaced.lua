-- replaced: whether the content of a leased task was replaced.
--
-- defines: is_replaced
-- needs: prelude, clock
-- keys: task:<id>

-- Returns whether a task waits for the end of this one that replaces its content: then no attempt follows. An unreadable one
-- does not.
local function is_replaced(task)
  local successor = task[F.successor]
  if not successor or successor == '' then return false end
  local state, predecessor, replaces, expires_at =
    unpack(redis.pcall('HMGET', base .. 'task:' .. successor, F.state, F.predecessor, F.replaces, F.expires_at))
  return state == 'scheduled' and predecessor == task.id and replaces == '1' and (tonumber(expires_at) or now + 1) > now
end
