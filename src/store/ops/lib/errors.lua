-- errors: the last errors of a task. They are a ring that a counter of its own indexes, so that a retry keeps them.
--
-- Reads ARGV[7..8]: how many errors a task keeps, their bytes in all.
--
-- defines: add_error
-- needs: prelude, clock, transaction
local max_errors, max_error_bytes = tonumber(ARGV[7]), tonumber(ARGV[8])

-- Adds an error to the fields of `command`. Old errors that exceed the bytes are emptied by the same write: a stopped
-- script loses no error for nothing.
local function add_error(command, task, attempt, report)
  local number = (tonumber(task[F.error_count]) or 0) + 1
  local error, names = digits(now) .. ' ' .. attempt .. ' ' .. report, {}
  set_field(command, F.error_count, number)
  set_field(command, F.error .. number % max_errors, error)
  local bytes_left = max_error_bytes - #error
  for back = 1, max_errors - 1 do names[back] = F.error .. (number - back) % max_errors end
  for back, older in ipairs(call('HMGET', task.key, unpack(names))) do
    bytes_left = bytes_left - (older and #older or 0)
    if bytes_left < 0 and older and older ~= '' then set_field(command, names[back], '') end
  end
end
