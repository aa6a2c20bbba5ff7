-- next_task: the tasks of a queue in the order of its wheel.
--
-- An entry that cannot be handed out stays in its slot queue, behind all others: it moves there when a call passes it over,
-- and a call that meets one there goes on with the next slot.
--
-- defines: next_task
-- needs: clock, transaction, claimable, wheel_reader, key_reader
-- keys: task:<id>

-- Takes the next task off the queue's wheel: returns its id, its key, and what read_claimable returns behind the state; nil if
-- the queue is empty or a limit of the call is reached.
local function next_task(queue)
  while not is_full do
    -- The entry whose turn it is. Within a priority, entries without a turn come first.
    local member, rear, entry = next_unvisited(queue), queue.rear and queue.rear[queue.rear_at], queue.current
    local priority = member and string.byte(member) - 48
    local is_from_rear = rear and (not member or priority < rear.priority)
    if is_from_rear then
      entry = rear
    elseif not member then
      queue.is_empty = true
      return nil
    elseif not entry or entry.member ~= member then
      entry = { member = member, priority = priority, key = queue.slots .. member, ids = nil, id_at = 1, read = 0, taken = nil,
        is_drained = false, has_skipped = false, is_served = false, turn = false, is_gone = false, pass = false, only = false }
      queue.current = entry
      -- The member of a keyed slot queue ends with a k. If it has only one task, that needs no pass.
      if string.byte(member, -1) == 107 then
        local members = queue.record.passes == '' and call('ZRANGE', entry.key, '0', queue.read_ahead)
        local first = members and members[1]
        if first and not members[2] and #first == 30 and string.byte(first, 9) < 128 then
          entry.only, entry.ids, entry.is_drained = first, { string.sub(first, 15) }, true
        else
          key_reader = key_reader or define_key_reader()
          key_reader.begin_pass(queue, entry, members)
        end
      end
    end
    local id, in_line
    local pass = entry.pass
    if pass then id, in_line = key_reader.next_in_pass(queue, entry, is_from_rear) else id = peek(queue, entry) end
    local key = id and base .. 'task:' .. id
    if not id then
      if not pass or not pass.is_cut then advance(queue, entry, is_from_rear) end
    elseif loaded_keys[key] then
      -- A stopped call may have left a task in two slot queues.
      entry.id_at, entry.has_skipped = entry.id_at + 1, true
    else
      local state, document, placement, lease, expires_at, progress, max_run_ms = read_claimable(key)
      examined = examined + 1
      local has_expired = state and (tonumber(expires_at) or now + 1) <= now
      if (state ~= 'ready' or has_expired) and entry.only then
        -- It is passed over as one of several.
        loaded_keys[key], key_reader = nil, key_reader or define_key_reader()
        key_reader.begin_pass(queue, entry, { entry.only })
      elseif state ~= 'ready' or has_expired then
        -- The entry stays in its slot queue, behind all others: `set_back` is more than any seq.
        local set_back, score, is_unreadable = 2 ^ 52, nil, not state and document
        if has_expired then passed_expired = 1 end
        if is_unreadable then unreadable[#unreadable + 1] = { queue.index, id } end
        if pass then
          key_reader.pass_over(entry, in_line, state == 'ready', is_unreadable)
        else
          entry.id_at, entry.has_skipped = entry.id_at + 1, true
          if not has_expired then score = tonumber(call('ZSCORE', entry.key, id)) end
        end
        if score and score < set_back then
          zset_add(entry.key, digits(score + set_back), id)
          has_moved = true
        elseif score then
          -- It and all behind it were set back by an earlier call.
          entry.id_at, entry.is_drained = #entry.ids + 1, true
        end
        is_full = examined >= 500
      else
        local bytes = #document + #(progress or '')
        if taken > 0 and bytes > bytes_left then
          -- It is the next one of the next call.
          is_full, loaded_keys[key] = true, nil
        else
          bytes_left, taken = bytes_left - bytes, taken + 1
          entry.id_at, entry.is_served = entry.id_at + 1, true
          local removed = in_line or entry.only or id
          if entry.taken then entry.taken[#entry.taken + 1] = removed else entry.taken = { 'ZREM', entry.key, removed } end
          if pass then key_reader.serve_key(pass) else advance(queue, entry, is_from_rear) end
          return id, key, document, placement, lease, expires_at, progress, max_run_ms
        end
      end
    end
  end
end
