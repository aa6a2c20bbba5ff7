-- sums: how what the throughput model is made of is summed up, for 5 s of Redis' clock each and for each queue:
--   submitted   how many
--   waited      `ms`: for how long all tasks handed out had been ready; class of these times: how many
--   ends        leases completed, failed, released, run out; how many ms all of them had lasted
local BUCKET_MS = 5000

-- Adds `more` to `sum` (nil: nothing), which it may change, and returns that.
local function add_to(sum, more)
  if type(more) == 'number' then return (sum or 0) + more end
  sum = sum or {}
  for what, n in pairs(more) do sum[what] = (sum[what] or 0) + n end
  return sum
end

-- What a pump has at hand, from its record: of which 5 s, and what by name and queue; nil where it has nothing.
local function at_hand_of(record)
  local at, packed = string.match(record or '', '^%d+ (%d+) (.*)$')
  if at then return math.floor(at / BUCKET_MS), cmsgpack.unpack(packed) end
end
