-- index_end: the lists of ended tasks of a queue and state, and when they are deleted. Only tasks with an own retention have a
-- time of deletion each. For the others, which end in the order of their deletion, `ended_due` has one for all of a queue and
-- state: that of the first which purge_ended has not looked at. A flag in the record of the queue says that there is one, so
-- that most ends need no command.
--
-- defines: ended_list, next_end, index_end
-- needs: clock, transaction, records, pieces
-- keys: ended:<queue>:<state>, ended:<queue>:<state>:<piece>, retention, ended_due
local ended_lists, last_list = {}, { queue = false }

-- Returns the list of the ended tasks of a queue and state; if it may have pieces, with the numbers of the first and the last.
local function ended_list(queue, state)
  if last_list.queue == queue and last_list.member == state then return last_list end
  local key = base .. 'ended:' .. queue .. ':' .. state
  last_list = ended_lists[key]
  if last_list then return last_list end
  local number = state == 'completed' and 0 or state == 'dead' and 1 or state == 'cancelled' and 2 or 3
  last_list = { member = state, key = key, queue = queue, added = 0, number = number, first = false, last = false, piece = false,
    piece_key = false }
  ended_lists[key] = last_list
  local tail = record_of(queue).tail
  for at = 1, #tail, L.pieces.bytes do
    local _, list, _, first, next_position = struct.unpack(L.pieces.format, tail, at)
    if list == 10 + number then last_list.first, last_list.last = first, math.floor((next_position - 1) / L.queue.piece) end
  end
  return last_list
end

-- Returns the position and the time of the next end in `state`, whose number of tasks is at `place` in the record. Times do not
-- decrease, also if the clock does a little: lists are in the order of both.
local function next_end(queue, state, place)
  local record, of_shard, list = record_of(queue), shard or shard_record(), ended_list(queue, state)
  -- The counters of the states are in the order of their numbers.
  local counter = L.queue.completed_ends + list.number
  local seq, ended_at = record[counter] + 1, of_shard[L.shard.ended_at]
  if not list.first and record[place] + list.added >= L.queue.piece then
    use_pieces()
    local position = next_in_pieces(record, list, seq, true)
    if position then
      seq, list.first, list.last = position, position / L.queue.piece, position / L.queue.piece
    end
  end
  record[counter], record[L.queue.behind] = seq, true
  if ended_at < now then ended_at, of_shard[L.shard.ended_at], is_shard_changed = now, now, true end
  return seq, ended_at
end

-- Enters a task that ends in `state`, with what next_end has returned. It is kept for `retain_ms`, which is its own, or if that
-- is nil or '' for `default_retain_ms`.
local function index_end(id, queue, state, end_seq, ended_at, retain_ms, default_retain_ms)
  local list, piece = ended_list(queue, state), math.floor(end_seq / L.queue.piece)
  local key = list.key
  if not list.first or piece < list.first then
    list.added = list.added + 1
  else
    if piece ~= list.piece then
      list.piece, list.piece_key = piece, key .. ':' .. digits(piece)
      if piece > list.last then
        use_pieces()
        piece_of(record_of(queue), list, end_seq, true)
        list.last = piece
      end
    end
    key = list.piece_key
  end
  local time = digits(ended_at)
  zset_add(key, time, id)
  if retain_ms and retain_ms ~= '' then
    zset_add(base .. 'retention', digits(ended_at + tonumber(retain_ms)), id)
    return
  end
  local record, flag = record_of(queue), 2 ^ (list.number + 1)
  if math.floor(record[L.queue.flags] / flag) % 2 == 1 then return end
  write('ZADD', base .. 'ended_due', 'LT', digits(ended_at + default_retain_ms), queue .. ':' .. state)
  record[L.queue.flags], record[L.queue.behind] = record[L.queue.flags] + flag, true
end
