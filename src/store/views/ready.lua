--[[ ready: returns ready tasks of slot queues of one priority, each by seq, or by key digest and seq.

KEYS    slot:<queue>:<priority>:<slot>, slot:<queue>:<priority>:<slot>:<piece>, slot:<queue>:<priority>:<slot>:k
ARGV[3] queue       name
ARGV[4] priority    of the slot queues
ARGV[5] limit       maximum of tasks
ARGV[6] count       of slot queues; then for each: <slot>, and the seq behind which it begins, -1 for its start; or
                    <slot>:k, and key digest and seq, '' for its start
RETURNS {id, seq, …} for each slot queue, or {member, …} for a keyed one
MOVES   -
COST    O(slots log queue + limit), and the empty pieces between tasks
]]
local queue, priority, left, replies = ARGV[3], ARGV[4], tonumber(ARGV[5]), {}
-- The slot queues can be read without the record.
accepts_unreadable = true
local record, pieces_by_member = record_of(queue), {}
if record.has_slot_pieces then
  use_pieces()
  pieces_by_member = pieces_of(record)
end
-- Entries that a claim has set back, behind all others, are there from this score on, see wheel_reader.
local SET_BACK = 2 ^ 52

local function read_range(found, key, from, to)
  if left < 1 then return end
  local page = call('ZRANGEBYSCORE', key, from, to, 'WITHSCORES', 'LIMIT', 0, left)
  for i = 1, #page do found[#found + 1] = page[i] end
  left = left - #page / 2
end

local function read_keyed(key, after)
  if left < 1 then return {} end
  local from = after == '' and '-' or '(' .. after .. string.rep('\255', 17)
  local members = call('ZRANGEBYLEX', key, from, '+', 'LIMIT', 0, left)
  left = left - #members
  return members
end

local function read_keyless(found, slot, after)
  local head, pieces = base .. 'slot:' .. queue .. ':' .. priority .. ':' .. slot, pieces_by_member[priority .. ':' .. slot]
  local from = '(' .. digits(after)
  if after < SET_BACK then
    read_range(found, head, from, '(' .. digits(SET_BACK))
    local number = pieces and math.max(pieces.first, math.floor(after / L.queue.piece))
    -- A stopped call may have left tasks of the head in a piece.
    if found[1] then from = '(' .. found[#found] end
    while pieces and number <= pieces.last and left > 0 do
      read_range(found, head .. ':' .. digits(number), from, '+inf')
      number = number + 1
    end
    from = digits(SET_BACK)
  end
  read_range(found, head, from, '+inf')
end

for i = 1, tonumber(ARGV[6]) do
  local slot, after, found = ARGV[5 + 2 * i], ARGV[6 + 2 * i], {}
  if string.sub(slot, -2) == ':k' then
    found = read_keyed(base .. 'slot:' .. queue .. ':' .. priority .. ':' .. slot, after)
  else
    read_keyless(found, slot, tonumber(after))
  end
  replies[i] = found
end
return cmsgpack.pack(replies)
