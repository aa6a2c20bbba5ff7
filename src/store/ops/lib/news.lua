-- news: what becomes of tasks is reported while somebody listens. A script without this fragment can move none.
--
-- base .. 'listen' holds until when, and the name of the time since which somebody does without a break. Servers say it
-- in seconds of Redis' own clock: their time is not one that a test moves.
local listen = call('GET', base .. 'listen')
if listen and (tonumber(string.match(listen, '^%d+')) or 0) > tonumber(clock[1]) then
  news = {}
  -- In messages of bounded size.
  report = function()
    for from = 1, #news, 100 do
      call('SPUBLISH', base .. 'events', cmsgpack.pack({ now, unpack(news, from, math.min(from + 99, #news)) }))
    end
  end
end

-- A new task comes from '', and one that is removed goes to 'removed'.
local function tell(id, queue, from, to)
  if news then news[#news + 1] = { id, queue, from, to } end
end

local function move(task, from, to)
  count(task.q, from, -1)
  count(task.q, to, 1)
  tell(task.id, task.q, from, to)
end
