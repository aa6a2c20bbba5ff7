--[[ enable_events: for a while somebody listens: until then scripts report what becomes of tasks.

KEYS[1] calls       hash   last call of each pump; the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'listen' (string)               same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] for_s       how long
RETURNS the name of the time since which somebody listens without a break. Whoever knew another, or none: between the two,
        changes may have gone unreported
MOVES   -
COST    O(1)
]]
if last then return last end

local key = base .. 'listen'
local since = news and string.match(listen, ' (.+)$') or pump .. '-' .. number
-- The key goes by itself some time after what it says is over.
write('SET', key, digits(clock[1] + ARGV[5]) .. ' ' .. since, 'EX', digits(4 * ARGV[5]))
touched[key] = true
return commit(cmsgpack.pack(since))
