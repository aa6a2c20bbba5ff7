--[[ page: returns ids of an index by score, after a given position.

KEYS    ended:<queue>:<state>, ended:<queue>:<state>:<piece>
ARGV[3] index       scheduled, leased, or ended
ARGV[4] queue       name
ARGV[5] state       of an ended task: from the highest score down; '': from the lowest up
ARGV[6] score       of the position, '' for the start
ARGV[7] id          of the position
ARGV[8] limit       maximum of ids
RETURNS {id, score, …}
MOVES   -
COST    O(log index + limit); if the position's id was removed, also at most 5000 ids with its score
]]
local queue, state, score, id, limit = ARGV[4], ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8])
local newest = state ~= ''

-- Returns whether `member`, which has the position's score, is at the position or before it.
local function is_passed(member)
  if newest then return member >= id end
  return member <= id
end

local function range(key, first, count)
  if newest then return call('ZRANGE', key, first, first + count - 1, 'REV', 'WITHSCORES') end
  return call('ZRANGE', key, first, first + count - 1, 'WITHSCORES')
end

-- Returns what a key has after the position, at most `limit`.
local function page_of(key)
  if score == '' then return range(key, 0, limit) end
  local rank, from = call(newest and 'ZREVRANK' or 'ZRANK', key, id), 0
  local current_score = rank and call('ZSCORE', key, id)
  if current_score and tonumber(current_score) == tonumber(score) then
    from = rank + 1
  else
    from = newest and call('ZCOUNT', key, '(' .. score, '+inf') or call('ZCOUNT', key, '-inf', '(' .. score)
    local passed = 0
    while passed < 5000 do
      local members = range(key, from, 500)
      local step = 0
      for i = 1, #members, 2 do
        if tonumber(members[i + 1]) ~= tonumber(score) or not is_passed(members[i]) then break end
        step = step + 1
      end
      from, passed = from + step, passed + step
      if step < 500 then break end
    end
  end
  return range(key, from, limit)
end

if not newest then return cmsgpack.pack(page_of(base .. ARGV[3] .. ':' .. queue)) end

-- The pieces, from the last one that has an end before the position, and the head. A later key has no later end, but it may
-- have ends at the same time.
local head, pieces, number = base .. 'ended:' .. queue .. ':' .. state, nil, 0
accepts_unreadable = true
if record_of(queue).tail ~= '' then
  use_pieces()
  pieces = pieces_of(record_of(queue))[state]
end
if pieces then
  -- Behind a piece that cannot be read, the page fails with the error of that key.
  local first = score ~= '' and first_piece_from(head, pieces, tonumber(score) + 1) or pieces.last
  number = math.min(pieces.last, first)
end
local found, last_score = {}, nil
while true do
  local has_piece = pieces and number >= pieces.first
  local page = page_of(has_piece and head .. ':' .. digits(number) or head)
  -- Enough, and all with the last time.
  if #found >= limit and page[2] and tonumber(page[2]) < last_score then break end
  for i = 1, #page, 2 do
    last_score = tonumber(page[i + 1])
    found[#found + 1] = { page[i], page[i + 1], last_score }
  end
  if not has_piece then break end
  number = number - 1
end
table.sort(found, function(one, other)
  if one[3] ~= other[3] then return one[3] > other[3] end
  return one[1] > other[1]
end)
local reply = {}
for i = 1, #found do
  local n = #reply
  -- A stopped call may have left a task in two keys.
  if n < 2 * limit and found[i][1] ~= reply[n - 1] then reply[n + 1], reply[n + 2] = found[i][1], found[i][2] end
end
return cmsgpack.pack(reply)
