--[[ oldest: returns the tasks of lists of ended tasks that ended first.

KEYS    ended:<queue>:<state>, ended:<queue>:<state>:<piece>
ARGV[3] until       the latest time of an end
ARGV[4] limit       maximum of tasks of each list
ARGV[5] count       of lists; then for each: queue, state
RETURNS {id, time, …} for each list, oldest first
MOVES   -
COST    O(lists log queue + tasks), and the empty pieces between tasks
]]
local limit, replies = tonumber(ARGV[4]), {}
accepts_unreadable = true
for i = 1, tonumber(ARGV[5]) do
  local queue, state, found, is_found = ARGV[4 + 2 * i], ARGV[5 + 2 * i], {}, {}
  local key, record, pieces = base .. 'ended:' .. queue .. ':' .. state, record_of(queue), nil
  local head, number = key, 0
  if record.tail ~= '' then
    use_pieces()
    pieces = pieces_of(record)[state]
    number = pieces and pieces.first or 0
  end
  while key and #found < 2 * limit do
    -- A key of a wrong type ends its list, and not the others.
    local page = redis.pcall('ZRANGEBYSCORE', key, '-inf', ARGV[3], 'WITHSCORES', 'LIMIT', 0, limit - #found / 2)
    for j = 1, #page, 2 do
      local n = #found
      -- A stopped call may have left a task in two keys.
      if not is_found[page[j]] then found[n + 1], found[n + 2], is_found[page[j]] = page[j], page[j + 1], true end
    end
    -- A later piece has no earlier end.
    if not page[1] and call('EXISTS', key) == 1 then break end
    key, number = pieces and number <= pieces.last and head .. ':' .. digits(number), number + 1
  end
  replies[i] = found
end
return cmsgpack.pack(replies)
