--[[ page: returns ids of an index by score, after a given position.

ARGV[3] index       the part of its key after the base
ARGV[4] newest      '1': from the highest score down
ARGV[5] score       of the position, '' for the start
ARGV[6] id          of the position
ARGV[7] limit       maximum of ids
RETURNS {id, score, …}
MOVES   -
COST    O(log index + limit); if the position's id was removed, also at most 5000 ids with its score
]]
local key, newest, score, id, limit = base .. ARGV[3], ARGV[4] == '1', ARGV[5], ARGV[6], tonumber(ARGV[7])
local from = 0

-- Returns whether `member`, which has the position's score, is at the position or before it.
local function is_passed(member)
  if newest then return member >= id end
  return member <= id
end

local function range(first, count)
  if newest then return call('ZRANGE', key, first, first + count - 1, 'REV', 'WITHSCORES') end
  return call('ZRANGE', key, first, first + count - 1, 'WITHSCORES')
end

if score ~= '' then
  local rank = call(newest and 'ZREVRANK' or 'ZRANK', key, id)
  local current_score = rank and call('ZSCORE', key, id)
  if current_score and tonumber(current_score) == tonumber(score) then
    from = rank + 1
  else
    from = newest and call('ZCOUNT', key, '(' .. score, '+inf') or call('ZCOUNT', key, '-inf', '(' .. score)
    local passed = 0
    while passed < 5000 do
      local members = range(from, 500)
      local step = 0
      for i = 1, #members, 2 do
        if tonumber(members[i + 1]) ~= tonumber(score) or not is_passed(members[i]) then break end
        step = step + 1
      end
      from, passed = from + step, passed + step
      if step < 500 then break end
    end
  end
end
return cmsgpack.pack(range(from, limit))
