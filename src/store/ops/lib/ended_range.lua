-- ended_range: finds a time in the pieces of a list of ended tasks, which are in the order of their times.
--
-- defines: first_piece_from
-- needs: prelude, clock

-- Returns the number of the first piece that has an end at `time` or later; behind the last one if there is none; nil if a piece
-- cannot be read.
local function first_piece_from(key, pieces, time)
  local low, high, found = pieces.first, pieces.last + 1, pieces.last + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    local number, last = middle, nil
    -- Pieces whose tasks were all deleted are passed over.
    while number < high and not last do
      local page = redis.pcall('ZRANGE', key .. ':' .. digits(number), -1, -1, 'WITHSCORES')
      if page.err then return nil end
      last, number = page[2], number + 1
    end
    if last and tonumber(last) < time then
      low = number
    else
      high = middle
      if last then found = number - 1 end
    end
  end
  return found
end
