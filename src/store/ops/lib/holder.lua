-- holder: the task that holds a dedupe key.
--
-- defines: find_holder, expired_holders
-- needs: clock, transaction, dedupe, stop_waiting, expiry
local HOLDS_KEY = { ready = true, scheduled = true, leased = true }
local HOLDER_FIELDS = { F.state, F.queue, F.slot, F.priority, F.seq, F.expires_at, F.completion_watched, F.retain_ms }
-- Holders that this call has found expired.
local expired_holders = 0

-- Returns the dedupe key, and the task that holds it, nil if there is none. A holder that has expired ends; the caller
-- takes its key. `known`: a task that the call has loaded.
local function find_holder(queue, digest, retain_ms, known)
  local key, id, until_ms = read_dedupe(queue, digest)
  if not id or (until_ms and until_ms <= now) then return key, nil end
  if known and id == known.id then return key, known end
  local holder = load_task(id, HOLDER_FIELDS)
  -- An ended task holds no key: its record should have been deleted when it ended.
  if not holder or not HOLDS_KEY[holder[F.state]] then return key, nil end
  if has_expired(holder) then
    expire(holder, retain_ms)
    expired_holders = expired_holders + 1
    return key, nil
  end
  return key, holder
end
