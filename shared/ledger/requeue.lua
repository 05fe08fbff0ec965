-- ARGV: id, fence, delay, error (JSON or ''), whether the attempt counts.
-- Returns whether the job went back.
local id, delay, error = ARGV[1], tonumber(ARGV[3]), ARGV[4]
local state, fence, cancel = read(id, 'state', 'fence', 'cancel_requested')
if fence ~= ARGV[2] then return 0 end
if state ~= 'running' then return state == 'queued' and 1 or 0 end
if cancel == '1' then
  finish(id, 'cancelled', '', '')
  return 1
end
if ARGV[5] == '1' then
  count_job(id, 'retried')
else
  count_job(id, 'returned')
  redis.call('HINCRBY', key('job', id), 'attempts', -1)
end
write(id, 'error', error)
enqueue(id, now + delay)
return 1
