-- turn_back: returns a turn to slots whose task was claimed and not delivered. A keyed slot queue that is on the wheel stays where
-- it is: a turn in front would be one of all its keys.
--
-- defines: give_turn_back
-- needs: prelude, clock, transaction, wheel
-- sets: stage_turns, behind stage_wheels, which puts those slots in front of their priorities
local slots_with_turn, turns_back = {}, 0

-- The slot of an enqueued task comes first in its priority; of several slots, the last.
local function give_turn_back(task)
  local queue = task[F.queue]
  turns_back = turns_back + 1
  local entry = slot_of(queue, task[F.priority], task[F.slot], task[F.key_digest])
  if not entry.turn_back then slots_with_turn[#slots_with_turn + 1] = entry end
  entry.turn_back, entry.wheel, entry.is_keyed = turns_back, base .. 'wheel:' .. queue, task[F.key_digest] ~= ''
end

-- Returns a score in front of all members of this priority.
local function front_score(wheel, priority)
  local from = (9 - priority) * TURNS
  local first = call('ZRANGEBYSCORE', wheel, digits(from), '(' .. digits(from + TURNS), 'WITHSCORES', 'LIMIT', 0, 1)
  return first[2] and tonumber(first[2]) - 1 or from + next_turn()
end

stage_turns = function()
  local scores = {}
  table.sort(slots_with_turn, function(one, other) return one.turn_back < other.turn_back end)
  for _, entry in ipairs(slots_with_turn) do
    if entry.size == 0 or not entry.is_keyed then
      local place = entry.priority .. entry.wheel
      scores[place] = scores[place] and scores[place] - 1 or front_score(entry.wheel, entry.priority)
      zset_add(entry.wheel, digits(scores[place]), entry.member)
    end
  end
end
