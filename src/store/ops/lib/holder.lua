-- holder: the task that holds a dedupe key, and the one that waits for its end.
--
-- defines: HOLDER_FIELDS, find_holder, ends_with_lease, expired_holders
-- needs: clock, transaction, dedupe, free_dedupe, stop_waiting, expiry
local HOLDS_KEY = { ready = true, scheduled = true, leased = true }
local HOLDER_FIELDS = { F.run_at, F.expires_at, F.completion_watched, F.retain_ms, F.cancel_requested, F.dedupe_until, F.successor,
  F.predecessor, F.start_at }
-- Its numbers that may be missing.
local HOLDER_NUMBERS = { F.run_at, F.expires_at, F.retain_ms, F.start_at }
-- Tasks that this call has found expired.
local expired_holders = 0

local function expire_holder(task, retain_ms)
  -- The key is not freed: the caller or a successor takes it.
  task[F.dedupe_digest] = false
  expire(task, retain_ms)
  expired_holders = expired_holders + 1
end

-- Returns a task with the fields of a holder; nil if there is none, or if it cannot be read. Such a task does not run.
local function load_holder(id)
  if (tonumber(redis.pcall('HSTRLEN', base .. 'task:' .. id, F.document)) or 0) == 0 then return nil end
  local task = try_task(id, HOLDER_FIELDS)
  if not task then return nil end
  for _, name in ipairs(HOLDER_NUMBERS) do
    if task[name] and task[name] ~= '' and not tonumber(task[name]) then return nil end
  end
  return task
end

-- Returns the dedupe key, the task that holds it, nil if there is none, and the task that waits for the holder's end. Such
-- tasks that have expired end; if the holder is none, the caller takes the key. `known` is a task that the call has loaded
-- with these fields: if it has expired and has no successor, the caller makes it ready again.
local function find_holder(queue, digest, retain_ms, known)
  local key, id, until_ms = read_dedupe(queue, digest)
  if not id or (until_ms and until_ms <= now) then return key end
  local holder = known and id == known.id and known or load_holder(id)
  -- An ended task holds no key: its record should have been deleted when it ended.
  if not holder or not HOLDS_KEY[holder[F.state]] then return key end
  local successor = holder[F.successor]
  if not successor or successor == '' or (known and successor == known.id) then
    successor = nil
  else
    successor = load_holder(successor)
  end
  if not successor or successor[F.state] ~= 'scheduled' or successor[F.predecessor] ~= holder.id then
    successor = nil
  elseif has_expired(successor) then
    expire_holder(successor, retain_ms)
    successor = nil
  end
  if not has_expired(holder) or (holder == known and not successor) then return key, holder, successor end
  expire_holder(holder, retain_ms)
  if successor then start_successor(successor, key) end
  return key, successor
end

-- Returns whether the leased task ends with its lease, unless a completion is accepted before.
local function ends_with_lease(task)
  local is_last = task[F.attempts] + 1 >= task[F.max_attempts]
    or (tonumber(task[F.expires_at]) or now + 1) <= now
  return task[F.cancel_requested] or (is_last and task[F.lease_until] <= now)
end
