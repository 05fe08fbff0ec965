-- What happened, in numbers that only grow; counts.py reads them.
local function count(event, kind, queue, by)
  redis.call('HINCRBY', key('counts'), table.concat({event, kind, queue}, ':'), by or 1)
end

local function count_job(id, event)
  local kind, queue = read(id, 'kind', 'queue')
  count(event, kind, queue)
end

-- One run of a job, from its claim to whatever ended it.
local function observe_run(kind, milliseconds)
  local bucket = #run_bounds + 1
  for place, bound in ipairs(run_bounds) do
    if milliseconds <= bound then
      bucket = place
      break
    end
  end
  redis.call('HINCRBY', key('runs'), kind .. ':' .. bucket, 1)
  redis.call('HINCRBY', key('runs'), kind .. ':sum', milliseconds)
end
