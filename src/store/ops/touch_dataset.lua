--[[ touch_dataset: prove that the shard takes writes, and say which data set it is and how old.

KEYS[1] calls       hash   the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'pulse' (hash)                  same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] set         the data set, written where the shard has none and may be given one
ARGV[6] purpose     'look': a shard without one stays without; 'found': it gets one; 'accept': it gets this one,
                    whatever it had, and all servers take it for theirs
RETURNS {'beats', set, beats so far, when the set was last accepted, ms or 0} | {'gone'}
MOVES   -
COST    O(1)
]]
if last then return last end

local key = base .. 'pulse'
local pulse = call('HMGET', key, 'set', 'beats', 'accepted')
touched[key] = true
local set, beats, accepted = pulse[1], tonumber(pulse[2] or 0), tonumber(pulse[3] or 0)
local answer = { 'gone' }
if ARGV[6] == 'accept' then
  set, accepted = ARGV[5], math.max(now, accepted + 1)
elseif not set and ARGV[6] == 'found' then
  set = ARGV[5]
end
if set then
  beats = beats + 1
  write('HSET', key, 'set', set, 'beats', digits(beats), 'accepted', digits(accepted))
  answer = { 'beats', set, beats, accepted }
end
return commit(cmsgpack.pack(answer))
