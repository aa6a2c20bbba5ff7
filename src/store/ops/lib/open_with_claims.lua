-- open_with_claims: opens a call that completes tasks and serves the claims that follow. It takes the place of open_call in
-- complete_tasks: it reads the records of the queues of the claims too, and repeats their leases.
--
-- Reads ARGV behind the completions: max_bytes of documents handed out, of which one is always handed out; number of queues,
-- and their names; number of tokens, which is the maximum of tasks, and the tokens; the requests, see lease_ready.
--
-- defines: queue_names, tokens_at, open_call
-- needs: open_call, wheel_reader, define_repetition, see repeated_claim
local claims_at = 7 + 3 * ARGV[6]
local queue_names, tokens_at = { unpack(ARGV, claims_at + 2, claims_at + 1 + ARGV[claims_at + 1]) }, claims_at + 2 + ARGV[claims_at + 1]
max_tasks, bytes_left = tonumber(ARGV[tokens_at]), tonumber(ARGV[claims_at])

local open_with = open_call
local function open_call(queues)
  for _, name in ipairs(queue_names) do
    if raw_records[name] == nil then raw_records[name], queues[#queues + 1] = false, name end
  end
  local answer = open_with(queues)
  if not last_reply then return answer end
  local repeat_lease, first, handouts = define_repetition(), cmsgpack.unpack(last_reply), {}
  for token, entry in ipairs(first[2]) do
    local request, queue, _, id, token_bytes = unpack(entry)
    handouts[#handouts + 1] = repeat_lease(request, token, token_bytes, queue, id)
  end
  return cmsgpack.pack({ first[1], { 1, 0, handouts, {}, {} } })
end
