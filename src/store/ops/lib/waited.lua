-- waited: for how long tasks had been ready that are handed out; to be `measured` before `commit`.
local waits = {}

-- So many tasks of the queue, each so many ms: 16 classes an octave, as in domain/histogram.rs.
local function have_waited(queue, ms, number)
  local class = ms
  if ms >= 16 then
    local _, octave = math.frexp(ms)
    class = 16 * (octave - 5) + math.floor(ms / 2 ^ (octave - 5))
  end
  local of = waits[queue] or { ms = 0 }
  waits[queue] = of
  of.ms = of.ms + ms * number
  of[class] = (of[class] or 0) + number
end
