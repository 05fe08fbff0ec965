-- Gives a running job back because a service does not answer. The run does not count as an attempt.
-- ARGV: id, fence, service, reason, error (JSON), milliseconds that the service asks for, jitter (0 to 1).
-- Returns {postponed, lost, or over where the budget is used up; milliseconds that the service was away}.
local id, service = ARGV[1], ARGV[3]
local state, fence, cancel = read(id, 'state', 'fence', 'cancel_requested')
if fence ~= ARGV[2] then return {'lost', 0} end
-- The reply to this very call was lost on its way, and it is asked again.
if state ~= 'running' then return {state == 'queued' and 'postponed' or 'lost', 0} end
if cancel == '1' then
  finish(id, 'cancelled', '', '')
  return {'postponed', 0}
end

local outage = outage_of(id)
if not outage or outage.service ~= service then
  outage = {service = service, since = now, tries = 0}
end
local away = now - outage.since - (outage.worked or 0)
if away >= outage_budget then return {'over', away} end

local delay = math.min(outage_backoff * 2 ^ outage.tries, outage_backoff_max) * ARGV[7] + ARGV[6]
outage.tries, outage.reason = outage.tries + 1, ARGV[4]
set_outage(id, outage)
count_job(id, 'postponed')
redis.call('HINCRBY', key('job', id), 'attempts', -1)
write(id, 'error', ARGV[5])
-- The last try is at the end of the budget.
enqueue(id, now + math.ceil(math.min(delay, outage_budget - away)))
return {'postponed', away}
