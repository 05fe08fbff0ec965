-- What happened, in numbers that only grow; counts.py reads them.
local function count(event, kind, queue, by)
  redis.call('HINCRBY', key('counts'), table.concat({event, kind, queue}, ':'), by or 1)
end

local function count_job(id, event)
  local kind, queue = read(id, 'kind', 'queue')
  count(event, kind, queue)
end

-- A run of a job has ended; it began with its claim. That of a batch, which nobody claims, is none.
local function end_run(id)
  local kind, claimed = read(id, 'kind', 'claimed_at')
  if not claimed or claimed == '' then return end
  write(id, 'claimed_at', '')
  local milliseconds = now - claimed
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
