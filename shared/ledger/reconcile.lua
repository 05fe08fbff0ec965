-- Looks at the jobs whose time has come. ARGV: limit.
-- Returns {queued ids whose hint may be lost, lost leases, crashed, past deadline, expired}.
local limit = tonumber(ARGV[1])
local hints, lost, crashed, late, expired = {}, 0, 0, 0, 0

local function forget(id)
  local state, kind, model, submitter, parent, idempotency_key =
    read(id, 'state', 'kind', 'model', 'submitter', 'parent_id', 'idempotency_key')
  if idempotency_key and idempotency_key ~= '' then
    redis.call('DEL', key('idempotency', idempotency_key))
  end
  unindex(id, 'state', state)
  unindex(id, 'kind', kind)
  unindex(id, 'model', model)
  unindex(id, 'submitter', submitter)
  if parent and parent ~= '' then redis.call('ZREM', key('children', parent), id) end
  redis.call('ZREM', key('jobs'), id)
  redis.call('ZREM', key('due'), id)
  redis.call('DEL', key('job', id), key('events', id))
end

local function lose(id, crashes, cancelled)
  lost = lost + 1
  count_job(id, 'lost')
  if cancelled then
    finish(id, 'cancelled', '', '')
  elseif crashes >= max_crashes then
    crashed = crashed + 1
    count_job(id, 'crashed')
    fail(id, 'crashed', string.format('the worker was lost %d times while it ran this job', crashes))
  else
    enqueue(id, now + backoff * (crashes - 1))
    table.insert(hints, id)
  end
end

local function look(id)
  local state, deadline, lease_until, pending, cancelled =
    read(id, 'state', 'deadline', 'lease_until', 'pending', 'cancel_requested')
  deadline, lease_until = tonumber(deadline), tonumber(lease_until)
  if not state then
    redis.call('ZREM', key('due'), id)
  elseif state == 'queued' then
    if deadline and deadline <= now then
      late = late + 1
      fail(id, 'deadline_exceeded', 'the deadline passed in the queue')
    else
      table.insert(hints, id)
      due(id, sooner(now + republish, deadline))
    end
  elseif state == 'running' and pending then
    due(id, now + republish) -- a parent ends with its children
  elseif state == 'running' then
    if lease_until <= now then
      lose(id, redis.call('HINCRBY', key('job', id), 'crashes', 1), cancelled == '1')
    elseif deadline and deadline + grace <= now then
      late = late + 1
      fail(id, 'deadline_exceeded', 'the job did not stop in time')
    else
      due(id, sooner(lease_until, deadline and deadline + grace))
    end
  else
    expired = expired + 1
    count_job(id, 'expired')
    forget(id)
  end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('due'), '-inf', now, 'LIMIT', 0, limit)) do
  look(id)
end
return {hints, lost, crashed, late, expired}
