-- lease_ready: leases ready tasks to waiting requests, in the order of the requests.
--
-- defines: lease_ready
-- needs: prelude, clock, transaction, records, events, front, wheel_reader, wait_times, begin_lease
-- keys: expirations

-- Leases tasks of `queue_names` to the requests from ARGV[at] on: their number; then for each: max tasks, lease_ms, worker,
-- digest of its claim id or '', number of queues, then the index of each in `queue_names`. The digest may have that of the
-- queues behind it. The tokens of the leases are behind ARGV[tokens_at]. A request whose index is in `left_out` gets none.
--
-- Returns {more, expired, {request, token, id, lease_until, queue, placement, document, progress, expires_at} for each task,
-- {queue, front} for each queue read, {queue, id} for each task passed over because it is unreadable}; and whether the call
-- has to be committed.
local function lease_ready(queue_names, tokens_at, at, left_out)
  local handouts, opened = {}, {}
  for index = 1, tonumber(ARGV[at]) do
    local max, lease_ms, worker, claim_digest, queues = unpack(ARGV, at + 1, at + 5)
    local waiter = { lease_ms = tonumber(lease_ms), worker = worker, claim_digest = claim_digest }
    local room = tonumber(max)
    at = at + 5
    for i = at + 1, left_out and left_out[index] and at or at + queues do
      local queue_index = tonumber(ARGV[i])
      local queue = opened[queue_index]
      if not queue then
        queue = open_queue(queue_index, queue_names[queue_index])
        opened[queue_index] = queue
      end
      local name = queue.name
      while room > 0 and not queue.is_empty and not is_full do
        if taken == max_tasks then is_full = true end
        local id, key, document, placement, lease, expires_at, progress, max_run_ms = next_task(queue)
        if not id then break end
        local acquired, _ = 0, nil
        if lease then _, _, _, _, _, _, acquired = struct.unpack(L.lease.format, lease) end
        local command = { 'HSET', key, F.state, 'leased', nil, nil }
        local lease_until = begin_lease(command, waiter, ARGV[tokens_at + taken], tonumber(max_run_ms) or 0, acquired + 1, name,
          queue.leased_key, id)
        writes[#writes + 1] = command
        if expires_at and expires_at ~= '' then zset_remove(base .. 'expirations', id) end
        local ready_at = struct.unpack(L.placement.from_ready_at, placement, L.placement.byte_ready_at)
        record_wait(name, now > ready_at and now - ready_at or 0, 1)
        queue.leased, room = queue.leased + 1, room - 1
        emit_event(id, name, 'ready', 'leased')
        handouts[taken] = { index, taken, id, lease_until, queue_index, placement, document, progress or '', expires_at or '' }
      end
    end
    at = at + queues
  end

  local fronts, is_front_wrong = {}, false
  for index, queue in pairs(opened) do
    local front, name, leased = nil, queue.name, queue.leased
    -- The wheel of a paused queue was not read.
    if queue.wheel then
      front = close_queue(queue)
      is_front_wrong = is_front_wrong or front ~= front_of(record_of(name))
      set_front(name, front)
    end
    fronts[#fronts + 1] = { index, queue.is_empty and front and -2 or front or -1 }
    if leased > 0 then
      count(name, L.queue.ready, -leased)
      count(name, L.queue.leased, leased)
    end
  end
  -- A wrong front is corrected.
  local has_changed = taken > 0 or has_moved or is_front_wrong
  return { is_full and 1 or 0, passed_expired, handouts, fronts, unreadable }, has_changed
end
