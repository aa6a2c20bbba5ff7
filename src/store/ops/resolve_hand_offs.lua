--[[ resolve_hand_offs: returns the tasks that a submit of unknown outcome has handed over. It takes the number of
that call: if the call has not run, it never will.

KEYS    callers
RETURNS {replies, {request, index, lease_until, id, token} of each task handed over}, as that call
        remembers it
MOVES   -
COST    O(1)
]]
local answer = open_call()
if answer then return answer end

return commit({ {}, {} })
