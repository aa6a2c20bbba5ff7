-- clock_record: stages the record of the shard's clock, in the form that `clock` reads.
--
-- defines: touch
-- needs: prelude, clock, transaction
-- keys: callers

-- Stages a touch at `time` with the shift in ms, and the time at which the shift was last changed, nil if never.
local function touch(time, shift, changed_at)
  local record = digits(time)
  if changed_at then record = record .. ' ' .. digits(shift) .. ' ' .. digits(changed_at) end
  set_field(callers_command, 'clock', record)
end
