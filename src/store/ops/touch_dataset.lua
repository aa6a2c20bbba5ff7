--[[ touch_dataset: proves that the shard accepts writes, and returns the data set it belongs to and its generation.

KEYS    dataset
ARGV[5] dataset     id and number of shards; stored if the shard has none and `purpose` allows it
ARGV[6] purpose     'check': store nothing new; 'create': store `dataset` if there is none; 'accept': store `dataset` in any
                    case, and have all servers accept it
RETURNS {'marker', dataset, generation, time in ms at which a data set was last accepted, or 0} | {'missing'}
MOVES   -
COST    O(1)
]]
local answer = open_call()
if answer then return answer end

local key = base .. 'dataset'
local marker = call('HMGET', key, 'dataset', 'generation', 'accepted_at')
local dataset, generation, accepted_at = marker[1], tonumber(marker[2] or 0), tonumber(marker[3] or 0)
if ARGV[6] == 'accept' then
  dataset, accepted_at = ARGV[5], math.max(now, accepted_at + 1)
elseif not dataset and ARGV[6] == 'create' then
  dataset = ARGV[5]
end
local reply = { 'missing' }
if dataset then
  generation = generation + 1
  write('HSET', key, 'dataset', dataset, 'generation', digits(generation), 'accepted_at', digits(accepted_at))
  reply = { 'marker', dataset, generation, accepted_at }
end
return commit(reply)
