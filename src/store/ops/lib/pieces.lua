-- pieces: slot queues and lists of ended tasks in pieces, so that Redis stores long ones in few bytes.
--
-- The key of a list, its head, has the tasks that come first. Once it has as many as a piece, those behind them go into
-- pieces: a key with a number has the tasks of L.queue.piece consecutive positions. Claims take from the head alone, and a list
-- has tasks if its head has some: a call that empties the head moves the first piece into it. A task that returns to its
-- position goes to the head, if the piece of its position was moved there.
--
-- The record of the queue has the number of the first piece and the next position, for each list that may have pieces. Such a
-- list has its own positions, so that its pieces are full whatever other lists of the queue get. The counter of the queue is
-- not behind them: a list without pieces draws from there.
--
-- A list here is a table with `member`, its name in the queue, `key`, and `added`, the tasks that the call adds to its head.
--
-- defines: what use_pieces() does, which each call that needs one of these functions calls first: it sets piece_of,
--   next_in_pieces, move_first_piece, pieces_of
-- needs: prelude, clock, transaction, records, piece_functions
if piece_of then return end
local STATES = { [10] = 'completed', [11] = 'dead', [12] = 'cancelled', [13] = 'expired' }

-- Returns the pieces of the queue by the names of its lists.
pieces_of = function(record)
  local pieces = record.pieces
  if pieces then return pieces end
  pieces = {}
  for at = 1, #record.tail, L.pieces.bytes do
    local _, list, slot, first, next_position = struct.unpack(L.pieces.format, record.tail, at)
    pieces[STATES[list] or list .. ':' .. slot] = { list = list, slot = slot, first = first, next = next_position,
      last = math.floor((next_position - 1) / L.queue.piece) }
  end
  record.pieces = pieces
  return pieces
end

local function store_pieces(record)
  local slots, ended = {}, {}
  for _, pieces in pairs(record.pieces) do
    local packed = pieces.list < 10 and slots or ended
    packed[#packed + 1] = struct.pack(L.pieces.format, L.pieces.version, pieces.list, pieces.slot, pieces.first, pieces.next)
  end
  record.tail = table.concat(slots) .. table.concat(ended)
end

-- Notes that the pieces of the record have changed.
local function set_changed(record, has_slot_pieces)
  record.store_pieces, record[L.queue.behind] = store_pieces, true
  if has_slot_pieces then record.has_slot_pieces = true end
end

-- Returns the key of the piece for a position; nil: it is in the head. `is_known`: the list has this position from now on.
piece_of = function(record, list, seq, is_known)
  local pieces, number = pieces_of(record)[list.member], seq and math.floor(seq / L.queue.piece)
  if not pieces or not seq or number < pieces.first then return nil end
  if is_known and number > pieces.last then
    pieces.next, pieces.last = (number + 1) * L.queue.piece, number
    set_changed(record)
  end
  if list.piece ~= number then list.piece, list.piece_key = number, list.key .. ':' .. digits(number) end
  return list.piece_key
end

-- Returns the position for a task that comes behind all others of a list; nil: the list has no pieces. They begin when the head
-- is full, if they may: with the first one behind `seq`, the next position of the queue.
next_in_pieces = function(record, list, seq, may_begin)
  local member = list.member
  local pieces = pieces_of(record)[member]
  if not pieces then
    if not may_begin then return nil end
    list.head_size = list.head_size or call('ZCARD', list.key)
    if list.head_size + list.added < L.queue.piece then return nil end
    local number, kind, slot = math.ceil(seq / L.queue.piece), nil, 0
    for value, state in pairs(STATES) do
      if state == member then kind = value end
    end
    if not kind then kind, slot = string.match(member, '^(%d+):(%d+)$') end
    pieces = { list = tonumber(kind), slot = slot, first = number, next = number * L.queue.piece }
    record.pieces[member] = pieces
  end
  local position = pieces.next
  pieces.next, pieces.last = position + 1, math.floor(position / L.queue.piece)
  set_changed(record, pieces.list < 10)
  return position
end

-- Moves the first piece into the head. Returns its ids in their order; nil if there is none.
move_first_piece = function(record, member, head)
  local pieces = pieces_of(record)[member]
  local had_pieces = pieces ~= nil
  while pieces do
    local piece = head .. ':' .. digits(pieces.first)
    local ids, added, removed = call('ZRANGE', piece, 0, -1), zset_adds[piece], removals[piece]
    pieces.first = pieces.first + 1
    if pieces.first > pieces.last then record.pieces[member], pieces = nil, nil end
    if ids[1] or added then
      -- Writes that the call has staged for the piece go to the head. A task that it has taken out of the head stays there.
      local returning = {}
      for i = 3, added and #added or 0, 2 do
        zset_add(head, added[i], added[i + 1])
        ids[#ids + 1], returning[added[i + 1]] = added[i + 1], true
      end
      local of_head = removals[head]
      removals[head] = nil
      for i = 3, of_head and #of_head or 0 do
        if not returning[of_head[i]] then zset_remove(head, of_head[i]) end
      end
      local is_removed = {}
      for i = 3, removed and #removed or 0 do
        zset_remove(head, removed[i])
        is_removed[removed[i]] = true
      end
      zset_adds[piece], removals[piece] = nil, nil
      write('ZUNIONSTORE', head, 2, head, piece, 'AGGREGATE', 'MIN')
      write_last('DEL', piece)
      local left = {}
      for _, id in ipairs(ids) do
        if not is_removed[id] then left[#left + 1] = id end
      end
      if left[1] then
        set_changed(record)
        return left
      end
    end
  end
  if had_pieces then set_changed(record) end
end
