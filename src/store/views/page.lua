--[[ page: ids of an index in the order of their score, from just behind a place in it.

KEYS[1] calls       hash   the declared key that carries the shard's tag
ARGV[1] base        same tag as KEYS[1]
ARGV[2] offset_ms   '' in production; tests move time with it
ARGV[3] index       derives base .. index (zset)
ARGV[4] newest      '1': from the highest score down
ARGV[5] score       of the place, '' for the beginning
ARGV[6] id          of the place
ARGV[7] limit       ids at most
RETURNS {id, score, …}
MOVES   -
COST    O(log index + limit), plus those of equal score where the id of the place is gone, 5000 at most
]]
local key, newest, score, id, limit = ARGV[1] .. ARGV[3], ARGV[4] == '1', ARGV[5], ARGV[6], tonumber(ARGV[7])
local from = 0

-- Whether `member` comes before the place or is it, both having its score.
local function is_behind(member)
  if newest then return member >= id end
  return member <= id
end

local function range(first, count)
  if newest then return redis.call('ZRANGE', key, first, first + count - 1, 'REV', 'WITHSCORES') end
  return redis.call('ZRANGE', key, first, first + count - 1, 'WITHSCORES')
end

if score ~= '' then
  local rank = redis.call(newest and 'ZREVRANK' or 'ZRANK', key, id)
  local stands = rank and redis.call('ZSCORE', key, id)
  if stands and tonumber(stands) == tonumber(score) then
    from = rank + 1
  else
    from = newest and redis.call('ZCOUNT', key, '(' .. score, '+inf') or redis.call('ZCOUNT', key, '-inf', '(' .. score)
    local passed = 0
    while passed < 5000 do
      local step = range(from, 500)
      local before = 0
      for i = 1, #step, 2 do
        if tonumber(step[i + 1]) ~= tonumber(score) or not is_behind(step[i]) then break end
        before = before + 1
      end
      from, passed = from + before, passed + before
      if before < 500 then break end
    end
  end
end
return cmsgpack.pack(range(from, limit))
