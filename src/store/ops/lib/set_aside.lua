-- set_aside: sets unreadable keys aside under another name, so that the rest can be repaired and no data is lost.
--
-- defines: checks.key_type, checks.task_record
-- needs: clock, transaction, invariants
-- keys: quarantine:<time>:<key>

local function set_aside(flag, name, violation)
  local key, aside = base .. name, base .. 'quarantine:' .. digits(now) .. ':' .. name
  call('EXISTS', aside)
  flag(violation, 'set aside under quarantine:' .. digits(now))
  write_last('RENAME', key, aside)
end

-- A key has the type of its pattern. `name` lacks the shard's base.
function checks.key_type(flag, name, expected)
  local found = call('TYPE', base .. name).ok
  if found == 'none' or found == expected then return end
  set_aside(flag, name, 'the type is ' .. found .. ', expected ' .. expected)
end

-- The fields of a task are readable. `document` is a document that cannot be decoded, if that is the violation.
function checks.task_record(flag, id, violation, document)
  local task = find_task(id)
  if not task then return end
  if task == UNREADABLE or (document and (call('HGET', task.key, F.document) or '') == document) then
    set_aside(flag, 'task:' .. id, violation)
  end
end
