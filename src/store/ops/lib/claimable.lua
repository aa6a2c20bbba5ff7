-- claimable: reads the tasks that a claim may lease.
--
-- defines: loaded_keys, read_claimable
-- needs: prelude
local loaded_keys = {}

-- Returns the state, the document, the placement, and if the task has them or is leased the lease and its rare fields; nil if
-- there is no such task, or if it cannot be handed out; then also whether it is unreadable. It must not block the tasks
-- behind it.
local function read_claimable(key, is_leased)
  if loaded_keys[key] then error('TWICE one task in a call') end
  loaded_keys[key] = true
  local state, document, placement = unpack(redis.pcall('HMGET', key, F.state, F.document, F.placement))
  if not state then return nil, state == nil end
  local options = placement and string.byte(placement, L.placement.byte_options) or 0
  if not document or not placement or #placement <= L.placement.bytes + (options % 8 < 4 and 8 or 0)
    or string.byte(placement) ~= L.placement.version then
    return nil, state == 'ready'
  end
  if not is_leased and options % 2 == 0 then return state, document, placement end
  local lease, expires_at, progress, max_run_ms = unpack(call('HMGET', key, F.lease, F.expires_at, F.progress, F.max_run_ms))
  if lease and (#lease < L.lease.bytes or string.byte(lease) ~= L.lease.version) then return nil, state == 'ready' end
  return state, document, placement, lease, expires_at, progress, max_run_ms
end
