-- waited: for how long tasks had been ready that are handed out. `all_waited` is called before `commit`.
local waits = {}

-- One task of the queue, so many ms: 16 classes an octave, as in domain/histogram.rs.
local function has_waited(queue, ms)
  local class = ms
  if ms >= 16 then
    local _, octave = math.frexp(ms)
    class = 16 * (octave - 5) + math.floor(ms / 2 ^ (octave - 5))
  end
  local of = waits[queue]
  if not of then
    waits[queue] = { ms, class, 1 }
    return
  end
  of[1] = of[1] + ms
  for i = 2, #of, 2 do
    if of[i] == class then
      of[i + 1] = of[i + 1] + 1
      return
    end
  end
  of[#of + 1] = class
  of[#of + 1] = 1
end

local function both_waits(one, other)
  local list, place = { one[1] + other[1] }, {}
  for i = 2, #one, 2 do
    list[i], list[i + 1], place[one[i]] = one[i], one[i + 1], i + 1
  end
  for i = 2, #other, 2 do
    local at = place[other[i]]
    if at then
      list[at] = list[at] + other[i + 1]
    else
      list[#list + 1] = other[i]
      list[#list + 1] = other[i + 1]
    end
  end
  return list
end

local function all_waited()
  add_up('waits', waits, both_waits)
end

