-- submit_options: the options of new tasks, which few tasks have.
--
-- Reads ARGV[5]: within_ms, how far from now run_at may be.
--
-- defines: within_ms, read_options, set_options
-- needs: prelude, clock, transaction, waiting
-- keys: expirations
local within_ms = tonumber(ARGV[5])

local function read_options(at)
  local delay_ms, run_at, expires_in_ms, digest, mode, window_ms = tonumber(ARGV[at]), unpack(ARGV, at + 1, at + 5)
  return { run_at = tonumber(run_at) or (delay_ms > 0 and now + delay_ms) or nil,
    expires_at = expires_in_ms ~= '' and now + tonumber(expires_in_ms), expires_in_ms = expires_in_ms,
    digest = digest ~= '' and digest, mode = mode,
    until_ms = (window_ms or '') ~= '' and digits(now + tonumber(window_ms)) or nil }
end

-- Appends the fields that the options of a new task add. Returns its state.
local function set_options(command, task, options)
  local state = 'ready'
  if options.run_at then
    state = 'scheduled'
    schedule(task, options.run_at)
    set_field(command, F.run_at, options.run_at)
  end
  if options.expires_at then
    set_field(command, F.expires_at, options.expires_at)
    set_field(command, F.expires_in_ms, options.expires_in_ms)
    zset_add(base .. 'expirations', options.expires_at, task.id)
  end
  if not options.digest then return state end
  set_field(command, F.dedupe_digest, options.digest)
  if options.until_ms then set_field(command, F.dedupe_until, options.until_ms) end
  if task.predecessor then
    set_field(command, F.predecessor, task.predecessor)
    set_field(command, F.start_at, options.start_at or '')
    if task.replaces then set_field(command, F.replaces, '1') end
  else
    write('SET', options.dedupe_key, task.id .. (options.until_ms or ''))
  end
  return state
end
