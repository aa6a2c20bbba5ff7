-- key_lines: reads keyed slot queues line by line.
--
-- The `lines` of a pass are those that the call has read: each has the members of a key, from `at` on not handled yet, and if it
-- `is_partial` there may be more. They begin behind the key `begins_behind`, '' for the first one, and if the pass `has_all`
-- there is none behind them. `seen` is the number of members in them.
--
-- defines: add_lines, read_lines, next_of_line
-- needs: prelude
local BEHIND_KEY = string.rep('\255', 22)
local MEMBERS_PER_READ = 16

-- Adds members behind the lines of the pass: `pass.step` of them, or all that there are.
local function add_lines(pass, members)
  local lines, count, line, is_known = pass.lines, #pass.lines, nil, false
  for i = 1, #members do
    local member = members[i]
    local key_digest = string.sub(member, 1, 8)
    if line and line.key_digest == key_digest then
      if not is_known then line[#line + 1], pass.seen = member, pass.seen + 1 end
    else
      -- The call may have read it in the pass before.
      line = pass.earlier and pass.earlier[key_digest]
      is_known = line and true
      if not line then
        line = { member, key_digest = key_digest, at = 1, passed_over = 0, is_partial = false }
        pass.seen = pass.seen + 1
      end
      lines[#lines + 1] = line
    end
  end
  pass.has_all = #members < pass.step
  if not pass.has_all then line.is_partial = line.is_partial or not is_known end
  -- Where each key has one task, more of them are of use; where keys have many, one is enough.
  pass.step = #lines - count == #members and math.min(2 * pass.step, 64) or 2
end

-- Reads lines behind those that are known.
local function read_lines(pass, key)
  local lines = pass.lines
  local behind, from = lines[1] and lines[#lines].key_digest or pass.begins_behind, '-'
  if behind ~= '' then from = '(' .. behind .. BEHIND_KEY end
  add_lines(pass, call('ZRANGEBYLEX', key, from, '+', 'LIMIT', '0', pass.step))
end

-- Returns the next member of a line; nil: there is none.
local function next_of_line(pass, key, line)
  if line[line.at] or not line.is_partial then return line[line.at] end
  local to = '(' .. line.key_digest .. BEHIND_KEY
  local members = call('ZRANGEBYLEX', key, '(' .. line[#line], to, 'LIMIT', '0', MEMBERS_PER_READ)
  for i = 1, #members do line[#line + 1] = members[i] end
  pass.seen, line.is_partial = pass.seen + #members, #members == MEMBERS_PER_READ
  return line[line.at]
end
