-- pieces: slot queues in pieces, so that Redis stores long ones in few bytes.
--
-- The key of a slot queue, its head, has the tasks that come first. Once it has as many as a piece, those behind them go into
-- pieces: a key with a number has the tasks of L.queue.piece consecutive positions. Claims take from the head, and a slot is on
-- the wheel if its head has tasks: a call that empties the head moves the first piece into it. A task that returns to its
-- position goes to the head, if the piece of its position was moved there.
--
-- The record of the queue has the numbers of the first and the last piece, for each slot queue that may have pieces.
--
-- defines: the end of define_pieces(), which returns four functions: piece_of, begin_pieces, move_first_piece, pieces_of
-- needs: prelude, clock, transaction, records

-- Returns the pieces of the queue by the members of its wheel.
local function pieces_of(record)
  local pieces = record.pieces
  if pieces then return pieces end
  pieces = {}
  for at = 1, #record.tail, L.pieces.bytes do
    local _, priority, slot, first, last = struct.unpack(L.pieces.format, record.tail, at)
    pieces[priority .. ':' .. slot] = { priority = priority, slot = slot, first = first, last = last }
  end
  record.pieces = pieces
  return pieces
end

local function store_pieces(record)
  local packed = {}
  for _, pieces in pairs(record.pieces) do
    packed[#packed + 1] = struct.pack(L.pieces.format, L.pieces.version, pieces.priority, pieces.slot, pieces.first, pieces.last)
  end
  record.tail, record[L.queue.behind] = table.concat(packed), true
end

-- Returns the key of the piece for a position; nil: it is in the head. `is_added`: a task comes there.
local function piece_of(record, entry, seq, is_added)
  local pieces, number = pieces_of(record)[entry.member], math.floor(seq / L.queue.piece)
  if not pieces or number < pieces.first then return nil end
  if is_added and number > pieces.last then
    pieces.last = number
    store_pieces(record)
  end
  return entry.key .. ':' .. digits(number)
end

-- Returns the position for a task that comes behind all others of a slot queue: `seq`, or the next with which a piece begins,
-- if the head is full.
local function begin_pieces(record, entry, seq)
  if pieces_of(record)[entry.member] then return seq end
  entry.head_size = entry.head_size or call('ZCARD', entry.key)
  if entry.head_size + entry.added < L.queue.piece then return seq end
  local number = math.ceil(seq / L.queue.piece)
  local priority, slot = string.match(entry.member, '^(%d+):(%d+)$')
  record.pieces[entry.member] = { priority = priority, slot = slot, first = number, last = number }
  store_pieces(record)
  return number * L.queue.piece
end

-- Moves the first piece into the head. Returns its ids in their order; nil if there is none.
local function move_first_piece(record, member, head)
  local pieces = pieces_of(record)[member]
  local had_pieces = pieces ~= nil
  while pieces do
    local piece = head .. ':' .. digits(pieces.first)
    local ids, added, removed = call('ZRANGE', piece, 0, -1), zset_adds[piece], removals[piece]
    pieces.first = pieces.first + 1
    if pieces.first > pieces.last then record.pieces[member], pieces = nil, nil end
    if ids[1] or added then
      -- Writes that the call has staged for the piece go to the head.
      for i = 3, added and #added or 0, 2 do
        zset_add(head, added[i], added[i + 1])
        ids[#ids + 1] = added[i + 1]
      end
      local is_removed = {}
      for i = 3, removed and #removed or 0 do
        zset_remove(head, removed[i])
        is_removed[removed[i]] = true
      end
      zset_adds[piece], removals[piece] = nil, nil
      write('ZUNIONSTORE', head, 2, head, piece)
      write_last('DEL', piece)
      local left = {}
      for _, id in ipairs(ids) do
        if not is_removed[id] then left[#left + 1] = id end
      end
      if left[1] then
        store_pieces(record)
        return left
      end
    end
  end
  if had_pieces then store_pieces(record) end
end

return piece_of, begin_pieces, move_first_piece, pieces_of
