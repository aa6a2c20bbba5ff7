--[[ listen: for a while somebody listens: until then scripts report what becomes of tasks.

KEYS[1] calls       hash   last call of each pump; the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'listen' (string)               same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] for_s       how long
RETURNS 1 if somebody listened up to now, 0 if changes may have gone unreported
MOVES   -
COST    O(1)
]]
if last then return last end

-- The key goes by itself some time after what it says is over.
write('SET', base .. 'listen', digits(clock[1] + ARGV[5]), 'EX', digits(4 * ARGV[5]))
touched[base .. 'listen'] = true
return commit(cmsgpack.pack(news and 1 or 0))
