--[[ complete_and_claim: ends leased tasks as completed, if their tokens hold the leases, and leases ready tasks to the claims
that follow accepted completions. A completed task keeps the leases that its claim got, for a repetition of its report.

ARGV[5] retain_ms   how long a completed task without its own retention is kept
ARGV[6] count       of tasks; then for each: id, token, result
        claims      see open_with_claims
        followed    for each claim: index of its completion, and what precedes the leases that the completed task keeps
RETURNS {replies of complete_tasks, reply of lease_ready}
        A repeated call returns the same replies, and the same leases without those that have ended.
MOVES   leased -> completed, ready -> leased
COST    O(n log leased), O(n log queue), and a page of the wheel for each queue
]]
local at, claims = tokens_at + max_tasks + 1, {}
local followed_at = at + 1
for i = 1, tonumber(ARGV[at]) do followed_at = followed_at + 5 + ARGV[followed_at + 4] end
local left_out = {}
for i = 1, tonumber(ARGV[at]) do
  local completion = tonumber(ARGV[followed_at + 2 * i - 2])
  claims[i] = { key = keys[completion], followers = ARGV[followed_at + 2 * i - 1] }
  left_out[i] = replies[completion][1] ~= 'completed'
end

local reply = lease_ready(queue_names, tokens_at, at, left_out)
-- For a repetition of this call: request, queue, lease_until, id, token of each task.
local remembered, claim_of = {}, {}
for i, handout in ipairs(reply[3]) do
  local claim, id, token = claims[handout[1]], handout[3], ARGV[tokens_at + i]
  remembered[i] = { handout[1], handout[5], handout[4], id, token }
  claim.followers, claim_of[claim.key] = claim.followers .. id .. token, claim
end
-- The commands that complete the tasks are staged.
for _, command in ipairs(writes) do
  local claim = remembered[1] and command[1] == 'HSET' and claim_of[command[2]]
  if claim then set_field(command, F.followers, claim.followers) end
end
return commit({ replies, reply }, cmsgpack.pack({ replies, remembered }))
