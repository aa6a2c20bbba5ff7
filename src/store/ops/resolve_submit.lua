--[[ resolve_submit: returns the tasks that a submit of unknown outcome has handed over. It takes the number of that call: if
the submit has not run, it never will.

KEYS    callers
RETURNS {replies, {request, task, lease_until, id, token} of each task handed over}, as submit does
MOVES   -
COST    O(1)
]]
local answer = open_call()
if answer then return answer end

return commit({ {}, {} })
