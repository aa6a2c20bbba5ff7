-- key_reader: takes tasks of keyed slot queues. A turn is one pass over the keys of the slot, in the order of their digests, one
-- task each:
--   [A|3|id] [A|7|id] [B|5|id] [C|6|id] [C|8|id]     1st pass: A 3, B 5, C 6      2nd pass: A 7, C 8
--
-- A pass that this call begins serves all keys. A pass that an earlier call has left in the middle serves no task that came
-- after it had begun, so that new keys do not prolong it.
--
-- A pass is at line `line_at` of those that the call has read, see key_lines. `served` is the key that had its turn last.
-- `is_cut`: a limit of the call is reached.
--
-- defines: the end of define_key_reader(), which returns a table of functions: begin_pass, next_in_pass, serve_key, pass_over,
--   end_pass, close_passes
-- needs: transaction, records, passes, claimable, wheel_reader, key_lines
-- keys: task:<id>

-- Tasks of a key that are passed over in a turn.
local MAX_PASSED_OVER = 8

-- Begins the pass over the keys of an entry, or goes on with it. `members` are its first ones, as many as are read ahead and one,
-- or all; false: they are not read yet, as passes of the queue are in the middle.
local function begin_pass(queue, entry, members)
  local pass = { lines = {}, line_at = 1, served = '', begins_behind = '', has_all = false, seen = 0,
    step = queue.read_ahead + 1, stored_key = false, until_seq = false, has_left = false, is_cut = false, earlier = false, size = false }
  entry.pass, entry.only = pass, false
  if queue.record.passes ~= '' then
    local find_pass = define_passes()
    local key_digest, until_seq = find_pass(queue.record, entry.member)
    if key_digest then
      -- The turn has begun: it ends at the rear, also if nothing is left to serve.
      pass.served, pass.begins_behind, pass.stored_key, pass.until_seq = key_digest, key_digest, key_digest, until_seq
      entry.is_served = true
    end
  end
  if members then add_lines(pass, members) end
end

-- Returns the id and the member of the task whose turn it is; nil: the pass is over, or cut.
local function next_in_pass(queue, entry, is_from_rear)
  local pass = entry.pass
  queue.in_pass, queue.is_pass_from_rear = entry, is_from_rear
  while true do
    local line = pass.lines[pass.line_at]
    if line then
      local member = next_of_line(pass, entry.key, line)
      -- A malformed member is passed over.
      local id = member and #member == 30 and string.sub(member, 15)
      local is_newer = id and pass.until_seq and struct.unpack('>I6', member, 9) > pass.until_seq and string.byte(member, 9) < 128
      if id and not is_newer and not loaded_keys[base .. 'task:' .. id] then return id, member end
      -- A stopped call may have left a task in two places.
      if id and not is_newer then line.at = line.at + 1 else pass.line_at = pass.line_at + 1 end
      if member then examined = examined + 1 end
      if examined >= 500 then
        pass.is_cut, is_full = true, true
        return nil
      end
    elseif not pass.has_all then
      read_lines(pass, entry.key)
    elseif pass.has_left and not entry.is_served then
      -- No key was served: those that were left for the next pass have it now.
      pass.line_at, pass.has_left = 1, false
    else
      return nil
    end
  end
end

-- The key has had its turn.
local function serve_key(pass)
  local line = pass.lines[pass.line_at]
  line.at, pass.line_at, pass.served = line.at + 1, pass.line_at + 1, line.key_digest
end

-- Passes over a task that cannot be handed out. Its key keeps its turn. If the task has expired, it keeps its place; if it is
-- unreadable, it is set back; in another state it has no place here, and its member goes.
local function pass_over(entry, member, has_expired, is_unreadable)
  local pass, has_place = entry.pass, has_expired or is_unreadable
  local line, is_set_back = pass.lines[pass.line_at], string.byte(member, 9) > 127
  line.at, line.passed_over, entry.has_skipped = line.at + 1, line.passed_over + 1, entry.has_skipped or has_place
  if is_set_back and has_place then
    -- So are all behind it.
    line.at, line.is_partial = #line + 1, false
    return
  end
  if line.passed_over % MAX_PASSED_OVER == 0 then pass.line_at, pass.has_left = pass.line_at + 1, true end
  if has_expired then return end
  if is_unreadable then zset_add(entry.key, '0', set_back_member(struct.unpack('>I6', member, 9), string.sub(member, 15))) end
  if entry.taken then entry.taken[#entry.taken + 1] = member else entry.taken = { 'ZREM', entry.key, member } end
  has_moved = true
end

-- Ends the pass over the lines of an entry. Returns whether it has members that this call does not remove.
local function end_pass(queue, entry)
  local pass = entry.pass
  local removed, lines, has_start = entry.taken and #entry.taken - 2 or 0, pass.lines, pass.begins_behind == ''
  local is_complete = has_start
  for i = 1, is_complete and #lines or 0 do is_complete = is_complete and not lines[i].is_partial end
  queue.in_pass = nil
  if pass.seen <= removed then
    if not is_complete then pass.size = pass.size or call('ZCARD', entry.key) end
    if is_complete or pass.size <= removed then return false end
  end
  local left, earlier = {}, not has_start and {}
  for _, line in ipairs(lines) do
    if earlier then
      earlier[line.key_digest] = line
    elseif line[line.at] or line.is_partial then
      left[#left + 1] = line
    end
  end
  pass.lines, pass.line_at, pass.begins_behind, pass.until_seq, pass.has_left, pass.earlier = left, 1, '', false, false, earlier
  pass.has_all, pass.served = has_start, ''
  return true
end

-- Notes in the record of the queue where its passes stand after this call.
local function close_passes(queue)
  local entry, set_pass, _ = queue.in_pass, nil, nil
  local pass = entry and entry.pass
  if pass and not pass.is_cut and not next_in_pass(queue, entry, queue.is_pass_from_rear) and not pass.is_cut then
    advance(queue, entry, queue.is_pass_from_rear)
    pass = nil
  end
  local function note(member, key_digest, until_seq)
    if not set_pass then _, set_pass = define_passes() end
    set_pass(queue.record, member, key_digest, until_seq)
    has_moved = true
  end
  for _, visited in ipairs(queue.visited) do
    if visited.pass and visited.pass.stored_key then
      note(visited.member)
      visited.pass.stored_key = false
    end
  end
  if not pass then return end
  -- A call that has reached the limit of tasks that it examines goes on behind the keys that it has passed over.
  local served, line = pass.served, pass.lines[pass.line_at - 1]
  if examined >= 500 and line then served = line.key_digest end
  if served ~= (pass.stored_key or '') then
    -- A malformed member may be shorter.
    served = string.sub(served .. string.rep('\0', 8), 1, 8)
    note(entry.member, served, pass.until_seq or queue.record[L.queue.seq])
  end
  if entry.taken then removals[entry.key] = entry.taken end
end

return { begin_pass = begin_pass, next_in_pass = next_in_pass, serve_key = serve_key, pass_over = pass_over, end_pass = end_pass,
  close_passes = close_passes }
